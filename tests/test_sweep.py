"""A sweep is its cells, each trained as a recipe of its own."""

import itertools
import tomllib

import pytest

from study.errors import RecipeError
from study.experiments import sweep as sweeps
from study.experiments.cells import cells
from study.experiments.sweep import run_sweep
from study.recipe import Recipe, dump, parse
from study.runs.single import run_singles
from study.workflows import plan
from study.workflows.preflight import check_all, check_data
from tests.toys import blobs, toy_recipe

pytest_plugins = ["tests.tracking_fixtures"]

RATES = [0.1, 0.02]
WIDTHS = [[8], [16, 8]]


def swept(kind: str = "single", **table: object) -> Recipe:
    """A toy recipe with a sweep over rates unless told otherwise."""
    table = table or {"optimizer": {"lr": RATES}}
    base = toy_recipe("study", proxies={"cbtl": {}})
    return parse({**base.model_dump(), "kind": kind, "sweep": table}, "toy sweep")


def test_cells_are_the_product():
    """The first name is the slowest, as in nested loops."""
    recipe = swept(optimizer={"lr": RATES}, model={"settings": {"widths": WIDTHS}})
    loop = [(lr, tuple(widths)) for lr, widths in itertools.product(RATES, WIDTHS)]
    assert [(cell.recipe.optimizer.lr, cell.recipe.model.settings["widths"]) for cell in cells(recipe)] == loop
    assert not any(cell.recipe.sweep.values for cell in cells(recipe))


@pytest.mark.parametrize(
    ("excluded", "left"),
    [
        ({"optimizer.lr": 0.1}, 2),
        ({"optimizer.lr": [0.1, 0.02], "model.settings.widths": [8]}, 2),
        ({"optimizer.lr": 0.1, "model.settings.widths": [16, 8]}, 3),
    ],
)
def test_exclusions_leave_cells_out(excluded, left):
    """One value, one of several, a value that is a list itself."""
    recipe = swept(optimizer={"lr": RATES}, model={"settings": {"widths": WIDTHS}}, exclude=[excluded])
    assert len(cells(recipe)) == left


def test_repeats_are_single_runs_or_seeds():
    """An ensemble has no repeats; another seed draws other subsets and weights."""
    (cell,) = cells(swept(optimizer={"lr": [0.1]}, repeats=3))
    assert cell.recipe.single.repeats == 3
    ensembles = cells(swept("ensemble", optimizer={"lr": [0.1]}, repeats=3))
    assert [cell.recipe.seed for cell in ensembles] == [0, 1, 2]


def test_a_swept_recipe_is_read_back_as_it_was():
    """recipe.toml of the sweep's run does it all again."""
    recipe = swept(optimizer={"lr": RATES}, noise=[{}, {"labels": "symmetric", "share": 0.4}], repeats=2)
    assert parse(tomllib.loads(dump(recipe)), "dumped") == recipe


def test_a_sweep_changes_no_digest():
    """A cell is the training of the recipe that says the same by itself."""
    cell = cells(swept())[1].recipe
    alone = swept().model_copy(update={"optimizer": swept().optimizer.model_copy(update={"lr": 0.02})})
    assert cell.part("single").digest() == alone.part("single").digest()


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("optimizer.lrr = [1.0]", "unknown key 'optimizer.lrr'; did you mean 'lr'?"),
        ("optimizer.lr = [0.1, -1.0]", "cell optimizer.lr = -1.0: optimizer.lr"),
        ("optimizer.lr = 0.1", "give a list"),
        ("optimizer.lr = [0.1, 0.1]", "must not repeat"),
        ("runtime.threads = [1, 2]", "does not change what is trained"),
        ("model.name = ['mlp', 'mpl']", "did you mean 'mlp'"),
        ("optimizer.lr = [0.1, 0.2]\nexclude = [{ optimizer.lr = 0.3 }]", "no combination has"),
        ("optimizer.lr = [0.1, 0.2]\nexclude = [{ optimizer.lr = [0.1, 0.2] }]", "leaves no cell"),
        (
            f"seed = {list(range(200))}\nsubset.members = {list(range(2, 202))}",
            "40,000 combinations are more than 10,000",
        ),
        ("optimizer = [{ lr = 0.1 }]\n'optimizer.lr' = [0.1]", "are both varied"),
    ],
)
def test_a_wrong_cell_is_one_line(tmp_path, table, line):
    """`study check` reads every cell, and names the one at fault."""
    file = tmp_path / "a.toml"
    file.write_text(f"kind = 'single'\n[data]\nname = 'digits'\n[sweep]\n{table}\n")
    ((_, fault),) = check_all([file])
    assert line in fault
    assert "\n" not in fault


def test_cells_that_are_one_training_are_refused():
    """The rate of the single run overrides the varied one, so it would be compared with itself."""
    recipe = swept()
    single = recipe.single.model_copy(update={"optimizer": {"lr": 0.5}})
    with pytest.raises(RecipeError, match="the same training"):
        cells(recipe.model_copy(update={"single": single}))


def test_a_wrong_cell_fails_before_any_training(store):
    """An hour of training must not end with a misspelt last cell."""
    recipe = swept("ensemble", subset={"ratios": [[0.5], [0.01]]})
    with pytest.raises(RecipeError, match=r"cell subset.ratios = \[0.01\]: .*leaves nothing"):
        run_sweep(recipe, store, dataset=blobs(30, 6), check=check_data)
    assert store.find() == []


def test_a_sweep_trains_what_a_loop_over_recipes_trains(stores):
    """And it takes the cell that was trained alone before, without training it again."""
    dataset, ours, loop = blobs(), stores(), stores()
    recipe = swept()
    alone = [cell.recipe for cell in cells(recipe)]
    expected = [run_singles(each, dataset, loop)[0].read_table("scores.parquet") for each in alone]
    before = run_singles(alone[1], dataset, ours)[0]
    sweep = run_sweep(recipe, ours, dataset=dataset)
    table = sweep.read_table("cells.parquet")
    assert table["optimizer.lr"].tolist() == ["0.1", "0.02"]
    assert table["run"][1] == before.id
    for run_id, scores in zip(table["run"], expected, strict=True):
        assert ours.get(run_id).read_table("scores.parquet").equals(scores)
    children = ours.find("single", parent=sweep)
    digest = sweep.tags["study.sweep"]
    assert sorted(int(run.tags[f"study.sweep.{digest}"]) for run in children) == [0, 1]
    assert all(run.params["optimizer.momentum"] == "0.9" for run in children)


def test_a_killed_sweep_goes_on_with_the_next_cell(store, monkeypatch):
    """What was finished stays the same run; the sweep's run is taken up again."""
    recipe, dataset, whole = swept(), blobs(), sweeps.train_parts

    def second_dies(cell, *words, **settings):
        if cell.optimizer.lr == RATES[1]:
            raise KeyboardInterrupt
        return whole(cell, *words, **settings)

    monkeypatch.setattr(sweeps, "train_parts", second_dies)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(recipe, store, dataset=dataset)
    (first,) = store.find("single")
    monkeypatch.setattr(sweeps, "train_parts", whole)
    sweep = run_sweep(recipe, store, dataset=dataset)
    assert [run.id for run in store.find("sweep")] == [sweep.id]
    assert first.id in set(sweep.read_table("cells.parquet")["run"])
    assert len(store.find("single")) == 2


def test_a_cell_that_diverges_does_not_stop_the_others(store):
    """The highest rate of a grid often does."""
    recipe = swept(optimizer={"lr": [1e30, 0.02]})
    with pytest.raises(Exception, match="1 of 2 cells failed"):
        run_sweep(recipe, store, dataset=blobs())
    assert len(store.find("single", status="FINISHED")) == 1


def test_a_plan_counts_a_shared_ensemble_once(store, monkeypatch):
    """Cells that vary the single runs alone have one ensemble."""
    recipe = swept("study", single={"optimizer": {"lr": RATES}})
    monkeypatch.setattr(plan, "CellData", lambda: lambda recipe: blobs())
    costs = plan.plan_sweep(recipe, store)
    assert costs["ensemble"].networks == 8
    assert costs["single"].networks == 2
