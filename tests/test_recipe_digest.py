"""What the digest of a recipe covers, and where randomness comes from."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from study.recipe import Recipe, dump, merge, parse
from tests.toys import toy_recipe

TRAINED = {  # what decides which networks come out, and another value of it
    "seed": 5,
    "data.name": "mnist",
    "data.size": 9,
    "data.channels": 3,
    "data.limit": 7,
    "data.limit_test": 7,
    "data.classes": ["1", "2"],
    "noise.labels": "asymmetric",
    "noise.share": 0.3,
    "noise.column": "worst",
    "noise.inputs": "gaussian",
    "noise.input_share": 0.3,
    "model.name": "resnet18_small",
    "model.settings": {"widths": [3]},
    "optimizer.name": "adam",
    "optimizer.lr": 0.3,
    "optimizer.momentum": 0.3,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 0.3,
    "optimizer.beta2": 0.3,
    "optimizer.eps": 0.3,
    "schedule.name": "cosine",
    "schedule.peak": 0.3,
    "schedule.unit": "steps",
    "schedule.milestones": [3],
    "schedule.factor": 0.3,
    "train.epochs": 9,
    "train.steps": 9,
    "train.batch_size": 9,
    "train.pad": 2,
    "train.flip": True,
    "train.normalize": "standard",
    "train.loss": "zero_hinge",
    "train.input_noise": 0.3,
    "train.input_dropout": 0.3,
    "train.adversarial": 0.3,
}
ENSEMBLE_ALONE = {
    "subset.design": "balanced",
    "subset.min_class": 2,
    "subset.group_duplicates": True,
}  # how members are drawn; no single run is
SINGLE_ALONE = {
    "single.model": {"settings": {"widths": [9]}},
    "single.optimizer": {"lr": 0.7},
    "single.schedule": {"name": "cosine"},
    "single.train": {"epochs": 7},
}
SAMPLED = ("train.order", "train.weights")  # of single runs alone, see tests/test_sampling.py; a study refuses them
FREE = {  # what only says how much, where, how fast, what is read out
    "data.decisions": ["decisions.csv"],  # the digest of the data tells them apart
    "data.keep": "keep.csv",
    "data.foreign": {"name": "digits"},
    "train.scores": "scores.csv",  # without an order they mean nothing
    "train.pacing": "step",
    "train.pacing_start": 0.5,
    "train.pacing_end": 0.9,
    "why": "because",
    "kind": "study",
    "data.label": "mine",
    "data.root": "/elsewhere",
    "data.columns.image": "scan",
    "data.columns.label": "grade",
    "data.columns.split": "fold",
    "data.train": "x",
    "data.test": "y",
    "data.download": False,
    "noise.file": "/elsewhere",
    "subset.ratios": [0.5],
    "subset.members": 10,
    "subset.depth": True,
    "subset.until.reliability": 0.9,
    "subset.until.stderr": 0.1,
    "subset.until.score": "soft",
    "single.repeats": 3,
    "single.evaluate_every": 2,
    "single.evaluate_steps": 5,
    "single.signals_every": 2,
    "single.density_radius": 2.0,
    "single.keep": "final",
    "proxies": {"cbtl": {}},
    "signals": {"hidden_density": {}},
    "search.trials": 3,
    "search.sampler": "random",
    "search.pruner": "none",
    "search.startup": 3,
    "search.warmup": 3,
    "search.objective": "reliability",
    "search.score": "stable",
    "search.members": 3,
    "search.keep": 3,
    "search.rounds": [{"set": {"train": {"epochs": 9}}}],
    "search.validation": 0.3,
    "search.space": {"optimizer.lr": {"choices": [0.1]}},
    "sweep.values": {"optimizer.lr": [0.1]},
    "sweep.repeats": 3,
    "sweep.exclude": [{"optimizer.lr": 0.1}],
    "sweep.analyses": ["Z-fig6"],
    "runtime.device": "cuda",
    "runtime.precision": "float64",
    "runtime.engine": "ray",
    "runtime.kernel": "torch",
    "runtime.layout": "contiguous",
    "runtime.threads": 1,
    "runtime.stack": 2,
    "runtime.shard": 1,
}


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of the schema."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def base(kind: str) -> Recipe:
    """The toy recipe with label noise, whose fields then mean something."""
    data = {"name": "csv", "root": "pictures"}  # a format with columns
    return toy_recipe(kind, data=data, noise={"labels": "symmetric", "share": 0.2})


def changed(name: str, value: object, kind: str) -> Recipe:
    """The base with one field changed, as one kind of run."""
    table = tomllib.loads(dump(base("study")))
    words = name.split(".")
    for word in reversed(words):
        value = {word: value}
    recipe = parse(merge(table, value), "changed")
    return recipe.part(kind)


def test_every_field_is_either_in_the_digest_or_not():
    """A new field that nobody thought about would mix networks of two kinds into one C-score."""
    lists = [*TRAINED, *ENSEMBLE_ALONE, *SINGLE_ALONE, *SAMPLED, *FREE]
    assert sorted(lists) == sorted(fields(Recipe))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("kind", ["ensemble", "single"])
def test_what_changes_the_training_changes_the_digest(name, kind):
    """Runs are found, and shards are folded, by the digest."""
    assert changed(name, TRAINED[name], kind).digest() != base(kind).digest()


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("kind", ["ensemble", "single"])
def test_what_changes_no_network_leaves_the_digest(name, kind):
    """More members, another machine or another read-out must find the networks that are there."""
    assert changed(name, FREE[name], kind).digest() == base(kind).digest()


@pytest.mark.parametrize("name", ENSEMBLE_ALONE)
def test_what_the_ensemble_holds_out_concerns_it_alone(name):
    """A single run trains on everything."""
    value = ENSEMBLE_ALONE[name]
    differs = [changed(name, value, kind).digest() != base(kind).digest() for kind in ("ensemble", "single")]
    assert differs == [True, False]


@pytest.mark.parametrize("name", SINGLE_ALONE)
def test_the_single_runs_overrides_leave_the_ensemble(name):
    """2,000 networks must not be trained again because the single run got more epochs."""
    value = SINGLE_ALONE[name]
    differs = [changed(name, value, kind).digest() != base(kind).digest() for kind in ("ensemble", "single")]
    assert differs == [False, True]


def test_ensemble_and_single_run_are_never_taken_for_each_other():
    """The same settings, but another training."""
    assert toy_recipe("ensemble").digest() != toy_recipe("single").digest()


def test_a_default_that_is_written_out_changes_nothing():
    """A recipe may spell out what is the default."""
    plain = {"data": {"name": "digits"}}
    assert parse(plain | {"train": {"epochs": 10}}, "a").digest() == parse(plain, "b").digest()


def test_a_stream_depends_on_seed_and_words_alone():
    """A member's subset, weights and order are the same in whatever order members are trained."""
    recipe = toy_recipe()
    first = recipe.stream("init", "member", "0.3", 2).integers(2**62)
    recipe.stream("init", "member", "0.3", 1).integers(2**62, size=100)
    assert recipe.stream("init", "member", "0.3", 2).integers(2**62) == first


def test_streams_of_other_words_or_seeds_differ():
    """Two members that share a stream are one network twice; `1, 23` and `12, 3` are other words."""
    recipe = toy_recipe()
    draws = [
        int(each.stream(*words).integers(2**62))
        for each in (recipe, recipe.model_copy(update={"seed": 1}))
        for words in (("a",), ("b",), ("a", 1, 23), ("a", 12, 3), ("a", "1 23"), ("order", 0), ("order", 1))
    ]
    assert len(set(draws)) == len(draws)


def test_streams_are_the_same_in_another_process():
    """Python's own hash of a text changes from process to process; a resume must not."""
    script = (
        "from tests.toys import toy_recipe\n"
        "print(toy_recipe().stream('subset', '0.3', 4).integers(2**62), toy_recipe().digest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    recipe = toy_recipe()
    assert done.stdout.split() == [str(recipe.stream("subset", "0.3", 4).integers(2**62)), recipe.digest()]


def test_streams_are_those_of_the_first_release():
    """Another generator or hash would make every kept shard unreproducible; this number must never change."""
    assert toy_recipe().stream("subset", "0.3", 4).integers(2**62) == 3789422093143095781


def test_streams_look_independent():
    """Neighbouring words must not give correlated draws."""
    recipe = toy_recipe()
    draws = np.stack([recipe.stream("order", member).random(2000) for member in range(20)])
    correlations = np.corrcoef(draws)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 0.1
