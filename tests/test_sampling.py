"""Curricula and weights decide which examples an epoch takes, wherever a job trains."""

import numpy as np
import pytest
import torch

from study.errors import DataError, RecipeError
from study.recipe import parse
from study.runs.jobs import sampling_of, single_plan
from study.training.engines.stack_batches import draw_epoch
from study.training.loop import epoch_order
from study.training.sampling import paced_share
from study.training.types import Job, Sampling, TrainSpec
from tests.toys import blobs, toy_recipe

ROWS = np.arange(10, 60)


def job(**settings) -> Job:
    """Fifty examples, the first the easiest, for ten epochs."""
    sampling = Sampling(scores=-np.arange(50.0), **settings)
    return Job(("toy",), ROWS, training=TrainSpec(epochs=10, batch_size=8), sampling=sampling)


@pytest.mark.parametrize(("order", "first"), [("easy-first", ROWS[:15]), ("hard-first", ROWS[-15:])])
def test_a_curriculum_begins_with_its_first_part_and_ends_with_all(order, first):
    """Epochs are as long as without, so the schedule of the learning rate stays what it is."""
    early, late = (epoch_order(job(order=order, start=0.3, end=0.5), epoch)[0] for epoch in (0, 9))
    assert len(early) == len(late) == 50
    assert set(early) == set(first)
    assert sorted(late) == ROWS.tolist()


def test_a_random_ranking_is_the_same_in_every_epoch():
    """It is the control of a curriculum: another part in each epoch would be shuffled training."""
    taken = [set(epoch_order(job(order="random", pacing="step", end=1.0), epoch)[0]) for epoch in (0, 5)]
    assert taken[0] == taken[1]
    assert len(taken[0]) == 15


@pytest.mark.parametrize(("pacing", "share"), [("linear", 0.65), ("root", 0.795), ("quadratic", 0.475), ("step", 0.3)])
def test_pacing_functions_grow_from_the_start_to_all(pacing, share):
    """By hand: half of the way from .3 to 1, its root and its square."""
    sampling = Sampling(pacing=pacing, start=0.3, end=0.5)
    assert paced_share(sampling, 0.25) == pytest.approx(share, abs=1e-4)
    assert paced_share(sampling, 0.5) == paced_share(sampling, 1.0) == 1


def test_weights_say_how_often_an_example_is_drawn():
    """An example of weight 0 is never trained on."""
    weights = np.repeat([0.0, 1.0, 3.0], [10, 20, 20])
    drawn = np.concatenate([epoch_order(job(weights=weights), epoch)[0] for epoch in range(40)]) - 10
    counts = np.bincount(drawn, minlength=50)
    assert not counts[:10].any()
    assert counts[30:].mean() / counts[10:30].mean() == pytest.approx(3, rel=0.2)


def test_a_stack_takes_the_same_rows_as_a_network_alone():
    """Results must not depend on where a job is placed."""
    alone = epoch_order(job(order="easy-first", weights=np.linspace(0, 1, 50)), 3)[0]
    stacked = draw_epoch(job(order="easy-first", weights=np.linspace(0, 1, 50)), 3, torch.device("cpu")).order
    np.testing.assert_array_equal(alone, stacked.numpy())


def test_files_of_scores_and_weights_are_joined_by_example_and_count_in_the_digest(tmp_path):
    """Other weights are another training; a missing example must not become a weight of its own."""
    dataset, path = blobs(), tmp_path / "weights.csv"
    sampled = {"weights": str(path), "order": "easy-first", "scores": str(path)}
    recipe = toy_recipe("single", single={"train": sampled})
    lines = [f"{name},{row},{row % 3}" for row, name in enumerate(dataset.ids)]
    path.write_text("\n".join(["example,score,weight", *reversed(lines)]))
    sampling = sampling_of(recipe.train, dataset)
    assert sampling.weights is not None
    assert sampling.weights.tolist() == [row % 3 for row in range(dataset.n_train)]
    assert single_plan(recipe).job(0, dataset).sampling is not None
    before = recipe.digest()
    path.write_text("\n".join(["example,score,weight", *lines[:-40]]))
    assert recipe.digest() != before
    with pytest.raises(DataError, match="training examples have no score, first 'train/0110'"):
        sampling_of(recipe.train, dataset)


def test_digests_without_a_curriculum_are_what_they_were():
    """Finished runs are found again after an update."""
    settings = toy_recipe("single").training()["train"]
    assert not {"order", "scores", "pacing", "pacing_start", "pacing_end", "weights"} & set(settings)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "study", "train": {"order": "random"}}, "write them under .single.train."),
        ({"kind": "single", "train": {"order": "easy-first"}}, "needs scores"),
    ],
)
def test_curricula_that_cannot_be_are_refused(table, message):
    """Members of an ensemble would ignore the order without a word."""
    with pytest.raises(RecipeError, match=message):
        parse({"data": {"name": "digits"}, **table}, "toy")
