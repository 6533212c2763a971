"""Prediction depth in single runs (Baldock et al.).  in: groups of single runs   out: figures, tables"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from study.errors import AnalysisError
from study.experiments.baldock import data_and_network, depths_of, name_of
from study.experiments.findings import Finding, FinishedRuns, recipe_of
from study.experiments.paper_numbers import beside_paper, conditions_of, paper_numbers
from study.experiments.select import Group
from study.figures.depth_single import (
    depths_of_data_sets,
    learned_by_depth,
    margins_by_depth,
    probe_accuracies,
    titled_images,
    training_and_inference,
)
from study.figures.style import png_bytes
from study.proxies.depth import inference_curves
from study.proxies.learning_speed import iteration_learned
from study.signals.knn_probes import NEIGHBORS
from study.tracking import Run

SHOWN = 6  # images of each end
MARGINS = {  # split -> columns of scores.parquet, and what to call them
    "train": {"output_margin": "output margin", "adversarial_margin": "input margin"},
    "test": {"output_margin_test": "output margin", "adversarial_margin_test": "input margin"},
}
UNTRAINED = "untrained"


def depths_and_images(runs: FinishedRuns) -> Iterator[Finding]:
    """Distribution of depths of several data sets or networks, images of the first and last depth (B-fig1)."""
    shares, images = {}, {}
    for group in _probed(runs):
        dataset = runs.dataset(group)
        depths = np.stack([depths_of(run, dataset.rows("train"))[0] for run in group.runs])
        counts = np.bincount(depths[depths >= 0])
        shares[name_of(group)] = pd.DataFrame({"depth": np.arange(len(counts)), "share": counts / counts.sum()})
        mean = np.where((depths >= 0).all(axis=0), depths.mean(axis=0), np.nan)
        order = np.argsort(mean, kind="stable")[: int(np.isfinite(mean).sum())]
        ends = {"lowest mean depth": order[:SHOWN], "highest mean depth": order[::-1][:SHOWN]}
        images[name_of(group)] = {
            where: titled_images(dataset.images[rows], dataset.labels[rows], dataset.classes, dataset.maximum)
            for where, rows in ends.items()
        }
    means = {name: float(np.dot(table["depth"], table["share"])) for name, table in shares.items()}
    order = sorted(shares, key=lambda name: means[name])
    figure = depths_of_data_sets({name: shares[name] for name in order}, {name: images[name] for name in order})
    table = pd.concat([shares[name].assign(group=name) for name in order])
    note = "Training examples; means over the runs. The names are in rising order of the mean depth."
    yield Finding("B-fig1", "Distribution of prediction depths (B-fig1)", note, png_bytes(figure), table)


def learned_and_depth(runs: FinishedRuns) -> Iterator[Finding]:
    """Iteration learned against depth; training and inference learning curves (B-learned, B-fig5)."""
    groups = [group for group in _probed(runs) if all(_has_predictions(run) for run in group.runs)]
    if not groups:
        raise AnalysisError("needs single runs that keep predictions by epoch; name the proxy iteration_learned")
    tables = {name_of(group): learned_table(group) for group in groups}
    note = (
        "Each run's own depths and iterations, the mean over all pairs of run and example at a depth. By epochs, or by "
        "the steps of single.evaluate_steps."
    )
    table = pd.concat([part.assign(group=name) for name, part in tables.items()])
    title = "Iteration learned against prediction depth (B-fig5 left)"
    yield Finding("B-fig5", title, note, png_bytes(learned_by_depth(tables)), table)
    curves = {name_of(group): (learning_curve(group), probe_curve(group)) for group in groups}
    note = (
        "Mean and range over the runs. Original labels: of the mislabeled examples, before their labels were changed."
    )
    table = pd.concat(
        [
            part.assign(group=name, curve=curve)
            for name, pair in curves.items()
            for curve, part in zip(("training", "inference"), pair, strict=True)
        ]
    )
    title = "Training and inference learning curves (B-fig5 middle, right)"
    yield Finding("B-fig5-curves", title, note, png_bytes(training_and_inference(curves)), table)


def depth_and_margins(runs: FinishedRuns) -> Iterator[Finding]:
    """Mean output and input margins against mean depth, training and test split (B-margin, B-fig6, C.28 to 31)."""
    clouds = {}
    for group in _probed(runs):
        for split, margins in MARGINS.items():
            for column, label in margins.items():
                cloud = margin_cloud(group, split, column)
                if cloud is not None:
                    clouds[name_of(group), split, label] = cloud
    if not clouds:
        raise AnalysisError("needs single runs with output_margin or adversarial_margin; name these proxies")
    rows = [(*key, pearson, len(depth)) for key, (depth, _, pearson) in clouds.items()]
    table = pd.DataFrame(rows, columns=["group", "split", "margin", "pearson", "examples"])
    numbers = {}
    if len({row[0] for row in rows}) == 1:
        numbers = {f"B-fig6/{split}/{label.replace(' ', '_')}": value for _, split, label, value, _ in rows}
    note = "Pearson of mean depths with logarithms of mean margins; the paper's of VGG16 on CIFAR-10: -.70 and -.69."
    title = "Margins against prediction depth (B-fig6)"
    yield Finding("B-fig6", title, note, png_bytes(margins_by_depth(clouds)), table, numbers)


def margin_intervention(runs: FinishedRuns) -> Iterator[Finding]:
    """Losses and optimizers that ask for no margin leave the clustering to the last layers (B-hinge, A.7, A.12)."""
    groups = [group for group in _probed(runs) if len({training_name(group.runs[0].params)} - {UNTRAINED})]
    names = {training_name(group.runs[0].params): group for group in _probed(runs)}
    accuracies, margins = _of_trainings("test_accuracy"), _of_trainings("mean_output_margin")
    rows = []
    for name, group in names.items():
        row = {"training": name, "runs": len(group.runs), "test/accuracy": _metric(group, "test/accuracy")}
        for split, column in (("train", "output_margin"), ("test", "output_margin_test")):
            row[f"output margin, {split}"] = _mean_of_column(group, column)
        paper = {"paper: accuracy": accuracies.get(name), "paper: output margin": margins.get(name)}
        rows.append(row | {column: np.nan if value is None else value for column, value in paper.items()})
    curves = {training_name(group.runs[0].params): probe_curve(group) for group in groups}
    control = (UNTRAINED, probe_curve(names[UNTRAINED])) if UNTRAINED in names else None
    figure = probe_accuracies(curves, "k-NN probes after each layer, by loss and optimizer", control=control)
    note = "Mean and range over the runs. The paper: VGG16 on 4,096 horses and deer of CIFAR-10 (Tables 3 and 4)."
    title = "The margin intervention (B-hinge, A.12)"
    yield Finding("B-hinge", title, note, png_bytes(figure), pd.DataFrame(rows))


def neighbours_of_probes(runs: FinishedRuns) -> Iterator[Finding]:
    """Accuracy of the probes for several numbers of neighbours, and of logistic regressions (B-k, A.10, E.48).

    Runs of one training that were scored with another `signals.probes.k` count as well: `study score` makes them of the
    networks that a run has kept, without training.
    """
    drawn = False
    trainings = {(group.runs[0].tags["study.digest"], group.data): group for group in reversed(_probed(runs))}
    for group in reversed(trainings.values()):  # one of the groups that differ in k alone
        by_k: dict[int, dict[str, Run]] = {}
        for run in group.runs:
            tags = {name: run.tags[name] for name in ("study.digest", "study.data", "study.repeat")}
            for other in reversed(runs.store.find("single", tags=tags, status="FINISHED")):
                if "probes.npz" in other.files:
                    k = int(recipe_of(other).signals.get("probes", {}).get("k", NEIGHBORS))
                    by_k.setdefault(k, {})[run.tags["study.repeat"]] = other
        curves = {f"k = {k}": curve_of([*by_k[k].values()]) for k in sorted(by_k)}
        if all("linear_probes.npz" in run.files for run in group.runs):
            curves["logistic regression"] = curve_of(group.runs, "linear_probe_class")
        if len(curves) < 2:
            continue
        drawn = True
        figure = probe_accuracies(curves, f"k-NN probes with other numbers of neighbours: {data_and_network(group)}")
        table = pd.concat([part.assign(probe=name) for name, part in curves.items()])
        yield Finding(f"B-k-{group.data[:6]}", "Probes by number of neighbours (B-k)", "", png_bytes(figure), table)
    if not drawn:
        raise AnalysisError(
            "needs one training scored with several k; run it with single.keep=final, then `study score` with "
            "--set signals.probes.k=3, or name the proxy prediction_depth_linear"
        )


def final_accuracies(runs: FinishedRuns) -> Iterator[Finding]:
    """Test accuracies of data sets and networks beside the paper's (B-tab2)."""
    table = beside_paper(runs.of_kind("single"), "B-tab2", "test_accuracy", lambda run: run.metrics["test/accuracy"])
    yield Finding("B-tab2", "Final accuracies (B-tab2)", "Mean and SD over the runs.", table=table)


def learned_table(group: Group) -> pd.DataFrame:
    """split | depth | share of the split's pairs | learned: mean iteration learned at that depth (B-fig5 left)."""
    parts = []
    for run in group.runs:
        predicted = run.read_some_arrays("trajectory.npz", "predicted")[0]["predicted"]
        train = _rows_of(run)["split"].to_numpy() == "train"
        for split, rows in (("train", train), ("test", ~train)):
            if rows.any():
                parts.append((split, depths_of(run, rows)[0], iteration_learned(predicted[:, rows])))
    columns = {name: [] for name in ("split", "depth", "share", "learned")}
    for split in dict.fromkeys(split for split, _, _ in parts):
        depth = np.concatenate([each for name, each, _ in parts if name == split])
        learned = np.concatenate([each for name, _, each in parts if name == split])
        defined = depth >= 0
        pairs, sums = np.bincount(depth[defined]), np.bincount(depth[defined], learned[defined])
        at = np.flatnonzero(pairs)
        columns["split"] += [split] * len(at)
        columns["depth"] += at.tolist()
        columns["share"] += (pairs[at] / pairs.sum()).tolist()
        columns["learned"] += (sums[at] / pairs[at]).tolist()
    return pd.DataFrame(columns)


def learning_curve(group: Group) -> pd.DataFrame:
    """Accuracy by epoch, from the untrained network on, see `curve_of` (B-fig5 middle).

    By parts of epochs where the runs have recorded predictions between steps.
    """
    first = group.runs[0]
    epochs, names = first.read_some_arrays("trajectory.npz", "epochs")
    at = np.r_[0, epochs["epochs"]]
    if "predicted_steps" in names:
        steps = first.read_some_arrays("trajectory.npz", "predicted_steps")[0]["predicted_steps"]
        at = steps * at[-1] / steps[-1]
    predicted = [run.read_some_arrays("trajectory.npz", "predicted")[0]["predicted"] for run in group.runs]
    return _over_runs(group.runs, predicted, at)


def probe_curve(group: Group) -> pd.DataFrame:
    """Accuracy of the k-NN probes by layer, see `curve_of` (B-fig5 right)."""
    return curve_of(group.runs)


def curve_of(runs: Sequence[Run], name: str = "probe_class") -> pd.DataFrame:
    """split | at (layer) | mean, low, high over the runs, of the probes' accuracy, k-NN or `linear_probe_class`."""
    file = "probes.npz" if name == "probe_class" else "linear_probes.npz"
    classes = [run.read_some_arrays(file, name)[0][name] for run in runs]
    return _over_runs(runs, classes, np.arange(len(classes[0])))


def margin_cloud(group: Group, split: str, column: str) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Mean depths, mean margins and Pearson of the depths with the logarithms (B-fig6); None without the margin.

    Examples with an undefined depth in a run, or a margin of 0, are left out; NaN where a side is constant.
    """
    depths, margins = [], []
    for run in group.runs:
        table = run.read_table("scores.parquet")
        if column not in table:
            return None
        rows = table["split"].to_numpy() == split
        if not rows.any():
            return None
        depth = depths_of(run, rows)[0]
        depths.append(np.where(depth >= 0, depth, np.nan))
        margins.append(table.loc[rows, column].to_numpy(dtype=float))
    depth, margin = np.mean(depths, axis=0), np.mean(margins, axis=0)
    both = np.isfinite(depth) & (margin > 0)
    depth, margin = depth[both], margin[both]
    constant = len(depth) < 3 or np.ptp(depth) == 0 or np.ptp(margin) == 0
    return depth, margin, np.nan if constant else float(np.corrcoef(depth, np.log(margin))[0, 1])


def training_name(params: Mapping[str, str]) -> str:
    """`CE, SGD` to `0-Hinge, GD`, as Table 4 calls them; a training of one step is the untrained control.

    Args:
        params: of a run, or of a condition: `train.loss`, `train.batch_size`, `train.steps`.
    """
    if params.get("train.steps") == "1":
        return UNTRAINED
    loss = {"cross_entropy": "CE", "zero_hinge": "0-Hinge"}[params["train.loss"]]
    return f"{loss}, {'GD' if params['train.batch_size'] == '0' else 'SGD'}"


def _of_trainings(statistic: str) -> dict[str, float]:
    """The paper's value of each training of the margin intervention."""
    numbers = paper_numbers().query("id == 'B-hinge' and statistic == @statistic")
    names = [training_name(conditions_of(text)) for text in numbers["condition"]]
    return dict(zip(names, numbers["paper"], strict=True))


def _probed(runs: FinishedRuns) -> list[Group]:
    groups = [group for group in runs.of_kind("single") if all("probes.npz" in run.files for run in group.runs)]
    if not groups:
        raise AnalysisError("needs single runs with k-NN probes; name the proxy prediction_depth")
    return groups


def _has_predictions(run: Run) -> bool:
    return "predicted" in run.read_some_arrays("trajectory.npz", "epochs")[1]


def _rows_of(run: Run) -> pd.DataFrame:
    return run.read_table("scores.parquet")


def _over_runs(runs: Sequence[Run], classes: Sequence[np.ndarray], at: np.ndarray) -> pd.DataFrame:
    """Accuracy of (t, n) classes of each run by the paper's splits, over the runs."""
    curves: dict[str, list[np.ndarray]] = {}
    for run, predicted in zip(runs, classes, strict=True):
        for split, values in _accuracies(run, predicted).items():
            curves.setdefault(split, []).append(values)
    parts = []
    for split, values in curves.items():
        mean, low, high = np.mean(values, axis=0), np.min(values, axis=0), np.max(values, axis=0)
        parts.append(pd.DataFrame({"split": split, "at": at, "mean": mean, "low": low, "high": high}))
    return pd.concat(parts, ignore_index=True)


def _accuracies(run: Run, predicted: np.ndarray) -> Mapping[str, np.ndarray]:
    table = _rows_of(run)
    original = table["clean_label"].to_numpy() if "clean_label" in table else None
    return inference_curves(
        predicted, table["label"].to_numpy(), table["split"].to_numpy() == "train", original=original
    )


def _metric(group: Group, name: str) -> float:
    return float(np.mean([run.metrics.get(name, np.nan) for run in group.runs]))


def _mean_of_column(group: Group, column: str) -> float:
    tables = [_rows_of(run) for run in group.runs]
    return float(np.mean([float(np.nanmean(table[column])) if column in table else np.nan for table in tables]))
