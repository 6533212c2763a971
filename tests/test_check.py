"""What is found out about a recipe before anything trains."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study import data
from study.errors import RecipeError
from study.recipe import Recipe, load
from study.recipe.load import recipe_files
from study.workflows.preflight import SHAPES, check_all, check_data, check_fit, check_names
from tests.toys import blobs, toy_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
SHIPPED = recipe_files([RECIPES])
MINIMAL = "[data]\nname = 'digits'\n"


def test_there_are_recipes_to_check():
    """A loop over nothing passes; digits, MNIST and CIFAR-10 are promised."""
    assert len(SHIPPED) >= 5
    assert {file.parent.name for file in SHIPPED} >= {"digits", "mnist", "cifar10"}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_shipped_recipe_can_run(file):
    """The first thing that a user does is to run one."""
    assert [fault for _, fault in check_all([file])] == [None]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_shipped_recipe_has_a_title_page(file):
    """Claim, cost and command are on the first lines, and `why` goes to MLflow."""
    head = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(line.startswith("# run:") for line in head)
    assert any(line.startswith("# cost:") for line in head)
    assert load(file).why


def test_a_base_is_no_recipe_of_its_own(tmp_path):
    """It may lack what every recipe that builds on it says."""
    (tmp_path / "base.toml").write_text("seed = 1\n")
    (tmp_path / "b.toml").write_text(f"base = 'base.toml'\n{MINIMAL}")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.toml").write_text(MINIMAL)
    assert recipe_files([tmp_path]) == [tmp_path / "b.toml", tmp_path / "deep" / "a.toml"]


def test_one_faulty_recipe_does_not_hide_the_next(tmp_path):
    """CI shows every fault at once."""
    (tmp_path / "a.toml").write_text("[data]\n")
    (tmp_path / "b.toml").write_text(MINIMAL)
    (tmp_path / "c.toml").write_text(MINIMAL + "[model]\nname = 'mpl'\n")
    faults = [fault for _, fault in check_all([tmp_path])]
    assert faults[1] is None
    assert "data.name is missing" in faults[0]
    assert "did you mean 'mlp'" in faults[2]


def test_a_folder_without_recipes_is_an_error(tmp_path):
    """A check of nothing must not be green."""
    with pytest.raises(RecipeError, match="no recipes"):
        list(check_all([tmp_path]))


@pytest.mark.parametrize("name", ["mpl", "mlp"])
def test_a_recipe_for_own_images_is_checked_as_far_as_it_tells(tmp_path, name):
    """The shape of a user's images is not in the recipe, but whether there is such a network is."""
    (tmp_path / "own.toml").write_text(f"[data]\nname = 'folder'\nroot = '/nowhere'\n[model]\nname = '{name}'\n")
    ((_, fault),) = check_all([tmp_path])
    assert (fault is None) == (name == "mlp")


def changed(**tables: object) -> Recipe:
    """The toy recipe of a whole study, with these tables over it."""
    return toy_recipe("study", **tables)


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"proxies": {"cbtll": {}}}, "unknown proxy 'cbtll'; did you mean 'cbtl'"),
        ({"proxies": {"cbtl": {"x": 3}}}, "proxy 'cbtl' has no setting 'x'"),
        ({"subset": {"design": "balanced", "ratios": [0.3], "members": 14}}, "take 10, or subset.design = 'uniform'"),
        ({"subset": {"design": "balanced", "ratios": [0.25], "members": 7}}, "take 8, or"),
        ({"train": {"epochs": 1}}, "epochs"),
        ({"proxies": {"all": {"epoch": 3}}}, "proxies.all takes no settings"),
        ({"proxies": {"all": {}, "cbtll": {}}}, "unknown proxy 'cbtll'"),
        ({"proxies": {"el2n": {"epoch": 4}}}, "'el2n': epoch = 4, and the training has 1 to 3"),
        ({"signals": {"hidden_densty": {}}}, "unknown signal source 'hidden_densty'; did you mean 'hidden_density'"),
        ({"signals": {"input_density": {"h": 1}}}, "signals.input_density has no setting 'h'"),
    ],
)
def test_names_are_checked_in_one_line(tables, line):
    """Second step: proxies, their settings, subsets that can be drawn."""
    with pytest.raises(RecipeError, match=line) as caught:
        check_names(changed(**tables))
    assert "\n" not in str(caught.value)


def test_blocks_are_no_matter_where_no_subset_is_drawn():
    """A single run trains on everything."""
    recipe = changed(subset={"design": "balanced", "members": 7})
    check_names(recipe.model_copy(update={"kind": "single"}))


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"model": {"name": "mpl"}}, "did you mean 'mlp'"),
        ({"model": {"settings": {"width": [3]}}}, "unknown setting 'width'"),
        ({"model": {"name": "vgg11", "settings": {}}}, "does not take"),
        ({"model": {"name": "vit_tiny_patch16_224", "settings": {}}}, "does not take"),
        ({"model": {"name": "dla34", "settings": {}}}, "no penultimate layer"),
        ({"single": {"model": {"name": "vgg11"}}}, "does not take"),
    ],
)
def test_the_network_is_tried_on_the_shape_of_the_images(tables, line):
    """Third step: built without weights, fed one empty batch; of the single run as well."""
    recipe = changed(model={"name": "mlp", "settings": {"widths": [4]}})
    table = recipe.model_dump(mode="json", exclude_none=True)
    for name, value in tables.items():
        table[name] = {**table[name], **value}
    with pytest.raises(RecipeError, match=line) as caught:
        check_fit(Recipe(**table), (1, 8, 8), 10)
    assert "\n" not in str(caught.value)


def test_the_single_runs_network_is_no_matter_for_an_ensemble_alone():
    """`study ensemble` trains no single run."""
    recipe = changed(single={"model": {"name": "vgg11"}})
    check_fit(recipe.model_copy(update={"kind": "ensemble"}), (1, 8, 8), 10)


@pytest.mark.parametrize("ratio", [0.01, 0.99])
def test_a_ratio_that_leaves_nothing_is_refused(ratio):
    """1 % of 30 examples is no training set; 99 % of them holds nobody out."""
    recipe = changed(subset={"ratios": [ratio], "design": "uniform"})
    with pytest.raises(RecipeError, match="leaves nothing"):
        check_data(recipe, blobs(30, 6))


def test_a_recipe_that_fits_its_data_passes():
    """And says nothing."""
    check_data(changed(), blobs())


def test_shapes_of_known_data_are_those_of_the_data(real_data):
    """`study check` believes this table; a wrong one would let a recipe pass that cannot run."""
    digits = data.load(load(RECIPES / "digits" / "study.toml").data)
    assert (digits.shape, digits.n_classes) == SHAPES["digits"]
    mnist = data.load(toy_recipe("study", data={"name": "mnist", "root": str(real_data / "mnist"), "limit": 5}).data)
    assert (mnist.shape, mnist.n_classes) == SHAPES["mnist"]


def test_fewer_classes_are_fewer_logits():
    """`data.classes` cuts the data set; a network for ten would have seven idle logits."""
    images = replace(blobs(), images=np.zeros((150, 1, 8, 8), np.uint8))
    check_data(changed(data={"name": "digits", "classes": ["1", "2", "3"]}), images)


def test_a_recipe_that_counts_steps_is_rehearsed_with_the_epochs_that_the_data_make_of_them():
    """8 batches a pass: 8 steps are one epoch, and one epoch has no transition to count."""
    counted = {"train": {"steps": 8, "batch_size": 16}, "proxies": {"forgetting_events": {}}}
    recipe, dataset = toy_recipe("study", **counted), blobs()
    check_names(recipe)
    with pytest.raises(RecipeError, match="two epochs or more"):
        check_data(recipe, dataset)
    check_data(toy_recipe("study", **counted | {"train": {"steps": 9, "batch_size": 16}}), dataset)


@pytest.mark.parametrize("source", ["hidden_density", "local_densities"])
def test_a_layer_that_is_none_is_refused_before_the_training(source):
    """The source would find out after the first epochs due, or after the last."""
    recipe = changed(signals={source: {"layer": "block.0"}})
    with pytest.raises(RecipeError, match=rf"signals\.{source}\.layer: no layer 'block\.0'; did you mean 'blocks\.0'"):
        check_fit(recipe, (1, 6, 6), 3)


@pytest.mark.parametrize("layer", ["penultimate", "input", "blocks.1", "softmax", "-1"])
def test_a_layer_that_is_one_passes(layer):
    """By name, or by number."""
    check_fit(changed(signals={"hidden_density": {"layer": layer}}), (1, 6, 6), 3)


def test_the_layers_are_those_of_the_single_run():
    """Its model may be another than the ensemble's."""
    recipe = changed(signals={"hidden_density": {"layer": "blocks.1"}}, single={"model": {"settings": {"widths": [8]}}})
    with pytest.raises(RecipeError, match=r"no layer 'blocks\.1'"):
        check_fit(recipe, (1, 6, 6), 3)
    check_fit(recipe.part("ensemble"), (1, 6, 6), 3)


def test_a_network_beyond_all_memory_is_refused(tmp_path):
    """`widths = [10**9]` passed every check, which build it without memory, and failed in the first step."""
    (tmp_path / "wide.toml").write_text(
        '[data]\nname = "mnist"\n[model]\nname = "mlp"\nsettings = {widths = [1000000000]}\n'
    )
    ((_, fault),) = check_all([tmp_path / "wide.toml"])
    assert fault.startswith("model mlp: 7.95e+11 parameters, 9.54e+03 GB to train one network; at most 1e+09 are taken")
