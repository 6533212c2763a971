"""Training and test examples that become wrong together.  in: repeats of a training   out: counts, pictures, SVM test

Zhang et al. ask whether training examples that are forgotten when a test example mal-generalizes are its support
vectors: whether a linear classifier that is trained with them gets the test example right more often (Z-sync).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.svm import SVC

from study.data import Dataset
from study.errors import AnalysisError
from study.experiments.findings import Finding, FinishedRuns, correct_of, numbered, recipe_of, title_of
from study.experiments.select import Group
from study.figures.style import png_bytes
from study.figures.synchronization import synchronized_by_events, synchronized_pictures
from study.random_streams import random_stream
from study.runs.checkpoints import checkpoint_name, kept_epochs
from study.runs.jobs import runtime_of, single_plan
from study.runs.single import place_single
from study.scores.regularity_plane import representation
from study.scores.synchronization import runs_synchronized, synchronized_counts
from study.tracking import Run
from study.training.checkpoints import snapshot_from
from study.training.placement import like_tags

PICTURED = 3  # test examples, as in the paper's Fig. 9
REPEATS = (1, 10, 20)  # over which the paper counts
SYNCHRONIZED = 46  # among the classifier's training examples at most, as in the paper's Table 1
TRAINED_ON = (100, 460)
DRAWS = 100  # classifiers for each number of training examples, with and without synchronized ones


def synchronization(runs: FinishedRuns) -> Iterator[Finding]:
    """Synchronized training examples over more and more runs; pictures of them; are they support vectors (Z-sync)."""
    for name, group in numbered("Z-sync", runs.of_kind("single", repeats=2)):
        train, test = _correct_by_split(group)
        counts, events = synchronized_counts(train, test), representation(test[0])[1]
        table = synchronized_table(counts, events)
        yield Finding(
            f"{name}-counts",
            title_of("Training examples that are forgotten when a test example mal-generalizes", group),
            "Over more runs the synchronized examples become few: most coincide by chance.",
            png_bytes(synchronized_by_events(table)),
            table,
        )
        dataset = runs.dataset(group)
        together, chosen = longest_synchronized(counts)
        if not len(chosen):
            continue
        repeats = runs_synchronized(train[:together], test[:together], examples=chosen)
        rows = dataset.n_train + chosen
        pictures = [(int(row), np.flatnonzero(of_row == together)) for row, of_row in zip(rows, repeats, strict=True)]
        figure = synchronized_pictures(
            dataset.images, dataset.labels, dataset.ids, pictures, together, maximum=dataset.maximum
        )
        yield Finding(
            f"{name}-pictures", title_of(f"Synchronized in each of {together} runs", group), png=png_bytes(figure)
        )
        features = penultimate_features(group.runs[0], dataset)
        if features is not None:
            yield _support_finding(name, group, features, dataset, pictures)


def _correct_by_split(group: Group) -> tuple[list[np.ndarray], list[np.ndarray]]:
    of_runs = [correct_of(run)[1] for run in group.runs]
    if "test" not in of_runs[0]:
        raise AnalysisError("needs test examples, whose mal-generalizing events are compared")
    return [correct["train"] for correct in of_runs], [correct["test"] for correct in of_runs]


def synchronized_table(counts: np.ndarray, events: np.ndarray) -> pd.DataFrame:
    """Numbers of synchronized training examples by the mal-generalizing events of the test example (Z-fig8).

    Args:
        counts: of `synchronized_counts`, (k, m).
        events: (m,) of the first run.

    Returns:
        runs (1, 10, 20 as far as there are, and all) | events, above 0 | synchronized, mean over the test examples | n.
    """
    shown = sorted({r for r in REPEATS if r <= len(counts)} | {len(counts)})
    rows = []
    for runs in shown:
        for number in np.unique(events[events > 0]).tolist():
            of_number = counts[runs - 1, events == number]
            rows.append((runs, number, float(of_number.mean()), len(of_number)))
    return pd.DataFrame(rows, columns=["runs", "events", "synchronized", "n"])


def longest_synchronized(counts: np.ndarray) -> tuple[int, np.ndarray]:
    """The largest number of runs over which test examples have synchronized training examples, and those with most.

    Returns:
        (r, numbers of at most three test examples); (0, none) where there are no events at all.
    """
    for repeats in range(len(counts), 0, -1):
        chosen = np.argsort(-counts[repeats - 1], kind="stable")[:PICTURED]
        chosen = chosen[counts[repeats - 1, chosen] > 0]
        if len(chosen):
            return repeats, chosen
    return 0, np.empty(0, dtype=np.int64)


def penultimate_features(run: Run, dataset: Dataset) -> np.ndarray | None:
    """(n, d) of the last network that a single run has kept; None where it has kept none.

    The paper takes a VGG-19 that was trained on ImageNet.
    """
    epochs = kept_epochs(run)
    if not epochs:
        return None
    recipe = recipe_of(run)
    plan = single_plan(recipe)
    placement = place_single(plan, dataset, runtime_of(recipe), like=like_tags(run.tags))
    content = run.read(checkpoint_name(epochs[-1])).read_bytes()
    return snapshot_from(content, plan.job(int(run.params["repeat"]), dataset), dataset, placement).features()


def share_right(
    features: np.ndarray,
    same: np.ndarray,
    example: np.ndarray,
    *,
    among: np.ndarray,
    others: np.ndarray,
    n: int,
    draws: int = DRAWS,
    rng: np.random.Generator,
) -> float:
    """How often linear support vector machines see that an example belongs to its class (Zhang, Table 1).

    Args:
        features: (n_train, d) of training examples.
        same: (n_train,) bool, of the example's class.
        example: (d,) features of the test example.
        among: row numbers of training examples that every classifier is trained on, as far as they fit.
        others: row numbers that the rest of its n examples are drawn from.
        n: examples that a classifier is trained on, half of them of the example's class; fewer where there are no more.
        draws: classifiers.
        rng: of the draws.

    Returns:
        Share of the classifiers that put the example into its class.
    """
    right = 0
    for _ in range(draws):
        rows = [_half(among[same[among] == side], others[same[others] == side], n // 2, rng) for side in (True, False)]
        chosen = np.concatenate(rows)
        right += int(SVC(kernel="linear").fit(features[chosen], same[chosen]).predict(example[None])[0])
    return right / draws


def _half(among: np.ndarray, others: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    fixed = rng.permutation(among)[:size]
    return np.concatenate([fixed, rng.permutation(others)[: size - len(fixed)]])


def support_of_synchronized(
    features: np.ndarray,
    labels: np.ndarray,
    example: int,
    together: np.ndarray,
    *,
    n_train: int,
    sizes: Sequence[int] = TRAINED_ON,
    draws: int = DRAWS,
) -> list[dict[str, float]]:
    """Compare classifiers trained with and without training examples synchronized with a test example (Zhang, Table 1).

    Args:
        features: (n, d) of all examples.
        labels: (n,).
        example: row number of the test example.
        together: row numbers of its synchronized training examples; 46 of them at most are used, half of its class.
        n_train: training examples come first.
        sizes: numbers of training examples of a classifier.
        draws: classifiers of each kind.

    Returns:
        Per size: trained_on, synchronized (how many of them), with, without (shares right, see `share_right`).
    """
    same = labels[:n_train] == labels[example]
    rng = random_stream(0, "support vectors", example)
    sides = [rng.permutation(together[same[together] == side])[: SYNCHRONIZED // 2] for side in (True, False)]
    used, free = np.concatenate(sides), np.setdiff1d(np.arange(n_train), together)
    none = np.empty(0, dtype=np.int64)
    rows = []
    for n in sizes:
        shares = [
            share_right(
                features[:n_train], same, features[example], among=among, others=free, n=n, draws=draws, rng=rng
            )
            for among in (used, none)
        ]
        rows.append({"trained_on": n, "synchronized": len(used), "with": shares[0], "without": shares[1]})
    return rows


def _support_finding(
    name: str, group: Group, features: np.ndarray, dataset: Dataset, pictures: Sequence[tuple[int, np.ndarray]]
) -> Finding:
    rows = [
        {"example": dataset.ids[row], **each}
        for row, together in pictures
        for each in support_of_synchronized(features, dataset.labels, row, together, n_train=dataset.n_train)
    ]
    return Finding(
        f"{name}-support",
        title_of(
            "Are synchronized training examples support vectors? Shares of linear classifiers that are right", group
        ),
        "with and without synchronized examples among those a classifier is trained on; the paper finds up to .14 "
        "more for an irregular test example (features of a VGG-19 trained on ImageNet; here the penultimate layer).",
        table=pd.DataFrame(rows),
        numbers={f"{name}/support_gain": float(np.mean([row["with"] - row["without"] for row in rows]))},
    )
