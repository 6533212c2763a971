"""Ensembles that stop when their scores are good enough, on simulated networks."""

import itertools

import numpy as np
import pytest

from study.scores.allocation import Target, first_sizes, measured, next_sizes
from study.scores.cscore import UNIT, Profile, cscore_columns
from study.scores.subsets import block_length

RATIOS, N, MOST = (0.1, 0.5, 0.9), 300, 400
EASE = np.random.default_rng(0).beta(0.7, 0.7, N)
CHANCE = np.stack([0.1 + 0.9 * EASE ** (1 / ratio**0.5) for ratio in RATIOS])  # (s, n) of being right, held out
ROWS, LABELS = slice(None), np.zeros(N, dtype=np.int64)
GROW = {"most": MOST, "design": "balanced", "rows": ROWS, "costs": {ratio: ratio for ratio in RATIOS}}


class Networks:
    """Members that are right with the chances of CHANCE; the first m of a ratio are the same whoever asks."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.masks, self.right = {}, {}
        for ratio, chance in zip(RATIOS, CHANCE, strict=True):
            length = block_length(ratio)
            blocks = [rng.permutation(N) * length // N for _ in range(MOST // length)]
            within = [(each - place) % length < round(ratio * length) for each in blocks for place in range(length)]
            self.masks[ratio] = np.array(within)
            self.right[ratio] = rng.random(self.masks[ratio].shape) < chance

    def profile(self, sizes):
        held_out, correct = np.zeros((2, len(RATIOS), 2, N), dtype=np.int64)
        for index, (ratio, size) in enumerate(sizes.items()):
            half = np.arange(size) // block_length(ratio) % 2
            for part in (0, 1):
                out = ~self.masks[ratio][:size][half == part]
                held_out[index, part] = out.sum(axis=0)
                correct[index, part] = (out & self.right[ratio][:size][half == part]).sum(axis=0)
        soft = correct * UNIT
        none = np.zeros_like(correct)
        return Profile(tuple(sizes), held_out, correct, soft, soft * UNIT, none, none, np.zeros((N, 1), dtype=np.int32))

    def grow(self, target, **options):
        """Rounds until the target is reached: the sizes of each."""
        rounds = [first_sizes(RATIOS, MOST, "balanced")]
        while True:
            sizes = next_sizes(self.profile(rounds[-1]), rounds[-1], target, **GROW | options)
            if sizes == rounds[-1]:
                return rounds
            rounds.append(sizes)


@pytest.mark.parametrize(
    "target", [Target(reliability=0.95), Target(stderr=0.03), Target(stderr=0.03, score="soft")], ids=str
)
def test_rounds_end_when_the_target_is_reached(target):
    networks = Networks(1)
    rounds = networks.grow(target)
    values = [measured(networks.profile(sizes), target, ROWS) for sizes in rounds]
    reached = [v >= target.reliability if target.reliability else v <= target.stderr for v in values]
    assert reached == [False] * (len(rounds) - 1) + [True]
    assert 3 <= len(rounds) <= 8


def test_members_come_in_whole_blocks_and_never_shrink():
    rounds = Networks(2).grow(Target(reliability=0.97))
    assert all(size % block_length(ratio) == 0 for sizes in rounds for ratio, size in sizes.items())
    assert all(later[ratio] >= earlier[ratio] for earlier, later in itertools.pairwise(rounds) for ratio in RATIOS)


def test_a_target_out_of_reach_ends_at_the_most():
    assert Networks(3).grow(Target(stderr=1e-6))[-1] == dict.fromkeys(RATIOS, MOST)


def test_scores_stay_unbiased_when_the_data_decide_when_to_stop():
    """Over 80 studies the mean error of each third of the examples is within its sampling error."""
    truth, errors = CHANCE.mean(axis=0), []
    for seed in range(80):
        networks = Networks(seed + 10)
        scores = cscore_columns(networks.profile(networks.grow(Target(reliability=0.9))[-1]), LABELS)["cscore"]
        errors.append([part.mean() for part in np.array_split((scores - truth)[np.argsort(truth)], 3)])
    errors = np.array(errors)
    assert (np.abs(errors.mean(axis=0)) < 4 * errors.std(axis=0, ddof=1) / np.sqrt(len(errors))).all()
    assert np.abs(errors.mean(axis=0)).max() < 0.002


def test_blocks_go_where_they_lower_the_variance_most():
    """Against as many members at each ratio, for the same cost."""
    networks, target = Networks(4), Target(stderr=0.035)
    sizes = networks.grow(target)[-1]
    cost = sum(ratio * size for ratio, size in sizes.items())
    equal = dict.fromkeys(RATIOS, round(cost / sum(RATIOS) / 10) * 10)
    assert measured(networks.profile(sizes), target, ROWS) < measured(networks.profile(equal), target, ROWS)


@pytest.mark.parametrize("target", [Target(reliability=0.95), Target(stderr=0.025)], ids=str)
def test_a_pilot_predicts_what_the_target_takes(target):
    networks = Networks(5)
    rounds = networks.grow(target)
    pilot = rounds[1]
    predicted = next_sizes(networks.profile(pilot), pilot, target, **GROW, growth=np.inf)
    assert sum(predicted.values()) == pytest.approx(sum(rounds[-1].values()), rel=0.3)


def test_networks_that_all_agree_are_no_proof():
    """The halves are constant, so that their reliability is not known: more networks are asked for."""
    networks = Networks(6)
    networks.right = {ratio: np.ones_like(right) for ratio, right in networks.right.items()}
    first = first_sizes(RATIOS, MOST, "balanced")
    sizes = next_sizes(networks.profile(first), first, Target(reliability=0.9), **GROW)
    assert sum(sizes.values()) > sum(first.values())
