"""Memorization against noise and regularizers (Arpit et al.).  in: groups of single runs   out: findings"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from study.analysis.single_run import mean_class_sensitivity, sensitivity_series
from study.errors import AnalysisError
from study.experiments.arpit import FittingCurves, fitting_curves, noise_name
from study.experiments.findings import Finding, FinishedRuns
from study.experiments.select import Group
from study.figures.memorization import class_sensitivities, series_by_noise, trade_off_curves
from study.figures.style import png_bytes

GINI = "sensitivity/gini"
CRITICAL = ("sensitivity/critical_ratio_train", "sensitivity/critical_ratio_test")
REGULARIZERS = {  # parameters of a run: what to call them; 0 or absent where there is none
    "model.settings.dropout": "dropout",
    "train.input_dropout": "input dropout",
    "train.adversarial": "adversarial training",
    "train.input_noise": "input noise",
    "optimizer.weight_decay": "weight decay",
}


def noise_names(groups: Sequence[Group]) -> list[str]:
    """What to call groups by their noise: "real", "labels symmetric 0.2", "inputs gaussian"; else by their labels.

    Labels of the groups are taken where noise does not tell them apart.
    """
    names = [noise_name(group.runs[0].params) for group in groups]
    return names if len(set(names)) == len(names) else [group.label for group in groups]


def series_table(groups: Sequence[Group], names: Sequence[str]) -> pd.DataFrame:
    """Metrics by epoch of each group, means over the repeats.

    Args:
        groups: single runs.
        names: of metrics.

    Returns:
        group | metric | epoch | value; without rows where no run has them.
    """
    rows = []
    for group, label in zip(groups, noise_names(groups), strict=True):
        of_runs = [sensitivity_series(run) for run in group.runs]
        for name in names:
            if all(name in series for series in of_runs):
                mean = pd.concat([series[name] for series in of_runs], axis=1).mean(axis=1, skipna=False)
                points = zip(mean.index.tolist(), mean.tolist(), strict=True)
                rows += [(label, name, epoch, value) for epoch, value in points]
    return pd.DataFrame(rows, columns=["group", "metric", "epoch", "value"])


def sensitivity_under_noise(runs: FinishedRuns) -> Iterator[Finding]:
    """Gini coefficient of the loss sensitivity through training, real data against random ones (A-sensitivity)."""
    table = series_table(runs.of_kind("single"), [GINI])
    if table.empty:
        raise AnalysisError("needs the proxy loss_sensitivity under [proxies]")
    yield Finding(
        "A-sensitivity",
        "How unequal is the loss sensitivity of the examples, through training?",
        "Near 1 few examples matter much to the loss, near 0 all matter alike.  Arpit et al. find a higher Gini "
        "coefficient on real data than on random ones.",
        png_bytes(series_by_noise(table, {GINI: "Gini coefficient of the loss sensitivity"})),
        table,
        {f"A-sensitivity/gini_{_short(group)}": value for group, value in _last(table, GINI).items()},
    )


def critical_samples_under_noise(runs: FinishedRuns) -> Iterator[Finding]:
    """Critical sample ratio through training, a line per share of noise (A-csr)."""
    table = series_table(runs.of_kind("single"), CRITICAL)
    if table.empty:
        raise AnalysisError("needs the proxy critical_sample_steps under [proxies]")
    titles = {name: f"critical sample ratio, {name.rpartition('_')[2]} examples" for name in CRITICAL}
    yield Finding(
        "A-csr",
        "How many examples lie near another class, through training, by the noise of the labels",
        "Arpit et al. find higher ratios the more labels are random, and ratios that rise until they settle.",
        png_bytes(series_by_noise(table, titles)),
        table,
        {
            f"A-csr/{name.rpartition('_')[2]}_{_short(group)}": value
            for name in CRITICAL
            for group, value in _last(table, name).items()
        },
    )


def class_sensitivity_under_noise(runs: FinishedRuns) -> Iterator[Finding]:
    """Loss sensitivity from class to class, a matrix per group, such as real and random labels (A-class)."""
    groups, matrices = runs.of_kind("single"), {}
    for group, label in zip(groups, noise_names(groups), strict=True):
        of_runs = [mean_class_sensitivity(run) for run in group.runs]
        if all(matrix is not None for matrix in of_runs):
            matrices[label] = np.mean([matrix for matrix in of_runs if matrix is not None], axis=0)
    if not matrices:
        raise AnalysisError("needs the proxy loss_sensitivity under [proxies]")
    shares = {label: off_diagonal_share(matrix) for label, matrix in matrices.items()}
    yield Finding(
        "A-class",
        "Loss sensitivity from class to class",
        "Colours are relative to the mean on the diagonal.  off_diagonal: mean value off the diagonal over the mean on "
        "it.  Arpit et al. find it large on real data, where classes share features, and small on random ones.",
        png_bytes(class_sensitivities(matrices, shares)),
        pd.DataFrame({"group": list(shares), "off_diagonal": list(shares.values())}),
        {f"A-class/off_diagonal_{_short(label)}": share for label, share in shares.items()},
    )


def off_diagonal_share(matrix: np.ndarray) -> float:
    """Mean off the diagonal over the mean on it, of a (c, c) matrix; NaN where a class has no examples is left out.

    >>> off_diagonal_share(np.array([[4.0, 1.0], [3.0, 4.0]]))
    0.5
    """
    inside = np.eye(len(matrix), dtype=bool)
    return float(np.nanmean(matrix[~inside]) / np.nanmean(matrix[inside]))


def regularizer_of(group: Group) -> tuple[str, float] | None:
    """(name, strength) of the one regularizer of a group; ("none", 0) without, None where it has several."""
    params = group.runs[0].params
    used = [(name, float(params[key])) for key, name in REGULARIZERS.items() if _strength(params.get(key, "")) > 0]
    return ("none", 0.0) if not used else used[0] if len(used) == 1 else None


def _strength(value: str) -> float:
    return float(value) if value not in ("", "none") else 0.0


def regularizer_table(groups: Sequence[Group], curves: Sequence[FittingCurves]) -> pd.DataFrame:
    """What each regularizer costs and saves at each strength (A-reg); means over the repeats, at the end of training.

    Args:
        groups: single runs on noisy labels.
        curves: `fitting_curves` of each.

    Returns:
        regularizer ("none" first) | strength | changed, unchanged: accuracy on training examples by whether noise has
        changed their label | test/accuracy | runs.  Groups with several regularizers at a time are left out.
    """
    rows = []
    for group, curve in zip(groups, curves, strict=True):
        regularizer = regularizer_of(group)
        if regularizer is not None:
            ends = curve.changed[-1], curve.unchanged[-1], curve.test[-1]
            rows.append((*regularizer, *ends, len(group.runs)))
    columns = ["regularizer", "strength", "changed", "unchanged", "test/accuracy", "runs"]
    table = pd.DataFrame(rows, columns=columns)
    order = {name: place for place, name in enumerate(["none", *REGULARIZERS.values()])}
    return table.sort_values(["regularizer", "strength"], key=lambda column: column.replace(order)).reset_index(
        drop=True
    )


def memorized_at_equal_accuracy(table: pd.DataFrame) -> dict[str, float]:
    """The least accuracy on changed labels of each regularizer, over strengths that cost no test accuracy.

    Args:
        table: of `regularizer_table`.

    A regularizer that costs test accuracy at each strength is left out, and so is everything without a run of none.
    """
    rows, least = table.to_dict("records"), {}
    none = [row["test/accuracy"] for row in rows if row["regularizer"] == "none"]
    for row in rows if none else []:
        name, changed = row["regularizer"], row["changed"]
        if name != "none" and row["test/accuracy"] >= none[0]:
            least[name] = min(changed, least.get(name, changed))
    return least


def memorization_under_regularizers(runs: FinishedRuns) -> Iterator[Finding]:
    """Accuracy on changed training labels against clean test accuracy, a curve per regularizer (A-reg)."""
    groups = runs.of_kind("single")
    table = regularizer_table(groups, [fitting_curves(group) for group in groups])
    table = table.dropna(subset=["changed", "test/accuracy"]).reset_index(drop=True)
    if len(set(table["regularizer"])) < 2:
        raise AnalysisError("needs runs with changed labels, test examples and different regularizers")
    least = memorized_at_equal_accuracy(table)
    yield Finding(
        "A-reg",
        "Which regularizer keeps a network from memorizing changed labels, at what cost?",
        "Left is less memorized, up is better on clean test examples.  Arpit et al. find dropout to be the strongest.",
        png_bytes(trade_off_curves(table)),
        table,
        {f"A-reg/memorized_{name.replace(' ', '_')}": value for name, value in least.items()},
    )


def _last(table: pd.DataFrame, metric: str) -> dict[str, float]:
    """{group: value of a metric at its last epoch}."""
    return {row["group"]: row["value"] for row in table.to_dict("records") if row["metric"] == metric}


def _short(label: str) -> str:
    """A label as the end of a metric's name: letters, digits and what MLflow admits beside them."""
    kept = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in label)
    return "_".join(part for part in kept.split("_") if part)[:60] or "all"
