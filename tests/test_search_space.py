"""What a search may try: read from a recipe, drawn, enumerated, checked before anything trains."""

import optuna
import pytest
from toys import toy_recipe

from study.errors import RecipeError
from study.recipe import dump, load, parse
from study.search.run import check_search
from study.search.space import Scope, vary

LR = {"low": 1e-3, "high": 1.0, "log": True}
NESTED = {"optimizer": {"lr": LR, "momentum": {"low": 0.0, "high": 0.9}}}


def searched(space, **search):
    return toy_recipe("study", search={"space": space, **search})


def scope(space, grid=False, **tables):
    recipe = toy_recipe("study", search={"space": space}, **tables)
    return Scope({"": recipe}, recipe.search.space, grid)


def drawn(chosen, count=40):
    """Parameters of so many random trials."""
    search = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    return [chosen.suggest(search.ask()) for _ in range(count)]


def test_nested_and_quoted_names_are_one_space():
    """TOML turns `optimizer.lr = ...` into tables and keeps `"optimizer.lr"` whole; nobody should have to care."""
    quoted = {"optimizer.lr": LR, "optimizer.momentum": {"low": 0.0, "high": 0.9}}
    assert searched(NESTED).search == searched(quoted).search
    assert list(searched(NESTED).search.space) == ["optimizer.lr", "optimizer.momentum"]


def test_a_space_is_written_out_and_read_back(tmp_path):
    """`recipe.toml` of a search repeats the search."""
    space = NESTED | {"schedule.milestones": {"choices": [[2], [1, 2]]}}
    rounds = [{"set": {"train": {"epochs": 6}}, "space": {"schedule": {"factor": {"choices": [0.1, 0.2]}}}}]
    recipe = searched(space, rounds=rounds)
    (tmp_path / "recipe.toml").write_text(dump(recipe))
    assert load(tmp_path / "recipe.toml") == recipe


WRONG = {
    "both": ({"optimizer.lr": {"low": 0.1, "choices": [1.0]}}, "either choices, or low and high"),
    "half": ({"optimizer.lr": {"low": 0.1}}, "needs low and high, or choices"),
    "turned": ({"optimizer.lr": {"low": 1.0, "high": 0.1}}, "must be below"),
    "log of zero": ({"optimizer.lr": {"low": 0.0, "high": 0.1, "log": True}}, "log needs low above 0"),
    "unknown key": ({"optimizer.lr": {"lwo": 0.1, "high": 1.0}}, "unknown key"),
    "twice": ({"optimizer.lr": LR, "optimizer": {"lr": LR}}, "given twice"),
}


@pytest.mark.parametrize(("space", "says"), WRONG.values(), ids=WRONG)
def test_a_space_that_cannot_be_read_is_one_line(space, says):
    """Before any library of the search is imported."""
    with pytest.raises(RecipeError, match=says) as caught:
        parse({"data": {"name": "digits"}, "search": {"space": space}}, "wrong")
    assert "search.space" in str(caught.value)


REFUSED = {
    "name": ({"optimizer.rate": LR}, "unknown key 'optimizer.rate'"),
    "table": ({"data.limit": {"low": 10, "high": 20}}, "'data.limit' cannot be searched"),
    "range": ({"optimizer.momentum": {"low": 0.5, "high": 1.5}}, "optimizer.momentum: .*less than 1"),
    "combination": ({"schedule.name": {"choices": ["constant", "step"]}}, "a step schedule needs milestones"),
    "type": ({"train.epochs": {"low": 1.5, "high": 2.5}}, "train.epochs: must be a whole number"),
    "when": ({"optimizer.lr": LR | {"when": {"optimizer.nmae": "sgd"}}}, "'optimizer.nmae' is not searched"),
    "circle": (
        {
            "optimizer.lr": LR | {"when": {"optimizer.eps": 1.0}},
            "optimizer.eps": {"choices": [1.0, 2.0], "when": {"optimizer.lr": 0.1}},
        },
        "wait for each other",
    ),
    "nothing": ({}, "search.space is empty"),
}


@pytest.mark.parametrize(("space", "says"), REFUSED.values(), ids=REFUSED)
def test_the_corners_of_a_space_are_checked_before_anything_trains(space, says):
    """A range that the schema refuses at one end would else end the search after an hour."""
    with pytest.raises(RecipeError, match=says):
        check_search(searched(space))


def test_a_grid_over_a_range_needs_a_step():
    """Else there is no saying how many trials it has."""
    with pytest.raises(RecipeError, match="a grid needs choices, or low, high and step"):
        check_search(searched({"optimizer.lr": LR}, sampler="grid"))


def test_whole_numbers_are_drawn_where_the_recipe_has_one():
    """An epoch count of 2.7 would be refused; a learning rate between 1 and 3 is not a whole number."""
    chosen = scope({"train.epochs": {"low": 1, "high": 3}, "optimizer.lr": {"low": 1, "high": 3}})
    result = drawn(chosen)
    assert {point["train.epochs"] for point in result} == {1, 2, 3}
    assert all(isinstance(point["optimizer.lr"], float) for point in result)
    assert len({point["optimizer.lr"] for point in result}) == len(result)


def test_a_logarithmic_range_is_even_in_the_logarithm():
    """Half of the draws lie below the geometric mean; on a linear scale 3 % would."""
    rates = [point["optimizer.lr"] for point in drawn(scope({"optimizer.lr": LR}), 200)]
    assert 0.4 < sum(rate < 0.0316 for rate in rates) / 200 < 0.6


CONDITIONAL = {
    "schedule.name": {"choices": ["constant", "triangular"]},
    "schedule.peak": {"low": 0.1, "high": 0.4, "step": 0.1, "when": {"schedule": {"name": "triangular"}}},
}


def test_a_conditional_name_is_drawn_only_where_it_means_something():
    """A peak drawn for a constant schedule would teach the sampler noise."""
    result = drawn(scope(CONDITIONAL))
    assert all(("schedule.peak" in point) == (point["schedule.name"] == "triangular") for point in result)


def test_a_grid_has_every_combination_once():
    """By hand: one constant schedule, and four peaks of the triangular one."""
    chosen = scope(CONDITIONAL, grid=True)
    points = [tuple(point.values()) for point in chosen.points()]
    assert points[0] == ("constant",)
    assert [round(point[1], 9) for point in points[1:]] == [0.1, 0.2, 0.3, 0.4]


def test_a_choice_may_be_a_list():
    """Milestones of a schedule are searched as wholes; Optuna keeps only text and numbers."""
    chosen = scope(
        {"schedule.milestones": {"choices": [[1], [1, 2]]}},
        schedule={"name": "step", "milestones": [2]},
    )
    recipes = {chosen.recipe(point).schedule.milestones for point in drawn(chosen)}
    assert recipes == {(1,), (1, 2)}


def test_a_trial_differs_from_the_recipe_in_what_was_drawn_alone():
    """All else, the single runs too, is what the recipe says."""
    recipe = toy_recipe("study", single={"repeats": 3})
    varied = vary(recipe, {"optimizer.lr": 0.5, "model.settings.widths": (4,)})
    assert varied.optimizer.lr == 0.5
    assert varied.model.settings["widths"] == (4,)
    assert varied.single == recipe.single
    assert vary(varied, {"optimizer.lr": recipe.optimizer.lr, "model.settings.widths": (16, 8)}) == recipe


def test_a_search_begins_with_the_recipes_own_values():
    """The first trial says what the search has gained."""
    chosen = scope(NESTED, optimizer={"lr": 0.01, "momentum": 0.95})
    assert chosen.given_values() == {"optimizer.lr": 0.01}  # this momentum lies outside what is tried
