"""Recipes: how files become one frozen recipe, what is refused, how it is written out."""

from pathlib import Path

import pytest

from study.errors import RecipeError
from study.recipe import Recipe, dump, flatten, load, merge, parse
from tests.toys import toy_recipe

SHIPPED = sorted(file for file in (Path(__file__).parents[1] / "recipes").rglob("*.toml") if file.name != "base.toml")
MINIMAL = "[data]\nname = 'digits'\n"


@pytest.fixture
def write(tmp_path):
    """A function that writes a recipe file."""

    def file(text: str = "", name: str = "recipe.toml", *, data: bool = True) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + ("\n" + MINIMAL if data else ""), encoding="utf-8")
        return path

    return file


# base, override, merge


def test_tables_merge_and_lists_are_replaced():
    """A recipe that names two ratios means two, not its base's nine and two more."""
    base = {"subset": {"ratios": [0.1, 0.5, 0.9], "members": 20}, "why": "base"}
    over = {"subset": {"ratios": [0.3]}, "seed": 1}
    assert merge(base, over) == {"subset": {"ratios": [0.3], "members": 20}, "why": "base", "seed": 1}


def test_merging_changes_neither_table():
    """A base that two recipes share must not learn from the first."""
    base, over = {"train": {"epochs": 1}}, {"train": {"epochs": 2}}
    merge(base, over)
    assert (base, over) == ({"train": {"epochs": 1}}, {"train": {"epochs": 2}})


def test_settings_belong_to_the_name_that_they_were_for():
    """An MLP's widths mean nothing to a ResNet; TOML has no way to take a key away."""
    base = {"name": "mlp", "settings": {"widths": [3]}}
    assert merge(base, {"name": "resnet18_small"}) == {"name": "resnet18_small"}


def test_settings_stay_with_the_same_name():
    """A recipe may repeat its base's name for the reader."""
    base = {"name": "mlp", "settings": {"widths": [3]}}
    assert merge(base, {"name": "mlp", "settings": {"depth": 2}})["settings"] == {"widths": [3], "depth": 2}


def test_a_base_is_named_relative_to_the_file(write):
    """Recipes are started from anywhere."""
    write("[train]\nepochs = 7\nbatch_size = 5", "common/base.toml")
    recipe = load(write("base = '../common/base.toml'\n[train]\nepochs = 3", "mine/a.toml", data=False))
    assert (recipe.train.epochs, recipe.train.batch_size) == (3, 5)


def test_two_steps_of_base_are_allowed(write):
    """A data set's base, a network's base, a recipe."""
    write("seed = 1\n[train]\nepochs = 1", "a.toml")
    write("base = 'a.toml'\n[train]\nepochs = 2", "b.toml", data=False)
    recipe = load(write("base = 'b.toml'\n[train]\nepochs = 3", "c.toml", data=False))
    assert (recipe.seed, recipe.train.epochs) == (1, 3)


def test_a_third_step_is_refused(write):
    """Nobody can say any more what runs."""
    write("seed = 1", "a.toml")
    for name, base in (("b", "a"), ("c", "b")):
        write(f"base = '{base}.toml'", f"{name}.toml", data=False)
    with pytest.raises(RecipeError, match="third step"):
        load(write("base = 'c.toml'", "d.toml", data=False))


def test_a_circle_of_bases_ends(write):
    """A recipe that is its own base must be refused, not read for ever."""
    with pytest.raises(RecipeError, match="third step"):
        load(write("base = 'a.toml'", "a.toml", data=False))


def test_a_missing_base_says_who_asked_for_it(write):
    """The user named another file."""
    with pytest.raises(RecipeError, match=r"gone\.toml: cannot be read .* names it as its base"):
        load(write("base = 'gone.toml'", data=False))


@pytest.mark.parametrize("name", [3, "['a', 'b']"])
def test_a_base_is_one_path(write, name):
    """Two bases would need an order, and a rule for it."""
    with pytest.raises(RecipeError, match="base must be one path"):
        load(write(f"base = {name}"))


# what is refused, and how


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("optimiser.lr=1", "'optimiser'; did you mean 'optimizer'"),
        ("sed=1", "'sed'; did you mean 'seed'"),
        ("data.nme=1", "'data.nme'; did you mean 'name'"),
        ("subset.ratio=1", "'subset.ratio'; did you mean 'ratios'"),
        ("model.setting=1", "'model.setting'; did you mean 'settings'"),
        ("optimizer.learning=1", "there are beta2, eps, lr"),
        ("schedule.milestone=1", "did you mean 'milestones'"),
        ("train.epoch=1", "did you mean 'epochs'"),
        ("single.repeat=1", "did you mean 'repeats'"),
        ("single.train.epochz=1", "'single.train.epochz'; did you mean 'epochs'"),
        ("single.model.nme=1", "'single.model.nme'; did you mean 'name'"),
        ("single.optimizer.momentun=1", "did you mean 'momentum'"),
        ("single.schedule.fctor=1", "did you mean 'factor'"),
        ("runtime.devise=1", "did you mean 'device'"),
    ],
)
def test_an_unknown_key_names_the_nearest(write, override, hint):
    """A key that is silently ignored costs a night; one that is refused without a hint costs a search."""
    with pytest.raises(RecipeError, match=hint):
        load(write(), [override])


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=true", "seed: must be a whole number, got True"),
        ("seed=1.0", "seed: must be a whole number"),
        ("seed=-1", "seed: must be greater than or equal to 0"),
        ("train.epochs=0", "train.epochs: must be greater than or equal to 1"),
        ("train.flip=1", "train.flip: must be true or false"),
        ("optimizer.lr='0.1'", "optimizer.lr: must be a number, got '0.1'"),
        ("optimizer.lr=true", "optimizer.lr: must be a number"),
        ("optimizer.lr=0", "optimizer.lr: must be greater than 0"),
        ("optimizer.lr=nan", "optimizer.lr: must be "),
        ("optimizer.lr=inf", "optimizer.lr: must be a finite number"),
        ("optimizer.momentum=1", "optimizer.momentum: must be less than 1"),
        ("optimizer.name=adamw", "optimizer.name: must be 'sgd', 'adam', 'adamax' or 'adagrad', got 'adamw'"),
        ("optimizer=3", "optimizer: must be a table"),
        ("data.classes=[9]", "data.classes.0: must be text"),
        ("data.name=npz", "data: name = 'npz' needs the place of its files: root ="),
        ("data.columns.label=y", "columns are of csv and parquet tables; 'digits' has none"),
        ("subset.ratios=0.5", "subset.ratios: must be a list"),
        ("subset.ratios=[0.5, 0.1]", "the ratios must rise"),
        ("subset.ratios=[]", "the ratios must rise"),
        ("subset.ratios=[1.0]", "subset.ratios.0: must be less than 1"),
        ("subset.ratios=[0.125]", "a whole percentage"),
        ("subset.members=1", "subset.members: must be greater than or equal to 2"),
        ("schedule.name=step", "a step schedule needs milestones"),
        ("schedule.milestones=[9, 3]", "milestones must rise"),
        ("single.schedule.name=step", "single.schedule: a step schedule needs milestones"),
        ("single.train.epochs=true", "single.train.epochs: must be a whole number"),
        ("single.train=3", "single.train: must be a table"),
        ("schedule.name=ramp", "a ramp schedule needs milestones"),
        ("schedule={unit='share', milestones=[0.3, 1.5]}", "shares of the training lie between 0 and 1"),
        ("schedule={unit='steps', milestones=[0.3]}", "milestones in steps must be whole numbers; unit = 'share'"),
        ("train.batch_size=-1", "train.batch_size: must be greater than or equal to 0"),
        ("train.steps=0", "train.steps: must be greater than or equal to 1"),
        ("train.loss=mse", "train.loss: must be 'cross_entropy' or 'zero_hinge'"),
        ("train.input_dropout=1", "train.input_dropout: must be less than 1"),
        ("noise.labels=symmetric", "noise: labels = 'symmetric' needs the share"),
        ("noise.share=0.4", "noise: share = 0.4 goes with labels = 'symmetric', 'asymmetric' or 'instance'"),
        ("noise={labels='human', share=0.4}", "share = 0.4 goes with"),
        ("noise={labels='human', file='x.npz'}", "labels = 'human' needs file = 'labels.npz' and column"),
        ("noise={labels='asymmetric', share=1.5}", "noise.share: must be less than or equal to 1"),
        ("runtime.device=tpu", "runtime.device: must be auto, cpu, cuda"),
        ("model.settings.widths=[[3]]", "model.settings.widths: must be a number, text"),
        ("proxies.cbtl.x=[3]", "proxies.cbtl.x: must be a number, text"),
        ("proxies=['cbtl']", "proxies: must be a table"),
        ("kind=all", "kind: must be 'study', 'ensemble' or 'single'"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(write, override, line):
    """Key, what it must be, what was given; nothing is converted in silence: true is not 1."""
    with pytest.raises(RecipeError, match=line) as caught:
        load(write(), [override])
    assert "\n" not in str(caught.value)
    assert "recipe.toml" in str(caught.value)


def test_an_empty_recipe_says_what_it_needs(write):
    """The one thing without a default."""
    with pytest.raises(RecipeError, match=r"data is missing; say which examples: \[data\]"):
        load(write(data=False))


@pytest.mark.parametrize(
    ("content", "line"), [(b"\x80\xff", "not valid TOML"), (b"a = = 3", "not valid TOML"), (None, "cannot be read")]
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, content, line):
    """A binary file, a misspelt one, a folder."""
    path = tmp_path / "x.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(RecipeError, match=line):
        load(path)


# --set


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimizer.lr=0.05", ("optimizer", "lr", 0.05)),
        ("optimizer.lr = 5e-2 ", ("optimizer", "lr", 0.05)),
        ("optimizer.lr=1", ("optimizer", "lr", 1.0)),
        ("optimizer.name=adam", ("optimizer", "name", "adam")),
        ("optimizer.name='adam'", ("optimizer", "name", "adam")),
        ('optimizer.name="adam"', ("optimizer", "name", "adam")),
        ("train.flip=true", ("train", "flip", True)),
        ("subset.ratios=[0.2, 0.4]", ("subset", "ratios", (0.2, 0.4))),
        ('data.classes=["a b", "c"]', ("data", "classes", ("a b", "c"))),
        ("data.root=/some/folder with blanks=x", ("data", "root", "/some/folder with blanks=x")),
        ("model.settings={widths = [3]}", ("model", "settings", {"widths": (3,)})),
        ("train={epochs = 3}", ("train", "epochs", 3)),
    ],
)
def test_overrides_are_written_as_in_the_file_or_without_quotes(write, override, value):
    """The shell eats quotes; a path or a name needs none."""
    section, key, expected = value
    assert getattr(getattr(load(write(), [override]), section), key) == expected


def test_the_last_override_wins(write):
    """A command line is edited at its end."""
    assert load(write(), ["seed=1", "seed=2"]).seed == 2


def test_overrides_of_name_and_settings_may_come_in_any_order(write):
    """The settings are those of the network that is named beside them."""
    words = ["model.settings.drop_rate=0.5", "model.name=resnet18"]
    one, two = (load(write(), order).model for order in (words, words[::-1]))
    assert one == two
    assert one.settings == {"drop_rate": 0.5}


@pytest.mark.parametrize("override", ["lr", "=3", "", " =1"])
def test_an_override_without_name_or_value_is_refused(write, override):
    """`--set lr 0.1` is a common slip."""
    with pytest.raises(RecipeError, match="write it as name=value"):
        load(write(), [override])


def test_a_recipe_cannot_be_changed():
    """What was logged is what runs."""
    with pytest.raises(ValueError, match="frozen"):
        toy_recipe().seed = 3


# dump, flatten


def odd_recipe() -> Recipe:
    """Every kind of value away from its default, text with quotes and other letters."""
    tables = {
        "why": 'line one\nline "two" — ü',
        "data": {"name": "folder", "label": "mine", "root": "C:\\x", "classes": ["a", "b"], "size": 8, "channels": 3},
        "subset": {"ratios": [0.07, 0.5], "members": 100, "design": "uniform"},
        "model": {"name": "resnet18", "settings": {"drop_rate": 1e-5, "act_layer": "gelu", "x": True, "y": [1, 2]}},
        "optimizer": {"name": "adam", "lr": 1e-300, "eps": 1e-12},
        "schedule": {"name": "step", "milestones": [1, 2], "factor": 0.1},
        "single": {"repeats": 3, "train": {"epochs": 2}, "model": {"name": "mlp", "settings": {"widths": [3]}}},
        "proxies": {"cbtl": {}, "kernel_density_input_relative": {}},
        "runtime": {"device": "cuda:1", "precision": "bfloat16"},
    }
    return parse(tables, "odd")


EXAMPLES = {file.stem + "-" + file.parent.name: load(file) for file in SHIPPED} | {
    "toy": toy_recipe("study"),
    "odd": odd_recipe(),
}


@pytest.mark.parametrize("kind", ["study", "ensemble", "single"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_dumped_recipe_reads_back_to_itself(tmp_path, name, kind):
    """recipe.toml of a run is what makes the run again, years later."""
    recipe = EXAMPLES[name] if kind == "study" else EXAMPLES[name].part(kind)
    path = tmp_path / "recipe.toml"
    path.write_text(dump(recipe), encoding="utf-8")
    assert load(path) == recipe
    assert load(path).digest() == recipe.digest()


@pytest.mark.parametrize("kind", ["ensemble", "single"])
def test_all_runs_of_a_kind_have_the_same_parameters(kind):
    """Only then does `show diff only` show what differs, and no column of the runs table is blank."""
    keys = {
        frozenset(key for key in flatten(recipe.part(kind)) if not key.startswith("model.settings."))
        for recipe in EXAMPLES.values()
    }
    assert len(keys) == 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_parameters_are_text_without_blanks(name):
    """MLflow keeps text; an empty cell reads as `not logged`."""
    for key, value in flatten(EXAMPLES[name].part("ensemble")).items():
        assert isinstance(value, str), key
        assert value, key


def test_parameters_say_the_value_that_runs():
    """The single run's own epochs, not the ensemble's."""
    recipe = toy_recipe("study", single={"train": {"epochs": 9}})
    assert (flatten(recipe.part("ensemble"))["train.epochs"], flatten(recipe.part("single"))["train.epochs"]) == (
        "3",
        "9",
    )
