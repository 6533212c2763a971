"""The recipes that come with the project: they can run, and say what they are for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loops import Member, fit

from study.data import Dataset
from study.errors import RecipeError
from study.models.catalog import networks_markdown
from study.recipe import Recipe, load
from study.recipe.catalog import catalog, catalog_markdown, read_header
from study.recipe.load import recipe_files
from study.training.placement import Placement
from study.workflows.preflight import SHAPES, check_names

ROOT = Path(__file__).parents[1] / "recipes"
FILES = [
    file for file in recipe_files([ROOT]) if not file.stem.endswith("_best")
]  # what a search has written is its user's
PAPERS = (
    "J-tab2",
    "J-speed-recipe",
    "J-tab3",
    "Z-recipe",
    "Z-tab2",
    "Z-fig11",
    "B-tab1",
    "B-hinge",
    "B-search",
    "A-reg",
)
EXACT = Placement("cpu", "float32", "highest", threads=1, cores=1, stack=1)


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def handful(recipe: Recipe, n: int = 4) -> Dataset:
    """A few made-up images of the shape that the recipe's data have."""
    (channels, *size), n_classes = SHAPES.get(recipe.data.name, ((3, 32, 32), 2))
    side = [recipe.data.size] * 2 if recipe.data.size else size
    n_classes = len(recipe.data.classes) if recipe.data.classes else n_classes
    images = np.random.default_rng(0).integers(0, 256, (n, recipe.data.channels or channels, *side), dtype=np.uint8)
    ids = np.array([f"train/{row}" for row in range(n)])
    classes = tuple(f"class {label}" for label in range(n_classes))
    return Dataset("handful", images, np.arange(n) % n_classes, ids, n, classes, 255.0, (), "handful")


def one_step(part: Recipe) -> Recipe:
    """The same training, of a single update on two examples."""
    small = part.train.model_copy(update={"steps": 1, "batch_size": 2})
    return part.model_copy(update={"train": small})


def test_the_walk_sees_the_whole_shelf():
    """A loop over nothing passes."""
    assert len(FILES) >= 45


TRAINED = set()  # what `test_every_recipe_trains_a_step` has trained


def code_path(part: Recipe) -> str:
    """What decides which code a step runs: all but the sizes of rates, and where the data lie."""
    optimizer = {name: bool(value) for name, value in part.optimizer.model_dump(exclude={"name"}).items()}
    shape = handful(part).shape, part.data.classes is None
    return repr((part.model, part.optimizer.name, optimizer, part.schedule.name, part.train, shape))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_recipe_trains_a_step(file):
    """What `study check` says of shapes must hold for losses, optimizers, schedules and augmentation too.

    Recipes that run the same code are trained once.
    """
    recipe = load(file)
    check_names(recipe)
    dataset = handful(recipe)
    for kind in ("ensemble", "single"):
        part = one_step(recipe.part(kind))
        if recipe.kind not in ("study", kind) or code_path(part) in TRAINED:
            continue
        TRAINED.add(code_path(part))
        (outcome,) = fit([Member(("step",), np.arange(2))], dataset, part, EXACT)
        assert np.isfinite(outcome.losses).all()
        assert len(outcome.losses) == 1


def test_every_row_of_the_papers_has_its_recipe():
    """Who reads a paper and looks for one of its trainings finds it by its id."""
    claims = " ".join(title.claim for title in catalog([ROOT]))
    assert [name for name in PAPERS if name not in claims] == []
    assert sum("B-tab1" in title.claim for title in catalog([ROOT])) == 14
    assert sum("B-hinge" in title.claim for title in catalog([ROOT])) == 6
    assert sum("J-tab3" in title.claim for title in catalog([ROOT])) >= 5
    assert sum("J-tab2" in title.claim for title in catalog([ROOT])) >= 4


def test_table_1_of_baldock_et_al_is_taken_over_whole():
    """Rates, momenta and steps, row by row as the paper prints them."""
    rows = {
        "svhn_resnet18": (4e-2, 0.95, [7000]),
        "svhn_vgg16": (4e-2, 0.9, [3000, 6000, 1000]),
        "svhn_mlp": (4e-2, 0.9, [2500, 5500, 2000]),
        "fashion-mnist_resnet18": (1e-2, 0.95, [4000, 3000]),
        "fashion-mnist_vgg16": (1e-2, 0.95, [3000, 6000, 1000]),
        "fashion-mnist_mlp": (4e-2, 0.5, [10000, 2500]),
        "cifar10_resnet18": (4e-2, 0.95, [7000]),
        "cifar10_vgg16": (4e-2, 0.9, [5000, 1000]),
        "cifar10_mlp": (2e-2, 0.9, [5000, 1250, 1000]),
        "cifar10-noise40_vgg16": (4e-2, 0.9, [5000, 10000]),
        "cifar10-noise40_mlp": (2e-2, 0.9, [12000, 1250, 4000]),
        "cifar100_resnet18": (1e-1, 0.95, [6000]),
        "cifar100_vgg16": (4e-2, 0.9, [2500, 7500]),
        "cifar100_mlp": (1e-1, 0.95, [2500, 6000, 1500]),
    }
    for name, (lr, momentum, steps) in rows.items():
        recipe = load(ROOT / "baldock" / f"{name}.toml")
        edges = [*recipe.schedule.milestones, recipe.train.steps]
        assert (recipe.optimizer.lr, recipe.optimizer.momentum) == (lr, momentum), name
        assert np.diff([0, *edges]).tolist() == steps, name
        assert (recipe.train.batch_size, recipe.optimizer.weight_decay) == (256, 0), name


def test_no_recipe_repeats_its_base():
    """A value that is said twice is changed once."""
    import tomllib

    for file in FILES:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        if "base" not in table:
            continue
        base = load_table(file.parent / table["base"])
        repeated = [name for name, value in leaves(table) if dict(leaves(base)).get(name, ...) == value]
        assert repeated == [], file


def load_table(path: Path) -> dict:
    """A recipe's table with its bases merged in, not yet checked."""
    import tomllib

    from study.recipe import merge

    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return merge(load_table(path.parent / table.pop("base")), table) if "base" in table else table


def leaves(table: dict, prefix: str = "") -> list[tuple[str, object]]:
    """Dotted names and values."""
    settings = []
    for key, value in table.items():
        settings += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + key, value)]
    return settings


def test_the_readme_of_the_recipes_is_current():
    """`study recipes --markdown` makes the table; whoever adds a recipe pastes it."""
    assert catalog_markdown(ROOT).strip() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_networks_is_current():
    """`study networks --markdown` makes it; a parameter count that lags is a wrong one."""
    assert networks_markdown().strip() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_recipe_without_a_title_page_is_named(tmp_path):
    """The label on the jar."""
    (tmp_path / "bare.toml").write_text("# A claim.\n# cost: nothing\n[data]\nname = 'digits'\n")
    with pytest.raises(RecipeError, match=r"bare\.toml: its first comment lines do not say its run"):
        read_header(tmp_path / "bare.toml")


def test_a_title_page_may_take_more_lines(tmp_path):
    """A claim that needs two lines is one claim."""
    (tmp_path / "long.toml").write_text("# A claim\n#   on two lines.\n# cost: little\n# run:  study run x\nseed = 1\n")
    title = read_header(tmp_path / "long.toml")
    assert (title.claim, title.cost, title.run) == ("A claim on two lines.", "little", "study run x")


def test_the_handful_has_the_shape_that_the_check_knows():
    """The walk above would prove little with images of another shape."""
    assert handful(load(ROOT / "mnist" / "paper.toml")).shape == (1, 28, 28)
    assert replace(handful(load(ROOT / "imagenet" / "paper.toml"))).shape == (3, 224, 224)
