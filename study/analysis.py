"""How well proxies stand in for the C-score.  in: finished runs, by querying MLflow   out: joined tables, correlations

Tables join on `example`; runs on other data, or with other labels, are refused.  Every number is oriented: positive
means that the proxy agrees with "high C-score = consistent".
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study import cscore
from study.cscore import Profile, percent
from study.data import Dataset
from study.ensemble import keys, size
from study.errors import AnalysisError
from study.evidence import evidence
from study.proxies import PROXIES, Spec, compute, oriented
from study.ranks import distinct, kendall, noise_ceiling, spearman, tie_ceiling
from study.recipe import Recipe
from study.single import finished_repeats
from study.tracking import Run, Store

LABELS = ("example", "label")


@dataclass(frozen=True)
class Gathered:
    """The runs of one study, with their tables in the order of the data set.

    ensemble: None for a recipe of kind "single", which is held against published C-scores alone.
    cscores: cscore.parquet, (n rows); with a reference its scores are the column `published`.  Without an ensemble
        `cscore` holds the published scores too, and there are no columns of single ratios.
    profile: sums per ratio and half; None without an ensemble.
    scores: one scores.parquet per single run.
    """

    ensemble: Run | None
    singles: tuple[Run, ...]
    reference: Run | None
    cscores: pd.DataFrame
    profile: Profile | None
    scores: tuple[pd.DataFrame, ...]

    @property
    def runs(self) -> list[Run]:
        """Every run that was read."""
        return [run for run in (self.ensemble, *self.singles, self.reference) if run is not None]


def gather(recipe: Recipe, dataset: Dataset, store: Store) -> Gathered:
    """Find the finished runs of a recipe on this data, read their tables and join them.

    Raises:
        AnalysisError: no such runs, or tables with other examples or labels.
    """
    singles = tuple(finished_repeats(store, recipe, dataset).values())
    if not singles:
        run = _finished(store, "single", recipe.part("single"), dataset)[0]
        raise AnalysisError(
            f"the single run {run.id} lacks some of the recipe's proxies, or files; run `study single` with it first"
        )
    scores = tuple(_joined(run, "scores.parquet", dataset) for run in singles)
    found = store.find("reference", tags={"study.data": dataset.digest}, status="FINISHED", max=1)
    reference = found[0] if found else None
    published = _joined(reference, "reference.parquet", dataset)["cscore"] if reference else None

    if recipe.kind == "single":
        if reference is None:
            raise AnalysisError(
                "a recipe of kind 'single' has no C-scores of its own; give it published ones with "
                "`study reference FILE RECIPE`, or make it kind = 'study'"
            )
        cscores = scores[0][[*LABELS, "split"]].assign(cscore=published, published=published, consensus=-1)
        return Gathered(None, singles, reference, cscores, None, scores)
    ensemble = _sized(_finished(store, "ensemble", recipe.part("ensemble"), dataset), recipe)
    cscores = _joined(ensemble, "cscore.parquet", dataset)
    if published is not None:
        cscores["published"] = published
    profile = Profile.from_columns(ensemble.read_table("profile.parquet"), dataset.n)
    return Gathered(ensemble, singles, reference, cscores, profile, scores)


def _finished(store: Store, kind: str, part: Recipe, dataset: Dataset) -> list[Run]:
    runs = store.find(kind, tags=keys(part, dataset), status="FINISHED")
    if runs:
        return runs
    elsewhere = store.find(kind, tags={"study.digest": part.digest()}, status="FINISHED", max=1)
    if elsewhere:
        raise AnalysisError(
            f"the {kind} run {elsewhere[0].id} of this recipe has seen other data "
            f"(digest {elsewhere[0].tags['study.data']}, now {dataset.digest}); run `study {kind}` again"
        )
    raise AnalysisError(
        f"{store.where}: no finished {kind} run of this recipe (digest {part.digest()}); "
        f"run `study {kind}` with it first"
    )


def _sized(ensembles: list[Run], recipe: Recipe) -> Run:
    """The ensemble of as many members at the same ratios as the recipe says: others share its digest."""
    for run in ensembles:
        if run.tags["study.size"] == size(recipe):
            return run
    raise AnalysisError(
        f"the recipe asks for {size(recipe)}, the finished ensemble {ensembles[0].id} has "
        f"{ensembles[0].tags['study.size']}; run `study ensemble` with it first"
    )


def _joined(run: Run, name: str, dataset: Dataset) -> pd.DataFrame:
    """Read a table and bring it into the data set's order.

    Raises:
        AnalysisError: other examples, or other labels.
    """
    if run.tags.get("study.data") != dataset.digest:
        raise AnalysisError(
            f"run {run.id} ({run.name}) has seen other data: digest {run.tags.get('study.data')}, here {dataset.digest}"
        )
    table = run.read_table(name)
    theirs = pd.Index(table["example"])
    places = theirs.get_indexer(pd.Index(dataset.ids)) if theirs.is_unique else np.array([-1])
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


def point_estimates(cscores: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of each ratio's C-score with the integral one over the training rows (J-fig5).

    Returns:
        ratio | percent | spearman low high | kendall kendall_low kendall_high | n, one row per ratio.
    """
    train = cscores[cscores["split"] == "train"]
    rows = []
    for column in (name for name in cscores if name.startswith("cscore_") and name != "cscore_soft"):
        share = float(column.removeprefix("cscore_"))
        rows.append({"ratio": share / 100, "percent": share, **_correlated(train["cscore"], train[column])})
    return pd.DataFrame(rows)


def _correlated(x: np.ndarray | pd.Series, y: np.ndarray | pd.Series) -> dict[str, float]:
    """Both rank correlations with their intervals, as the tables name them."""
    rho, tau = spearman(x, y), kendall(x, y)
    return {
        "spearman": rho.value,
        "low": rho.low,
        "high": rho.high,
        "kendall": tau.value,
        "kendall_low": tau.low,
        "kendall_high": tau.high,
        "n": rho.n,
    }


def parts(scores: np.ndarray) -> dict[str, np.ndarray]:
    """All examples with a score, and those whose score is neither 0 nor 1: (n,) masks.

    Where most scores tie at 1 (three quarters of MNIST), a correlation over all examples says little else than who is
    in the tie.  The second part is chosen by the score itself, which lowers its correlations.
    """
    known = np.isfinite(scores)
    return {"all": known, "unsaturated": known & (scores > 0) & (scores < 1)}


def references(gathered: Gathered) -> dict[str, np.ndarray]:
    """What proxies are held against: the hard C-score, the soft one, the published one where it is known; (n,) each."""
    own = ("cscore", "cscore_soft") if gathered.ensemble else ()
    names = [name for name in (*own, "published") if name in gathered.cscores]
    return {name: gathered.cscores[name].to_numpy(dtype=float) for name in names}


def correlations(gathered: Gathered, dataset: Dataset) -> pd.DataFrame:
    """Every proxy of every repeat against every reference, over all examples and over the unsaturated ones.

    Returns:
        proxy label family easy on | reference part repeat | spearman low high | kendall kendall_low kendall_high |
        ceiling (the Spearman that a perfect proxy could reach, NaN for published scores) | n | distinct values of the
        proxy.  The unsaturated part is that of the hard C-score, also for the soft one.
    """
    rows = []
    split = gathered.cscores["split"].to_numpy()
    for name, values in references(gathered).items():
        saturation = gathered.cscores["published" if name == "published" else "cscore"].to_numpy(dtype=float)
        for on in ("train", "test"):
            for part, chosen in parts(saturation).items():
                mask = chosen & (split == on)
                ceiling = _ceiling(gathered.profile, name, mask)
                for repeat, table in enumerate(gathered.scores):
                    rows += [
                        _row(spec, table, values, mask)
                        | {"reference": name, "part": part, "repeat": repeat, "ceiling": ceiling}
                        for spec in _specs(table, on)
                        if mask.any()
                    ]
    if not rows:
        raise AnalysisError("none of the single runs holds a proxy that is still registered")
    return pd.DataFrame(rows)


def _specs(table: pd.DataFrame, on: str) -> Iterator[Spec]:
    return (PROXIES[name] for name in table.columns if name in PROXIES and PROXIES[name].on == on)


def _row(spec: Spec, table: pd.DataFrame, values: np.ndarray, mask: np.ndarray) -> dict[str, object]:
    scores = oriented(spec, table[spec.name].to_numpy(dtype=float)[mask])
    return {
        "proxy": spec.name,
        "label": spec.label,
        "family": spec.family,
        "easy": spec.easy,
        "on": spec.on,
        **_correlated(values[mask], scores),
        "distinct": distinct(scores),
    }


def _ceiling(profile: Profile | None, reference: str, mask: np.ndarray) -> float:
    """The Spearman that a perfect proxy would reach on these rows, `ranks.noise_ceiling`; NaN for published scores."""
    if profile is None or reference == "published" or mask.sum() < 3:
        return float("nan")
    found = cscore.reliability(profile, mask)
    return noise_ceiling((found.soft if reference == "cscore_soft" else found.hard).value)


def curves(gathered: Gathered, dataset: Dataset) -> pd.DataFrame:
    """Proxies of one moment against the references, epoch by epoch (J-fig8, J-fig9b), on the training rows.

    Returns:
        proxy | reference | repeat | epoch | spearman low high.  Kendall is left out, as in the paper's figures.
    """
    rows = []
    train = dataset.rows("train")
    targets = {name: values[train] for name, values in references(gathered).items()}
    for repeat, run in enumerate(gathered.singles):
        for spec, epoch, scores in _moments(run, dataset):
            for name, values in targets.items():
                rho = spearman(values, oriented(spec, scores))
                rows.append(
                    {
                        "proxy": spec.name,
                        "reference": name,
                        "repeat": repeat,
                        "epoch": epoch,
                        "spearman": rho.value,
                        "low": rho.low,
                        "high": rho.high,
                    }
                )
    columns = ["proxy", "reference", "repeat", "epoch", "spearman", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def trajectory(run: Run, dataset: Dataset) -> dict[str, np.ndarray]:
    """The trajectory of a single run: correct (e, n) bool, confidence and top_confidence (e, n)."""
    kept = run.read_arrays("trajectory.npz")
    correct = np.unpackbits(kept["correct"], axis=1, count=dataset.n).astype(bool)
    return {"correct": correct, "confidence": kept["confidence"], "top_confidence": kept["top_confidence"]}


def _moments(run: Run, dataset: Dataset) -> Iterator[tuple[Spec, int, np.ndarray]]:
    """(proxy, epoch, scores of the training rows), for every proxy of one moment and every epoch that knows it."""
    kept, path = run.read_arrays("curves.npz"), trajectory(run, dataset)
    for spec in PROXIES.values():
        if not spec.moment or spec.on != "train":
            continue
        if spec.name in kept:
            yield from (
                (spec, int(epoch), scores) for epoch, scores in zip(kept["epochs"], kept[spec.name], strict=True)
            )
        elif set(spec.evidence) <= {"labels", "target_confidence_now", "top_confidence_now"}:
            for epoch in range(1, len(path["correct"]) + 1):
                so_far = {word: series[:epoch] for word, series in path.items()}
                yield spec, epoch, compute(spec, evidence(spec, dataset, so_far, {}))


def facts(gathered: Gathered, dataset: Dataset, points: pd.DataFrame) -> dict[str, str]:
    """What a reader has to know about the runs, in words."""
    train = gathered.cscores[gathered.cscores["split"] == "train"]
    told = {
        "data": f"{dataset.name}: {dataset.n_train:,} train, {dataset.n_test:,} test examples, "
        f"{dataset.n_classes} classes (digest {dataset.digest})"
    }
    told |= _ensemble_facts(gathered.ensemble, gathered.profile, dataset, train) if gathered.ensemble else {}
    told["C-scores"] = f"mean {train['cscore'].mean():.4f}, {(train['cscore'] == 1).mean():.1%} at exactly 1"
    told["ties"] = f"a score without ties can reach Spearman {tie_ceiling(train['cscore']):.3f} at most"
    if points.shape[0] and points["spearman"].notna().any():
        best = points.loc[points["spearman"].idxmax()]
        told["best single ratio"] = f"{best['percent']:g} % (Spearman {best['spearman']:.3f} with the integral C-score)"
    final = gathered.singles[0]
    test = f", test {final.metrics['test/accuracy']:.4f}" if "test/accuracy" in final.metrics else ""
    told["single runs"] = (
        f"{len(gathered.singles)}, {final.params['model.name']}, {final.params['train.epochs']} epochs; "
        f"last one: train accuracy {final.metrics['train/accuracy']:.4f}{test}"
    )
    if gathered.reference and gathered.ensemble:
        hard, soft = (spearman(train[name], train["published"]).value for name in ("cscore", "cscore_soft"))
        told["published C-scores"] = f"Spearman {hard:.3f} with ours, {soft:.3f} with our soft ones"
    elif gathered.reference:
        told["published C-scores"] = f"{gathered.reference.name}; this study has no ensemble of its own"
    machine = (gathered.ensemble or final).tags
    told["machine"] = f"{machine['study.device']}, {machine['study.precision']} products"
    return told


def _ensemble_facts(ensemble: Run, profile: Profile, dataset: Dataset, train: pd.DataFrame) -> dict[str, str]:
    held_out, right = (sums[:, :, : dataset.n_train].sum(axis=(1, 2)) for sums in (profile.held_out, profile.correct))
    shares = zip(profile.ratios, right / held_out, strict=True)
    diverged = int(ensemble.metrics["members/diverged"])
    return {
        "ensemble": f"{ensemble.params['subset.members']} networks at each of {len(profile.ratios)} subset ratios, "
        f"{ensemble.params['subset.design']} subsets, {ensemble.params['model.name']}"
        + (f"; {diverged} diverged and are left out" if diverged else ""),
        "held-out accuracy": ", ".join(f"{share:.3f} at {percent(ratio)} %" for ratio, share in shares),
        "reliability": "halves of the networks rank the examples alike to Spearman "
        f"{ensemble.metrics['reliability/half']:.3f} (soft score {ensemble.metrics['reliability/half_soft']:.3f})",
        "standard error": "of one C-score "
        f"{train['stderr'].mean():.3f}, of a soft one {train['stderr_soft'].mean():.3f}",
    }
