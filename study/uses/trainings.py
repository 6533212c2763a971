"""Trainings that uses of scores compare.  in: a recipe, accuracies   out: a sweep, means and gains"""

from typing import Any

from numpy.typing import ArrayLike

from study.data import Dataset
from study.errors import AnalysisError
from study.recipe import Recipe, Sweep, merge, parse
from study.scores.detection import UNDEFINED
from study.scores.repeats import difference_of_means, mean_of_repeats

LAST_ONLY = 1_000_000  # epochs between evaluations: the last is always evaluated
PROXY = {"target_confidence": {}}  # a single run computes at least one; this one costs nothing


def check_test_split(dataset: Dataset) -> None:
    """Refuse data without test examples.

    Raises:
        AnalysisError: there are none.
    """
    if not dataset.n_test:
        raise AnalysisError(f"{dataset.name} has no test split, by which accuracies could be compared")


def sweep_of_single_runs(recipe: Recipe, name: str, single: dict[str, Any], sweep: Sweep) -> Recipe:
    """A recipe's single runs over the values of a sweep, evaluated at their end alone.

    Args:
        recipe: whose network is trained.
        name: of the new recipe, in messages.
        single: further keys of its [single].
        sweep: the values.
    """
    table = recipe.model_dump(exclude={"proxies", "signals", "sweep", "search"})
    changes = {"kind": "single", "proxies": PROXY, "single": {"evaluate_every": LAST_ONLY, **single}}
    return parse(merge(table, changes), name).model_copy(update={"sweep": sweep})


def accuracy_and_gain(accuracies: ArrayLike, control: ArrayLike | None) -> dict[str, float]:
    """Mean accuracy with Student's interval, and what it gains over a control with Welch's.

    Args:
        accuracies: (r,) of the repeats.
        control: (s,) of the repeats of the control; None: it is the control itself, the gain is NaN.

    Returns:
        accuracy, low, high, gain, gain_low, gain_high.

    >>> round(accuracy_and_gain([0.8, 0.9], [0.7, 0.8])["gain"], 3)
    0.1
    """
    mean = mean_of_repeats(accuracies)
    gain = UNDEFINED if control is None else difference_of_means(control, accuracies)
    named = {"accuracy": mean.value, "low": mean.low, "high": mean.high}
    return named | {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
