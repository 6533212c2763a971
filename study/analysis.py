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
from study.ensemble import keys
from study.errors import AnalysisError
from study.evidence import evidence
from study.proxies import PROXIES, Spec, compute, oriented
from study.ranks import distinct, kendall, noise_ceiling, spearman, tie_ceiling
from study.recipe import Recipe
from study.tracking import Run, Store

LABELS = ("example", "label")


@dataclass(frozen=True)
class Gathered:
    """The runs of one study, with their tables in the order of the data set.

    cscores: cscore.parquet, (n rows); with a reference its scores are the column `published`.
    profile: sums per ratio and half.
    scores: one scores.parquet per single run.
    """

    ensemble: Run
    singles: tuple[Run, ...]
    reference: Run | None
    cscores: pd.DataFrame
    profile: Profile
    scores: tuple[pd.DataFrame, ...]

    @property
    def runs(self) -> list[Run]:
        """Every run that was read."""
        return [self.ensemble, *self.singles, *([self.reference] if self.reference else [])]


def gather(recipe: Recipe, dataset: Dataset, store: Store) -> Gathered:
    """Find the finished runs of a recipe on this data, read their tables and join them.

    Raises:
        AnalysisError: no such runs, or tables with other examples or labels.
    """
    ensembles = _finished(store, "ensemble", recipe.part("ensemble"), dataset)
    repeats: dict[str, Run] = {}
    for run in _finished(store, "single", recipe.part("single"), dataset):
        repeats.setdefault(run.tags["study.repeat"], run)
    singles = tuple(repeats[repeat] for repeat in sorted(repeats, key=int))[: recipe.single.repeats]
    references = store.find("reference", tags={"study.data": dataset.digest}, status="FINISHED", max=1)

    cscores = _joined(ensembles[0], "cscore.parquet", dataset)
    profile = Profile.from_columns(ensembles[0].read_table("profile.parquet"), dataset.n)
    reference = references[0] if references else None
    if reference:
        cscores["published"] = _joined(reference, "reference.parquet", dataset)["cscore"]
    scores = tuple(_joined(run, "scores.parquet", dataset) for run in singles)
    return Gathered(ensembles[0], singles, reference, cscores, profile, scores)


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
    ours = pd.Index(dataset.ids)
    places = pd.Index(table["example"]).get_indexer(ours)
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
        rho, tau = spearman(train["cscore"], train[column]), kendall(train["cscore"], train[column])
        rows.append(
            {
                "ratio": share / 100,
                "percent": share,
                "spearman": rho.value,
                "low": rho.low,
                "high": rho.high,
                "kendall": tau.value,
                "kendall_low": tau.low,
                "kendall_high": tau.high,
                "n": rho.n,
            }
        )
    return pd.DataFrame(rows)


def parts(scores: np.ndarray) -> dict[str, np.ndarray]:
    """All examples with a score, and those whose score is neither 0 nor 1: (n,) masks.

    Where most scores tie at 1 (three quarters of MNIST), a correlation over all examples says little else than who is
    in the tie.  The second part is chosen by the score itself, which lowers its correlations.
    """
    known = np.isfinite(scores)
    return {"all": known, "unsaturated": known & (scores > 0) & (scores < 1)}


def references(gathered: Gathered) -> dict[str, np.ndarray]:
    """What proxies are held against: the hard C-score, the soft one, the published one where it is known; (n,) each."""
    return {
        name: gathered.cscores[name].to_numpy(dtype=float)
        for name in ("cscore", "cscore_soft", "published")
        if name in gathered.cscores
    }


def correlations(gathered: Gathered, dataset: Dataset) -> pd.DataFrame:
    """Every proxy of every repeat against every reference, over all examples and over the unsaturated ones.

    Returns:
        proxy label family easy on | reference part repeat | spearman low high | kendall kendall_low kendall_high |
        ceiling (the Spearman that a perfect proxy could reach, NaN for published scores) | n | distinct values of the
        proxy.  The unsaturated part is that of the hard C-score, also for the soft one.
    """
    rows = []
    split = gathered.cscores["split"].to_numpy()
    halves = Halves(gathered.profile)
    for name, values in references(gathered).items():
        saturation = gathered.cscores["published" if name == "published" else "cscore"].to_numpy(dtype=float)
        for on in ("train", "test"):
            for part, chosen in parts(saturation).items():
                mask = chosen & (split == on)
                ceiling = halves.ceiling(name, mask)
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
    rho, tau = spearman(values[mask], scores), kendall(values[mask], scores)
    return {
        "proxy": spec.name,
        "label": spec.label,
        "family": spec.family,
        "easy": spec.easy,
        "on": spec.on,
        "spearman": rho.value,
        "low": rho.low,
        "high": rho.high,
        "kendall": tau.value,
        "kendall_low": tau.low,
        "kendall_high": tau.high,
        "n": rho.n,
        "distinct": distinct(scores),
    }


class Halves:
    """Split-half reliabilities of one ensemble, for noise ceilings on any rows."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def ceiling(self, reference: str, mask: np.ndarray) -> float:
        """The Spearman that a perfect proxy would reach on these rows, `ranks.noise_ceiling`; NaN where unknown."""
        if reference == "published" or mask.sum() < 3:
            return float("nan")
        found = cscore.reliability(self.profile, mask)
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
        elif "hidden_density" not in spec.evidence:
            for epoch in range(1, len(path["correct"]) + 1):
                so_far = {word: series[:epoch] for word, series in path.items()}
                yield spec, epoch, compute(spec, evidence(spec, dataset, **so_far, densities={}))


def facts(gathered: Gathered, dataset: Dataset, points: pd.DataFrame) -> dict[str, str]:
    """What a reader has to know about the runs, in words."""
    ensemble, train = gathered.ensemble, gathered.cscores[gathered.cscores["split"] == "train"]
    profile = gathered.profile
    held_out = profile.held_out[:, :, : dataset.n_train].sum(axis=(1, 2))
    right = profile.correct[:, :, : dataset.n_train].sum(axis=(1, 2)) / held_out
    accuracy = ", ".join(
        f"{share:.3f} at {percent(ratio)} %" for ratio, share in zip(profile.ratios, right, strict=True)
    )
    metrics = ensemble.metrics
    told = {
        "data": f"{dataset.name}: {dataset.n_train:,} train, {dataset.n_test:,} test examples, "
        f"{dataset.n_classes} classes (digest {dataset.digest})",
        "ensemble": f"{ensemble.params['subset.members']} networks at each of {len(profile.ratios)} subset ratios, "
        f"{ensemble.params['subset.design']} subsets, {ensemble.params['model.name']}",
        "held-out accuracy": accuracy,
        "C-scores": f"mean {train['cscore'].mean():.4f}, standard error of one {train['stderr'].mean():.3f}, "
        f"{(train['cscore'] == 1).mean():.1%} at exactly 1",
        "reliability": f"halves of the networks rank the examples alike to Spearman {metrics['reliability/half']:.3f} "
        f"(soft score {metrics['reliability/half_soft']:.3f})",
        "ties": f"a score without ties can reach Spearman {tie_ceiling(train['cscore']):.3f} at most",
    }
    if points["spearman"].notna().any():
        best = points.loc[points["spearman"].idxmax()]
        told["best single ratio"] = f"{best['percent']:g} % (Spearman {best['spearman']:.3f} with the integral C-score)"
    if gathered.singles:
        final = gathered.singles[0].metrics
        test = f", test {final['test/accuracy']:.4f}" if "test/accuracy" in final else ""
        told["single runs"] = f"{len(gathered.singles)}; last epoch: train accuracy {final['train/accuracy']:.4f}{test}"
    if gathered.reference:
        rho = spearman(train["cscore"], train["published"])
        soft = spearman(train["cscore_soft"], train["published"])
        told["published C-scores"] = f"Spearman {rho.value:.3f} with ours, {soft.value:.3f} with our soft ones"
    told["machine"] = f"{ensemble.tags['study.device']}, {ensemble.tags['study.precision']} products"
    return told
