"""The finished runs of a study.  in: a recipe, a Dataset, a Store   out: their tables, joined by example"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.data import Dataset
from study.errors import AnalysisError, StudyError
from study.progress import command
from study.recipe import Recipe
from study.runs.ensemble import keys, size_tag, size_text
from study.runs.single import finished_repeats
from study.scores.cscore import Profile
from study.tracking import Run, Store

log = logging.getLogger(__name__)

LABELS = ("example", "label")


@dataclass(frozen=True)
class StudyRuns:
    """The runs of one study, with their tables in the order of the data set.

    ensemble: None where there is none; single runs are then compared with published C-scores, if any.
    singles: empty for an ensemble alone.
    cscores: cscore.parquet, (n rows); with a reference its scores are the column `published`.  Published scores are of
        the clean labels: those of examples whose label was changed are in the column `published_changed` instead.
        Without an ensemble `cscore` holds the column `published` too; there are no columns of single ratios.
    profile: sums per ratio and half; None without an ensemble.
    scores: one scores.parquet per single run.
    others: of each other network in the store, the newest single run on this data, with its scores.parquet.
    uncorrected: the single runs of the same recipe on the data before a person's decisions; empty without decisions.
    """

    ensemble: Run | None
    singles: tuple[Run, ...]
    reference: Run | None
    cscores: pd.DataFrame
    profile: Profile | None
    scores: tuple[pd.DataFrame, ...]
    others: tuple[tuple[Run, pd.DataFrame], ...] = ()
    uncorrected: tuple[Run, ...] = ()

    @property
    def main(self) -> str:
        """The reference that a reader sees first: the study's own C-score, or the published one where there is none;
        no column has that name where there is neither."""
        return "cscore" if self.ensemble else "published"

    @property
    def all_runs(self) -> list[Run]:
        """Every run that was read."""
        runs = (self.ensemble, *self.singles, self.reference, *(run for run, _ in self.others), *self.uncorrected)
        return [run for run in runs if run is not None]


def load_runs(recipe: Recipe, dataset: Dataset, store: Store) -> StudyRuns:
    """Find the finished runs of a recipe on this data, read their tables and join them.

    Raises:
        AnalysisError: no such runs, or tables with other examples or labels.
    """
    singles = () if recipe.kind == "ensemble" else tuple(finished_repeats(store, recipe, dataset).values())
    ensemble = None if recipe.kind == "single" else _ensemble(recipe, dataset, store)
    if not singles and (ensemble is None or recipe.kind == "study"):
        _explain_missing(recipe, dataset, store, ensemble)
    if ensemble is None and recipe.kind == "study":
        log.warning("no finished ensemble of this recipe on this data: what follows is of the single runs alone")
    scores = tuple(_joined(run, "scores.parquet", dataset) for run in singles)
    references = store.find("reference", tags={"study.data": dataset.digest}, status="FINISHED", max=1)
    reference = references[0] if references else None
    scored = _joined(reference, "reference.parquet", dataset)["cscore"] if reference else None
    unchanged = dataset.labels == dataset.clean_labels
    published = None if scored is None else scored.where(unchanged)
    others = tuple(_others(store, dataset, singles[0])) if singles else ()
    if ensemble is None:
        missing = np.full(dataset.n, np.nan)
        cscores = scores[0][[*LABELS, "split"]].assign(cscore=missing if published is None else published, consensus=-1)
        profile = None
    else:
        cscores = _joined(ensemble, "cscore.parquet", dataset)
        profile = Profile.from_columns(ensemble.read_table("profile.parquet"), dataset.n)
    if scored is not None:
        cscores["published"], cscores["published_changed"] = published, scored.mask(unchanged)
    uncorrected = tuple(_uncorrected(recipe, dataset, store)) if singles else ()
    return StudyRuns(ensemble, singles, reference, cscores, profile, scores, others, uncorrected)


def _ensemble(recipe: Recipe, dataset: Dataset, store: Store) -> Run | None:
    """The recipe's finished ensemble; None where none was trained on this data."""
    ensembles = store.find("ensemble", tags=keys(recipe.part("ensemble"), dataset), status="FINISHED")
    if not ensembles:
        return None
    return _sized(ensembles, recipe)


def _explain_missing(recipe: Recipe, dataset: Dataset, store: Store, ensemble: Run | None) -> None:
    """Say why there is no single run; an ensemble goes on without, but not without a warning.

    Raises:
        AnalysisError: there is no ensemble either, or there are single runs that cannot be used.
    """
    kind = "ensemble" if recipe.kind == "ensemble" else "single"
    tags = {"study.digest": recipe.part(kind).digest()}
    if ensemble is not None and not store.find("single", tags=tags, status="FINISHED", max=1):
        log.warning("no finished single run of this recipe: what follows is of the ensemble alone, without proxies")
        return
    run = _finished(store, kind, recipe.part(kind), dataset)[0]
    raise AnalysisError(
        f"the single run {run.id} lacks some of the recipe's proxies, or files; run `{command('single')}` with it first"
    )


def _finished(store: Store, kind: str, part: Recipe, dataset: Dataset) -> list[Run]:
    runs = store.find(kind, tags=keys(part, dataset), status="FINISHED")
    if runs:
        return runs
    elsewhere = store.find(kind, tags={"study.digest": part.digest()}, status="FINISHED", max=1)
    if elsewhere:
        raise AnalysisError(
            f"the {kind} run {elsewhere[0].id} of this recipe was trained on other data "
            f"(digest {elsewhere[0].tags['study.data']}, now {dataset.digest}); run `{command(kind)}` again"
        )
    raise AnalysisError(
        f"{store.where}: no finished {kind} run of this recipe (digest {part.digest()}); "
        f"run `{command(kind)}` with it first"
    )


def _sized(ensembles: list[Run], recipe: Recipe) -> Run:
    """The ensemble of as many members at the same ratios as the recipe says: others share its digest."""
    for run in ensembles:
        if run.tags["study.size"] == size_tag(recipe):
            return run
    raise AnalysisError(
        f"the recipe asks for {size_text(size_tag(recipe))}, the finished ensemble {ensembles[0].id} has "
        f"{size_text(ensembles[0].tags['study.size'])}; run `{command('ensemble')}` with it first"
    )


def _joined(run: Run, name: str, dataset: Dataset) -> pd.DataFrame:
    """Read a table and bring it into the data set's order.

    Raises:
        AnalysisError: other examples, or other labels.
    """
    if run.tags.get("study.data") != dataset.digest:
        raise AnalysisError(
            f"run {run.id} ({run.name}) was trained on other data: "
            f"digest {run.tags.get('study.data')}, here {dataset.digest}"
        )
    table = run.read_table(name)
    examples = pd.Index(table["example"])
    places = examples.get_indexer(pd.Index(dataset.ids)) if examples.is_unique else np.array([-1])
    if len(table) != dataset.n or (places < 0).any():
        raise AnalysisError(f"run {run.id} ({run.name}): {name} holds other examples than {dataset.name}")
    table = table.iloc[places].reset_index(drop=True)
    wrong = np.flatnonzero(table["label"].to_numpy() != dataset.labels)
    if len(wrong):
        raise AnalysisError(
            f"run {run.id} ({run.name}): {len(wrong)} labels differ from {dataset.name}'s, "
            f"first at {dataset.ids[wrong[0]]}; it belongs to other labels"
        )
    return table


def _others(store: Store, dataset: Dataset, single: Run) -> Iterator[tuple[Run, pd.DataFrame]]:
    """Single runs of other networks than `single`'s, the newest of each; one that cannot be read is reported."""
    seen = {_network(single)}
    for run in store.find("single", tags={"study.data": dataset.digest}, status="FINISHED"):
        if _network(run) in seen:
            continue
        try:
            yield run, _joined(run, "scores.parquet", dataset)
        except StudyError as error:
            log.warning(f"{error}; left out of the agreement between networks")
            continue
        seen.add(_network(run))


def _uncorrected(recipe: Recipe, dataset: Dataset, store: Store) -> Iterator[Run]:
    """The finished single runs of a recipe on the data before decisions; none where a keep list has cut the data."""
    if not dataset.edits or any(edit.kind != "decisions" for edit in dataset.edits):
        return
    tags = {"study.digest": recipe.part("single").digest(), "study.data": dataset.edits[0].before}
    for repeat in range(recipe.single.repeats):
        yield from store.find("single", tags=tags | {"study.repeat": repeat}, status="FINISHED", max=1)


def _network(run: Run) -> tuple[tuple[str, str], ...]:
    """The parameters of its model: two widths of an MLP are two networks, two learning rates are one."""
    return tuple(sorted((key, value) for key, value in run.params.items() if key.startswith("model.")))
