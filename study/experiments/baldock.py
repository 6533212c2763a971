"""Prediction depth over ensembles (Baldock et al.).  in: groups of finished runs   out: figures, tables"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from study.data import Dataset
from study.errors import AnalysisError
from study.experiments.arpit import noise_name
from study.experiments.findings import Finding, FinishedRuns, recipe_of
from study.experiments.paper_numbers import data_of
from study.experiments.select import Group, short_value
from study.figures.depth_members import bounds_by_depth, by_depth_of_one, consistency_by_depth
from study.figures.depth_members import depth_agreement as draw_agreement
from study.figures.style import png_bytes
from study.proxies.depth import prediction_depth, undefined
from study.runs.shards import depths_and_predictions
from study.scores.depth_statistics import (
    LinearBound,
    MemberPredictions,
    consensus_table,
    depth_of_one_network,
    linear_bound,
    member_predictions,
)
from study.scores.rank_statistics import spearman
from study.signals.activations import layer_names
from study.tracking import Run

DATA_AND_NETWORK = ("data.name", "model.name", "model.settings.widths")
AGREEMENT = ("data", "split", "a", "b", "spearman", "n")
BEYOND = 0.01  # share of the examples beyond a linear bound


def cscore_by_validation_depth(runs: FinishedRuns) -> Iterator[Finding]:
    """C-score against mean validation depth, split by whether the consensus is the label (B-fig3, C.17, C.18)."""
    tables = _consensus_tables(runs)
    bounds = {name: linear_bound(*_columns(table, "consistency"), share=BEYOND) for name, table in tables.items()}
    note = (
        "Left all examples, middle those whose consensus class is the label, right the others. Dashed: the line below "
        f"which {BEYOND:.0%} of the examples have their consensus-consistency, and its mirror image at one half."
    )
    title = "C-score against mean prediction depth in the validation split (B-fig3)"
    yield Finding("B-fig3", title, note, png_bytes(consistency_by_depth(tables, bounds)), bound_table(tables, bounds))


def consistency_by_validation_depth(runs: FinishedRuns) -> Iterator[Finding]:
    """Consensus-consistency against depth: its lower bound, and what the depth in one network says (B-fig4)."""
    yield from _bounded(runs, "consistency", "consensus-consistency", "B-fig4", upper=False)
    others = _others_by_depth(runs)
    accuracies = {name: folded.by_depth_table() for name, (folded, _) in members_of(runs).items()}
    figure = by_depth_of_one(others, accuracies, "consistency", "consensus-consistency of the others")
    note = (
        "Left: single runs on all training examples, test examples; the depth in one run, the consistency of the "
        "others, averaged over the choices of the one. Right: all members, examples in their validation splits."
    )
    table = pd.concat(
        [
            *(part.assign(group=name, what="others") for name, part in others.items()),
            *(part.assign(group=name, what="accuracy") for name, part in accuracies.items()),
        ]
    )
    title = "What the depth in one network says (B-fig4, C.19, C.20)"
    yield Finding("B-fig4-one", title, note, png_bytes(figure), table)


def entropy_by_validation_depth(runs: FinishedRuns) -> Iterator[Finding]:
    """Entropy of the ensemble's predictions against depth, with its linear upper bound (B-entropy, C.21, C.22)."""
    yield from _bounded(runs, "entropy", "prediction entropy (nats)", "B-entropy", upper=True)
    others = _others_by_depth(runs)
    if others:
        figure = by_depth_of_one(others, {}, "entropy", "prediction entropy of the others (nats)")
        table = pd.concat([part.assign(group=name) for name, part in others.items()])
        yield Finding("B-entropy-one", "Entropy against the depth in one network (C.21)", "", png_bytes(figure), table)


def depth_agreement(runs: FinishedRuns) -> Iterator[Finding]:
    """Correlation of mean depths between architectures and seeds, training and validation split (B-fig2, C.13-16)."""
    halves = [(group, _half_depths(group, runs.dataset(group), runs)) for group in with_depths(runs)]
    table = agreement_of_halves(halves)
    matrices = {}
    entries = [tuple(row) for row in zip(*(table[name].to_list() for name in AGREEMENT), strict=True)]
    for key in dict.fromkeys(entry[:2] for entry in entries):
        of_key = [entry for entry in entries if entry[:2] == key]
        names = list(dict.fromkeys(entry[2] for entry in of_key))
        values = np.array([entry[4] for entry in of_key]).reshape(len(names), len(names))
        matrices[key] = pd.DataFrame(values, index=pd.Index(names), columns=pd.Index(names))
    note = (
        "Spearman's coefficient of the mean depths of the same examples. On the diagonal, of two halves of an "
        "ensemble; off it, the mean over a half of one and a half of the other, so that all have as many networks. "
        "Below: mean depths of all networks, rescaled to [0, 1]."
    )
    figure = draw_agreement(matrices, _clouds(halves))
    title = "Consistency of the prediction depth between architectures and seeds (B-fig2)"
    yield Finding("B-fig2", title, note, png_bytes(figure), table)


def agreement_of_halves(halves: Sequence[tuple[Group, dict[str, np.ndarray]]]) -> pd.DataFrame:
    """Spearman correlations of mean depths between and within architectures.

    Args:
        halves: of each group, split -> (2, n) mean depths of two halves of its networks, NaN where undefined.

    Returns:
        data | split | a, b (architectures) | spearman: for a = b of both halves, else the mean over the four pairs of
        a half of a and a half of b | n examples.  Groups on other data are not paired.
    """
    rows = []
    for a, first in halves:
        for b, second in halves:
            if a.data != b.data:
                continue
            for split in first:
                if a is b:
                    pairs = [spearman(*first[split])]
                else:
                    pairs = [spearman(one, two) for one in first[split] for two in second[split]]
                value = float(np.mean([pair.value for pair in pairs]))
                rows.append((_data_name(a), split, _network_name(a), _network_name(b), value, pairs[0].n))
    rows.sort(key=lambda row: row[:2])
    return pd.DataFrame(rows, columns=pd.Index(AGREEMENT))


def bound_table(tables: dict[str, pd.DataFrame], bounds: dict[str, LinearBound]) -> pd.DataFrame:
    """group | examples | consensus is the label, share | intercept, gradient of the bound, per layer."""
    rows = [
        (name, len(table), table["agrees"].mean(), bounds[name].intercept, bounds[name].gradient)
        for name, table in tables.items()
    ]
    return pd.DataFrame(rows, columns=["group", "examples", "consensus is the label", "intercept", "gradient"])


def members_of(runs: FinishedRuns) -> dict[str, tuple[MemberPredictions, Dataset]]:
    """What the members of each group of ensembles say, several ensembles of a group together, by the group's name.

    Raises:
        AnalysisError: no ensemble keeps depths.
    """
    folded = {}
    for group in with_depths(runs):
        dataset = runs.dataset(group)
        shards = itertools.chain.from_iterable(
            depths_and_predictions(runs.store, recipe_of(run), dataset) for run in group.runs
        )
        layers = len(layers_of(group.runs[0], dataset))
        folded[name_of(group)] = member_predictions(shards, dataset.labels, dataset.n_classes, layers), dataset
    return folded


def depths_of(run: Run, rows: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) depths in a single run, -1 where undefined, and its predictions, of some rows."""
    probes = run.read_some_arrays("probes.npz", "probe_class", "final_class")[0]
    classes, final = probes["probe_class"][:, rows], probes["final_class"][rows].astype(np.int64)
    return np.where(undefined(classes, final), -1, prediction_depth(classes, final)).astype(np.int64), final


def layers_of(run: Run, dataset: Dataset) -> tuple[str, ...]:
    """Names of the layers with probes in the network of a run."""
    return layer_names(recipe_of(run).model.spec(), dataset.shape, dataset.n_classes)


def name_of(group: Group) -> str:
    """Data set, network and noise where they differ between groups, else everything that does.

    A single group has the names of its data and network.
    """
    if not group.differing:
        return data_and_network(group)
    values = [short_value(name, group.differing[name]) for name in DATA_AND_NETWORK[1:] if group.differing.get(name)]
    if "data.name" in group.differing:
        values.insert(0, _data_name(group))
    if any(name.startswith("noise.") for name in group.differing):
        values.append(noise_name(group.runs[0].params))
    return ", ".join(values) or group.short


def data_and_network(group: Group) -> str:
    """The names of a group's data and network, whatever else differs: "digits, mlp"."""
    return f"{_data_name(group)}, {_network_name(group)}"


def _network_name(group: Group) -> str:
    params = group.runs[0].params
    names = [name for name in DATA_AND_NETWORK[1:] if name in group.differing and params.get(name)]
    return ", ".join(short_value(name, params[name]) for name in names) or params["model.name"]


def _data_name(group: Group) -> str:
    return data_of(group.runs[0])


def with_depths(runs: FinishedRuns) -> Sequence[Group]:
    """The groups of ensembles whose members keep prediction depths.

    Raises:
        AnalysisError: there are none.
    """
    groups = [group for group in runs.of_kind("ensemble") if recipe_of(group.runs[0]).subset.depth]
    if not groups:
        raise AnalysisError("needs an ensemble whose members keep depths; train with --set subset.depth=true")
    return groups


def _consensus_tables(runs: FinishedRuns) -> dict[str, pd.DataFrame]:
    """Training examples of each group of ensembles: in the paper all examples come from the training data."""
    tables = {}
    for name, (folded, dataset) in members_of(runs).items():
        table = consensus_table(folded, dataset.labels)
        tables[name] = table.iloc[: np.count_nonzero(np.asarray(table["row"]) < dataset.n_train)]
    return tables


def _columns(table: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(table["depth"], dtype=float), np.asarray(table[name], dtype=float)


def _bounded(runs: FinishedRuns, column: str, label: str, name: str, *, upper: bool) -> Iterator[Finding]:
    tables = _consensus_tables(runs)
    bounds = {
        group: linear_bound(*_columns(table, column), share=BEYOND, upper=upper) for group, table in tables.items()
    }
    side = "above" if upper else "below"
    note = f"Dashed: the line {side} which {BEYOND:.0%} of the examples lie."
    title = f"{label.partition(' (')[0].capitalize()} against mean prediction depth ({name})"
    figure = bounds_by_depth(tables, bounds, column, label, title)
    yield Finding(name, title, note, png_bytes(figure), bound_table(tables, bounds))


def _others_by_depth(runs: FinishedRuns) -> dict[str, pd.DataFrame]:
    """Test examples, from groups of at least three single runs with k-NN probes."""
    tables = {}
    for group in runs.groups:
        if group.kind != "single" or len(group.runs) < 3:
            continue
        if not all("probes.npz" in run.files for run in group.runs):
            continue
        dataset = runs.dataset(group)
        if dataset.n_test:
            depth, final = map(
                np.stack, zip(*(depths_of(run, dataset.rows("test")) for run in group.runs), strict=True)
            )
            tables[name_of(group)] = depth_of_one_network(depth, final, dataset.n_classes)
    return tables


def _half_depths(group: Group, dataset: Dataset, runs: FinishedRuns) -> dict[str, np.ndarray]:
    """split -> (2, n_train) mean depths over every second member."""
    sums, counts = np.zeros((2, 2, dataset.n_train)), np.zeros((2, 2, dataset.n_train))
    number = 0
    for run in group.runs:
        for depth, inside, _ in depths_and_predictions(runs.store, recipe_of(run), dataset):
            for member, subset in zip(depth[:, : dataset.n_train], inside[:, : dataset.n_train], strict=True):
                for place, part in enumerate((subset, ~subset)):
                    chosen = part & (member >= 0)
                    sums[place, number % 2, chosen] += member[chosen]
                    counts[place, number % 2, chosen] += 1
                number += 1
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return {"train": means[0], "validation": means[1]}


def _clouds(
    halves: Sequence[tuple[Group, dict[str, np.ndarray]]],
) -> dict[tuple[str, str, str], tuple[np.ndarray, ...]]:
    """Mean depths of each two architectures on the same data, rescaled to [0, 1], and their correlation."""
    clouds = {}
    for (a, first), (b, second) in itertools.combinations(halves, 2):
        if a.data != b.data:
            continue
        for split in first:
            x, y = (_rescaled(np.mean(each[split], axis=0)) for each in (first, second))
            both = np.isfinite(x) & np.isfinite(y)
            clouds[split, name_of(a), name_of(b)] = x[both], y[both], np.array(spearman(x, y).value)
    return clouds


def _rescaled(depth: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(depth), np.nanmax(depth)
    return (depth - low) / (high - low) if high > low else np.zeros_like(depth)
