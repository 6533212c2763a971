"""What a study will cost is counted, not guessed; only seconds are an estimate."""

from dataclasses import replace

import pytest

from study.runs import speed
from study.runs.ensemble import run_ensemble
from study.runs.jobs import template_of
from study.runs.single import run_singles
from study.training.autotune import Rate
from study.training.placement import place
from study.workflows import plan
from study.workflows.plan import describe, plan_study
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

# two layers of the toy: 36 inputs, 16, 8, 3 classes; two operations per weight
FORWARD = 2 * (36 * 16 + 16 * 8 + 8 * 3)
SUBSET = {"ratios": [0.3, 0.7], "members": 4}


@pytest.fixture
def recipe():
    return toy_recipe("study", subset=SUBSET, single={"repeats": 2}, proxies={"cbtl": {}})


def test_networks_examples_and_looks_are_counted(recipe, store):
    """4 members at each ratio, 3 epochs; a look at all 150 examples after a member, or after every epoch of a run."""
    costs = plan_study(recipe, blobs(), store)
    ensemble, single = costs["ensemble"], costs["single"]
    assert (ensemble.networks, ensemble.done, ensemble.epochs) == (8, 0, 3)
    assert ensemble.examples == 4 * 3 * (36 + 84)
    assert ensemble.evaluations == 8 * 150
    assert (single.networks, single.done, single.epochs) == (2, 0, 3)
    assert single.examples == 2 * 3 * 120
    assert single.evaluations == 2 * (3 + 1) * 150


def test_fewer_looks_cost_less(recipe, store):
    """3 epochs, looked at after the second and the last, and before the first step."""
    seldom = recipe.model_copy(update={"single": recipe.single.model_copy(update={"evaluate_every": 2})})
    cost = plan_study(seldom, blobs(), store)["single"]
    assert cost.evaluations == 2 * (2 + 1) * 150
    assert cost.examples == 2 * 3 * 120


def test_flops_are_those_of_the_layers(recipe, store):
    """A backward pass costs two forward ones."""
    for cost in plan_study(recipe, blobs(), store).values():
        assert cost.flops == FORWARD * (3 * cost.examples + cost.evaluations)


@pytest.mark.parametrize("design", ["uniform", "balanced"])
def test_uneven_subsets_are_counted_as_they_are_drawn(store, design):
    """30 % of 115 is 34 or 35, by design and member; the bar and the plan count the same."""
    recipe = toy_recipe(subset={"ratios": [0.3], "members": 10, "design": design}, train={"epochs": 1})
    dataset = blobs(115, 5)
    (cost,) = plan_study(recipe, dataset, store).values()
    run = run_ensemble(recipe, dataset, store)
    held_out = run.read_table("cscore.parquet")["held_out"][:115].sum()
    assert cost.examples == 10 * 115 - held_out


def test_what_is_finished_costs_nothing_more(recipe, store):
    """Resume is worth knowing about before it begins."""
    dataset = blobs()
    run_ensemble(recipe, dataset, store)
    more = recipe.model_copy(update={"subset": recipe.subset.model_copy(update={"members": 6})})
    cost = plan_study(more, dataset, store)["ensemble"]
    assert (cost.networks, cost.done) == (12, 8)
    assert cost.examples == 2 * 3 * (36 + 84)
    cost = plan_study(recipe, dataset, store)["ensemble"]
    assert (cost.done, cost.examples, cost.evaluations, cost.flops, cost.seconds) == (8, 0, 0, 0, 0)


def test_single_runs_count_as_done_when_they_hold_what_is_asked(recipe, store):
    """Another proxy asked for means another training, and the plan says so."""
    dataset = blobs()
    run_singles(recipe, dataset, store)
    assert plan_study(recipe, dataset, store)["single"].done == 2
    three = recipe.model_copy(update={"single": recipe.single.model_copy(update={"repeats": 3})})
    assert plan_study(three, dataset, store)["single"].examples == 3 * 120
    more = recipe.model_copy(update={"proxies": {"cbtl": {}, "forgetting_events": {}}})
    cost = plan_study(more, dataset, store)["single"]
    assert (cost.done, cost.examples) == (0, 2 * 3 * 120)


def test_only_the_kind_asked_for_is_planned(recipe, store):
    """`study ensemble` does not train single runs."""
    assert list(plan_study(recipe.part("ensemble"), blobs(), store)) == ["ensemble"]
    assert list(plan_study(recipe.part("single"), blobs(), store)) == ["single"]


def test_the_lines_say_what_a_person_plans_with(recipe, store):
    """Networks, epochs, examples, FLOPs, time, disk; and what is done before."""
    costs = plan_study(recipe, blobs(), store)
    costs["ensemble"] = replace(costs["ensemble"], done=3, examples=1500, flops=2.5e9, seconds=125.0, disk=4e6)
    line, _ = describe(costs)
    assert line == (
        "ensemble: 5 networks of 8 to train, 3 done before, 3 epochs, 1.5 k examples, 2.5 GFLOP, about 2 min, "
        "4 MB on disk"
    )


def test_the_estimate_takes_the_rates_of_the_probe(recipe, store, monkeypatch):
    """Where there are some, steps and evaluations count what they took; nothing is trained to find out."""
    monkeypatch.setattr(speed, "measured_rate", lambda part, dataset, placement: Rate(2.0, 0.5))
    monkeypatch.setattr(speed, "fit", None)
    for cost in plan_study(recipe, blobs(), store).values():
        assert cost.seconds == 2.0 * cost.examples + 0.5 * cost.evaluations


def test_several_devices_share_the_time(recipe, monkeypatch):
    """What was measured on one of them is divided."""
    monkeypatch.setattr(speed, "measured_rate", lambda part, dataset, placement: Rate(2.0, 0.5))
    placement = replace(place(recipe.runtime, stackable=True), devices=("cpu", "cpu"))
    assert speed.seconds_per_example(template_of(recipe.part("ensemble")), blobs(), placement) == (1.0, 0.25)


def test_a_single_run_is_placed_as_one_network(recipe, store, monkeypatch):
    """And a probe hears how much there is to train, so that it is worth while."""
    heard, choose = {}, plan.place_network

    def place_network(template, dataset, runtime, seen, *, alone, snapshots):
        heard["single" if alone else "ensemble"] = seen, alone
        return choose(template, dataset, runtime, seen, alone=alone, snapshots=snapshots)

    monkeypatch.setattr(plan, "place_network", place_network)
    plan_study(recipe, blobs(), store)
    assert heard == {"ensemble": (4 * 3 * (36 + 84), False), "single": (2 * 3 * 120, True)}
