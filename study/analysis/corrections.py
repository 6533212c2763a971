"""What a person's decisions about the data have brought.  in: single runs before and after   out: both accuracies"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis.by_epoch import trajectory
from study.analysis.load import StudyRuns
from study.data import Dataset
from study.scores.detection import Estimate
from study.scores.repeats import difference_of_means, mean_of_repeats
from study.tracking import Run


@dataclass(frozen=True)
class Correction:
    """Test accuracy before and after decisions, at the last epoch, on the test examples that have one label in both.

    before, after: means over the repeats, with Student's interval.
    gain: after less before, with Welch's interval.
    repeats: of each.
    n: test examples.
    left_out: test examples that a decision has relabelled or dropped.
    counts: of the decisions: keep, relabel, drop.
    """

    before: Estimate
    after: Estimate
    gain: Estimate
    repeats: tuple[int, int]
    n: int
    left_out: int
    counts: dict[str, int]

    def accuracies(self) -> dict[str, float]:
        """Before, after and the difference, the ends of its interval where there is one."""
        gain = {"gain": self.gain.value, "gain_low": self.gain.low, "gain_high": self.gain.high}
        named = {"before": self.before.value, "after": self.after.value} | gain
        return {name: value for name, value in named.items() if np.isfinite(value)}

    def sentence(self) -> str:
        """Both accuracies and their difference, in words."""
        decided = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        interval = f"(95 % {self.gain.low:+.4f} to {self.gain.high:+.4f})"
        if np.isnan(self.gain.low):
            interval = "(no interval: set single.repeats to 3 or more before and after)"
        repeats = f"{self.repeats[0]} runs before, {self.repeats[1]} after"
        changed = f", without {self.left_out:,} that were relabelled or dropped" if self.left_out else ""
        return (
            f"Decisions ({decided}): test accuracy {self.before.value:.4f} before, {self.after.value:.4f} after, "
            f"difference {self.gain.value:+.4f} {interval}; {repeats}, {self.n:,} test examples{changed}."
        )


def correction(runs: StudyRuns, dataset: Dataset) -> Correction | None:
    """Compare the single runs with those on the data before any decision.

    None without decisions, without a test split, or where the recipe has no finished run on the data as they were.
    """
    if not runs.uncorrected or not runs.singles or not dataset.n_test:
        return None
    before, after = ([_test_correct(run) for run in some] for some in (runs.uncorrected, runs.singles))
    shared = before[0].index.intersection(after[0].index)
    if shared.empty:
        return None
    accuracies = [np.array([correct[shared].mean() for correct in some]) for some in (before, after)]
    counts = {name: sum(edit.counts[name] for edit in dataset.edits) for name in dataset.edits[0].counts}
    return Correction(
        mean_of_repeats(accuracies[0]),
        mean_of_repeats(accuracies[1]),
        difference_of_means(*accuracies),
        (len(before), len(after)),
        len(shared),
        len(before[0]) - len(shared),
        counts,
    )


def _test_correct(run: Run) -> pd.Series:
    """Whether each test example is right at the last epoch, by its id and label."""
    table, correct = run.read_table("scores.parquet"), trajectory(run)["correct"][-1]
    test = (table["split"] == "test").to_numpy()
    index = pd.MultiIndex.from_frame(pd.DataFrame({name: table[name][test] for name in ("example", "label")}))
    return pd.Series(correct[test], index=index)
