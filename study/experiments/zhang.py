"""Regularity over repeated trainings (Zhang et al.).  in: groups of single runs   out: findings by the paper's ids"""

import tomllib
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from study.analysis.by_epoch import trajectory
from study.errors import AnalysisError
from study.experiments.findings import Finding, FinishedRuns, correct_of, numbered, title_of
from study.experiments.select import Group
from study.figures.plane_pictures import pictures_in_plane
from study.figures.regularity_plane import regularity_planes
from study.figures.regularity_repeats import (
    correlation_matrices,
    event_histograms,
    events_by_repeat,
    events_by_right,
    online_scatter,
    regularity_histograms,
)
from study.figures.style import png_bytes
from study.proxies.learning_speed import online_agreement
from study.scores.regularity_plane import representation, sample_density, sample_radius
from study.tracking import Run

ONLINE = {"cbtl": "cbtl_online", "forgetting_events": "forgetting_events_online"}
SHOWN = 3  # repeats whose histograms are drawn


def densities_of(run: Run, table: pd.DataFrame) -> dict[str, pd.Series]:
    """Sample densities in the plane of right epochs and events (Z-fig2), within the run's radius.

    Args:
        run: a single run.
        table: its scores.

    Returns:
        {split: densities by example}; a split whose examples all lie at one point is left out.
    """
    densities, correct = {}, trajectory(run)["correct"]
    for split in table["split"].unique():
        rows = (table["split"] == split).to_numpy()
        right, events = representation(correct[:, rows])
        if sample_radius(right, events) > 0:
            values = sample_density(right, events, radius=density_radius(run))
            densities[str(split)] = pd.Series(values, index=table.index[rows])
    return densities


def density_radius(run: Run) -> float | None:
    """The radius of the circles in which a run's recipe counts examples; None: the paper's."""
    written = run.read("recipe.toml").read_text(encoding="utf-8") if "recipe.toml" in run.files else ""
    return tomllib.loads(written).get("single", {}).get("density_radius")


def pearson_matrix(vectors: list[np.ndarray]) -> np.ndarray:
    """(r, r) Pearson coefficients of r vectors (n,); NaN where one does not vary."""
    stacked = np.stack(vectors)
    varied = np.ptp(stacked, axis=1) > 0
    matrix = np.full((len(vectors), len(vectors)), np.nan)
    if varied.any():
        matrix[np.ix_(varied, varied)] = np.atleast_2d(np.corrcoef(stacked[varied]))
    return matrix


def density_correlations(runs: FinishedRuns) -> Iterator[Finding]:
    """Pearson correlations between the density vectors of the repeats of each training (Z-fig6)."""
    for name, group in numbered("Z-fig6", runs.of_kind("single", repeats=2)):
        of_runs = [densities_of(run, run.read_table("scores.parquet")) for run in group.runs]
        matrices = {
            split: pearson_matrix([densities[split].to_numpy() for densities in of_runs])
            for split in ("train", "test")
            if all(split in densities for densities in of_runs)
        }
        pairs = np.triu_indices(len(group.runs), 1)
        numbers = {f"{name}/density_pearson_{split}": float(matrix[pairs].mean()) for split, matrix in matrices.items()}
        table = pd.concat([pd.DataFrame(matrix).assign(split=split) for split, matrix in matrices.items()])
        yield Finding(
            name,
            title_of(f"Density vectors of {len(group.runs)} repeats correlated", group),
            "The mean of the pairs off the diagonal; the paper has .8634 for training and .8733 for test examples "
            "(ten ResNet-110 on CIFAR-10).",
            png_bytes(correlation_matrices(matrices)),
            table,
            numbers,
        )


def mean_planes(group: Group) -> dict[str, pd.DataFrame]:
    """Right epochs and events of every example, means over the repeats, and the density of these means (Z-fig2).

    Returns:
        {"train" | "test": example | row (of the data set) | label | right | events | density | radius}; a split whose
        examples all lie at one point is left out.  The radius is the recipe's, else the paper's for the means.
    """
    table, planes = group.runs[0].read_table("scores.parquet"), {}
    of_runs = [correct_of(run)[1] for run in group.runs]
    for split in of_runs[0]:
        points = [representation(correct[split]) for correct in of_runs]
        right, events = np.mean([point[0] for point in points], axis=0), np.mean([point[1] for point in points], axis=0)
        within = density_radius(group.runs[0]) or sample_radius(right, events)
        if within > 0:
            rows = np.flatnonzero(table["split"] == split)
            columns = {"example": table["example"].to_numpy()[rows], "row": rows}
            columns |= {"label": table["label"].to_numpy()[rows], "right": right, "events": events}
            density = sample_density(right, events, radius=within)
            planes[split] = pd.DataFrame({**columns, "density": density, "radius": within})
    return planes


def regularity_in_two_dimensions(runs: FinishedRuns) -> Iterator[Finding]:
    """The plane of the means over the repeats, and pictures of examples where they lie in it (Z-fig2)."""
    for name, group in numbered("Z-fig2", runs.of_kind("single")):
        planes, dataset = mean_planes(group), runs.dataset(group)
        figure = pictures_in_plane(dataset.images, planes, dataset.classes, maximum=dataset.maximum)
        table = pd.concat([plane.assign(split=split).drop(columns="row") for split, plane in planes.items()])
        yield Finding(
            name,
            title_of(f"Regularity in two dimensions, means over {len(group.runs)} repeats", group),
            "Regular examples are at the lower right; those in the middle become wrong again most often.",
            png_bytes(regularity_planes(planes)),
            table,
        )
        yield Finding(f"{name}-pictures", title_of("Examples in the plane", group), png=png_bytes(figure))


def regularity_in_one_dimension(runs: FinishedRuns) -> Iterator[Finding]:
    """Histograms of the four statistics, and events against right epochs, means over repeats (Z-fig3, Z-fig4)."""
    for name, group in numbered("Z-fig3", runs.of_kind("single")):
        planes = mean_planes(group)
        spread = [
            events_by_right(plane["right"].to_numpy(), plane["events"].to_numpy()).assign(split=split)
            for split, plane in planes.items()
        ]
        yield Finding(
            name,
            title_of(f"Right epochs and events, means over {len(group.runs)} repeats", group),
            "The distributions have long tails; examples right equally often differ in how often they are forgotten.",
            png_bytes(regularity_histograms(planes)),
            pd.concat(spread),
        )


def event_epochs(group: Group, examples: int = 2) -> pd.DataFrame:
    """When some examples become wrong again, in each repeat (Z-fig5).

    Args:
        group: single runs.
        examples: of each split: the median and the 95th percentile of those with events, by their mean number, and so
            on in equal steps between; the paper chose by eye.

    Returns:
        example | split | repeat | epoch (list) | events | right, a row per example and repeat.
    """
    of_runs = [correct_of(run) for run in group.runs]
    table, rows = group.runs[0].read_table("scores.parquet"), []
    for split in of_runs[0][1]:
        names = table.loc[table["split"] == split, "example"].to_numpy()
        events = np.mean([representation(correct[split])[1] for _, correct in of_runs], axis=0)
        order = np.argsort(events, kind="stable")[(events == 0).sum() :]
        places = (np.linspace(0.5, 0.95, examples) * len(order)).astype(int)
        for number in dict.fromkeys(order[places].tolist() if len(order) else []):
            for repeat, (epochs, correct) in enumerate(of_runs):
                states = correct[split][:, number]
                when = epochs[1:][states[:-1] & ~states[1:]].tolist()
                rows.append((names[number], split, repeat, when, len(when), int(states.sum())))
    return pd.DataFrame(rows, columns=["example", "split", "repeat", "epoch", "events", "right"])


def repeated_events(runs: FinishedRuns) -> Iterator[Finding]:
    """Epochs of the events of a few examples over the repeats (Z-fig5)."""
    for name, group in numbered("Z-fig5", runs.of_kind("single", repeats=2)):
        table, n_epochs = event_epochs(group), int(trajectory(group.runs[0])["epochs"][-1])
        yield Finding(
            name,
            title_of("When examples become wrong again, repeat by repeat", group),
            "Epochs and numbers of events differ between repeats of one training: count them over several.",
            png_bytes(events_by_repeat(table, n_epochs)),
            table,
        )


def event_shares(correct: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{split: (k,) shares of the examples with 0, 1, ..., k - 1 events}, k the same for both splits (Z-fig7)."""
    events = {split: representation(of_split)[1] for split, of_split in correct.items()}
    longest = max(int(counts.max()) for counts in events.values()) + 1
    return {split: np.bincount(counts, minlength=longest) / len(counts) for split, counts in events.items()}


def histogram_pearson(correct: Mapping[str, np.ndarray]) -> float:
    """Pearson between the histograms of forgetting and of mal-generalizing events of one run; NaN where one is flat."""
    shares = event_shares(correct)
    return float(pearson_matrix([shares["train"], shares["test"]])[0, 1])


def memorization_and_generalization(runs: FinishedRuns) -> Iterator[Finding]:
    """Histograms of forgetting and of mal-generalizing events compared, repeat by repeat (Z-fig7)."""
    for name, group in numbered("Z-fig7", runs.of_kind("single")):
        correct = [correct_of(run)[1] for run in group.runs]
        if any(len(of_splits) < 2 for of_splits in correct):
            raise AnalysisError("needs test examples, whose mal-generalizing events are compared")
        pearson, shares = [histogram_pearson(of_splits) for of_splits in correct], list(map(event_shares, correct))
        table = pd.DataFrame({"repeat": range(len(pearson)), "pearson": pearson})
        yield Finding(
            name,
            title_of("Forgetting and mal-generalizing events compared", group),
            "Pearson between the two histograms; the paper has .9985 and .9984 (two ResNet-110 on CIFAR-10).",
            png_bytes(event_histograms(shares[:SHOWN], pearson[:SHOWN])),
            table,
            {f"{name}/histogram_pearson": float(np.mean(pearson))},
        )


def online_agreement_of(run: Run) -> dict[str, tuple[float, float]]:
    """Pearson and mean absolute error between counts at epoch ends and online ones, by statistic (Z-online).

    As in Zhang's Eq. 1 an example that was never right has no forgetting events; the proxy ranks it hardest instead.

    Raises:
        AnalysisError: a run without these proxies.
    """
    return {statistic: online_agreement(*counts) for statistic, counts in _both_counts(run).items()}


def _both_counts(run: Run) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{statistic: (n,) at epoch ends, (n,) online} of the training examples."""
    table = run.read_table("scores.parquet").query("split == 'train'")
    if not set(ONLINE.values()) | set(ONLINE) <= set(table):
        raise AnalysisError(f"needs the proxies {', '.join((*ONLINE, *ONLINE.values()))} under [proxies]")
    most = len(trajectory(run)["epochs"]) // 2  # events that there can be; the proxy gives the never right more
    counts = {name: (table[name].to_numpy(dtype=float), table[ONLINE[name]].to_numpy(dtype=float)) for name in ONLINE}
    ends, online = (np.where(each > most, 0, each) for each in counts["forgetting_events"])
    return counts | {"forgetting_events": (ends, online)}


def online_counts(runs: FinishedRuns) -> Iterator[Finding]:
    """CBTL and forgetting events counted at epoch ends and online, as in Toneva et al. (Z-online)."""
    for name, group in numbered("Z-online", runs.of_kind("single")):
        rows = [
            (statistic, repeat, *values)
            for repeat, run in enumerate(group.runs)
            for statistic, values in online_agreement_of(run).items()
        ]
        table = pd.DataFrame(rows, columns=["statistic", "repeat", "pearson", "mean_absolute_error"])
        means = {name: np.mean([row[2:] for row in rows if row[0] == name], axis=0).tolist() for name in ONLINE}
        yield Finding(
            name,
            title_of("Counted at epoch ends, or online", group),
            "The paper has Pearson .9896 and mean absolute error 1.2614 for CBTL, .9835 and .6762 for forgetting "
            "events, over 200 epochs.  The figure shows the first repeat.",
            png_bytes(online_scatter(_both_counts(group.runs[0]), {key: mean[0] for key, mean in means.items()})),
            table,
            {f"{name}/{key}_pearson": mean[0] for key, mean in means.items()}
            | {f"{name}/{key}_mean_absolute_error": mean[1] for key, mean in means.items()},
        )
