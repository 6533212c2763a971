"""The verbs as a user types them: what goes to stdout, what to stderr, with which exit code."""

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from toys import blobs, two_figures

from study import progress
from study.cli import main as cli
from study.cli import tables
from study.cli.main import app, main
from study.recipe.load import find_recipe
from study.report import build
from study.tracking import Store, open_store, sqlite_store
from study.tracking.ui import copied
from study.workflows import preflight

pytest_plugins = ["tests.tracking_fixtures"]

REPOSITORY = Path(__file__).parents[1]
TINY = """
why = "A toy."
[data]
name = "npz"
train = "toy.npz"
[subset]
ratios = [0.3, 0.6]
members = 4
design = "uniform"
[model]
name = "mlp"
settings = { widths = [6] }
[train]
epochs = 3
batch_size = 16
[runtime]
device = "cpu"
precision = "float32"
"""
VERBS = [command.name or command.callback.__name__ for command in app.registered_commands]


@pytest.fixture
def place(tmp_path, monkeypatch, template) -> Path:
    """A working directory with a tiny recipe, its data, and an empty store."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = np.clip(60 * labels[:, None, None] + 40 + rng.normal(0, 40, (90, 6, 6)), 0, 255).astype(np.uint8)
    split = {"x_train": images[:60], "y_train": labels[:60], "x_test": images[60:], "y_test": labels[60:]}
    np.savez(tmp_path / "toy.npz", **split)
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(template.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STUDY_ROOT", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def study(place, capsys, monkeypatch, few_figures):
    """A function that runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["study", *map(str, words)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            out, err = capsys.readouterr()
            return end.code or 0, out, err
        raise AssertionError("typer ends with SystemExit")

    return run


@pytest.fixture(scope="module")
def finished(template, tmp_path_factory) -> Path:
    """The root of a store with a whole study in it."""
    from study import data, recipe, tracking
    from study.workflows import study as launch

    folder = tmp_path_factory.mktemp("finished")
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = np.clip(60 * labels[:, None, None] + 40 + rng.normal(0, 40, (90, 6, 6)), 0, 255).astype(np.uint8)
    np.savez(folder / "toy.npz", x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])
    (folder / "tiny.toml").write_text(TINY)
    (folder / "mlruns").mkdir()
    (folder / "mlruns" / "mlflow.db").write_bytes(template.read_bytes())
    loaded = recipe.load(folder / "tiny.toml", [f"data.train={folder / 'toy.npz'}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "figure_sections", two_figures)
        launch.run_study(loaded, data.load(loaded.data), tracking.open_store(folder / "mlruns"))
    return folder / "mlruns"


def fault(result: tuple[int, str, str]) -> str:
    """The one line of a fault that the user can mend."""
    code, out, err = result
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("study: ")
    return lines[0].removeprefix("study: ")


# help


def test_every_verb_is_in_the_help(study):
    """A verb that help does not show is never found."""
    code, out, _ = study("--help")
    assert code == 0
    assert len(VERBS) >= 12
    for verb in VERBS:
        assert re.search(rf"^  {verb} +[A-Z]", out, re.MULTILINE)


def test_no_line_of_the_overview_is_cut_off(study):
    """`Say what a study will cost: networks, FL...` helps nobody."""
    _, out, _ = study("--help")
    assert "..." not in out.replace("COMMAND [ARGS]...", "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(study, verb):
    """Usage, a sentence, each option."""
    code, out, _ = study(verb, "-h")
    assert code == 0
    assert f"study {verb}" in out
    assert len(out.splitlines()) > 4


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("run", "--nonsense"), ("run", "a.toml", "b.toml"), ("show",), ("ui", "--port", "x")],
)
def test_a_wrong_command_line_is_exit_code_2(study, words):
    """As of every Unix program; click says on stderr what is wrong."""
    code, out, err = study(*words)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_a_port_is_a_port(study):
    """65536 and above are none."""
    assert study("ui", "--port", "70000")[0] == 2


# a whole study


def test_run_ends_with_the_report_and_how_to_look(study, place):
    """The first result, without opening anything; the last lines are where a user goes on."""
    code, out, err = study("run", "tiny.toml")
    assert code == 0
    assert re.search(r"^ cbtl +[+-]\d\.\d{3}", out, re.MULTILINE)
    lines = out.splitlines()
    report = next(line for line in lines if line.startswith("report: ")).removeprefix("report: ")
    assert Path(report).read_text(encoding="utf-8").startswith("<!")
    assert lines[-1].startswith("MLflow UI: study ui")
    assert any("ensemble: 8 networks of 8 to train" in line for line in err.splitlines())


def test_data_names_every_image_of_a_set_that_is_refused(study, place):
    """The message says that it does."""
    for name in ("a", "b"):
        (place / "photos" / name).mkdir(parents=True)
        for number in range(4):
            (place / "photos" / name / f"{number}.png").write_bytes(b"broken")
    code, out, err = study("data", "tiny.toml", "--set", "data.name=folder", "--set", "data.train=photos")
    assert code == 2
    assert [line.split(":")[0].split("photos/")[-1] for line in out.splitlines()] == [
        f"{name}/{number}.png" for name in ("a", "b") for number in range(4)
    ]
    assert "lists them all" in err.splitlines()[-1]


def test_the_same_command_again_trains_nothing(study, finished):
    """Resume is the same command."""
    same = ("run", "tiny.toml", "--root", finished, "--set", f"data.train={finished.parent / 'toy.npz'}")
    code, _, err = study(*same)
    assert code == 0
    assert err.count("finished before") == 3


def test_the_parts_can_be_run_alone(study, place):
    """Ensemble, single runs, report: each a verb of its own."""
    assert "toy" not in study("list")[1]
    for verb, experiment in (("ensemble", "npz/ensemble"), ("single", "npz/single"), ("report", "npz/report")):
        code, out, _ = study(verb, "tiny.toml")
        assert code == 0
        assert experiment in out


def test_a_report_without_runs_says_what_to_do(study):
    """The order of the verbs is not in everybody's head."""
    assert "study" in fault(study("report", "tiny.toml"))


def test_a_single_run_needs_no_balanced_blocks(study):
    """The checks are those of what is to be run."""
    code, _, _ = study("single", "tiny.toml", "--set", "subset.design=balanced", "--set", "subset.members=7")
    assert code == 0


# looking


def test_an_empty_store_says_how_runs_come_about(study):
    """The first `study list` of every user."""
    code, out, _ = study("list")
    assert code == 0
    assert "no runs yet; `study run` makes some" in out


def test_list_shows_runs_and_no_shards(study, finished):
    """Shards are parts; forty lines of them hide the four runs."""
    code, out, err = study("list", "--root", finished)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["npz/report", "npz/single", "npz/ensemble"]
    assert "study show" in err


def test_list_shows_shards_when_asked(study, finished):
    """Two ratios, one shard each."""
    _, out, _ = study("list", "--kind", "shard", "--root", finished)
    assert out.count("held-out accuracy") == 2


def test_an_unknown_kind_names_those_there_are(study):
    """A typo must not look like an empty store."""
    assert "ensemble, single, recorded, search, sweep, report, reference, shard, trial" in fault(
        study("list", "--kind", "ensembel")
    )


@pytest.mark.parametrize("kind", ["ensemble", "single", "report", "shard"])
def test_show_takes_the_first_letters_of_an_id(study, finished, kind):
    """Eight letters as `study list` shows them."""
    run = stored(finished).find(kind)[0]
    code, out, _ = study("show", run.id[:8], "--root", finished)
    assert code == 0
    assert run.id in out
    assert "train.epochs = 3" in out


def test_show_gives_a_report_as_a_table(study, finished):
    """Seventy lines of metrics are no answer to `which proxy is best?`."""
    run = stored(finished).find("report")[0]
    _, out, _ = study("show", run.id, "--root", finished)
    assert "rank/spearman" not in out
    values = [float(value) for value in re.findall(r"^ \w+ +([+-]\d\.\d{3})", out, re.MULTILINE)]
    assert len(values) >= 10
    assert "report.html" in out


def stored(root: Path) -> Store:
    """The store, opened beside the command."""
    from study.tracking import open_store

    return open_store(root)


def test_letters_that_fit_several_runs_are_refused(study, finished):
    """No guess which one was meant."""
    assert "type more of it" in fault(study("show", "", "--root", finished))


def test_letters_that_fit_no_run_are_refused(study):
    """With the verb that shows the ids."""
    assert "`study list` shows the ids" in fault(study("show", "zz"))


def test_proxies_are_listed(study):
    """Direction and source of each."""
    code, out, _ = study("proxies")
    assert code == 0
    assert re.search(r"^ cbtl +learning speed +high", out, re.MULTILINE)


def test_networks_are_listed(study):
    """What `model.name` may be, beside timm's."""
    code, out, _ = study("networks")
    assert code == 0
    assert re.search(r"^ mlp ", out, re.MULTILINE)


def test_recipes_are_listed(study, place):
    """Name, claim and cost of each, from the title pages."""
    code, out, _ = study("recipes")
    assert code == 0
    assert re.search(r"digits/study\.toml +\S", out)


def test_the_league_ranks_the_proxies_of_finished_runs(study, finished):
    """Quality and cost without the page."""
    code, out, _ = study("leaderboard", "tiny.toml", "--root", finished)
    assert code == 0
    assert re.search(r"^ cbtl +", out, re.MULTILINE)


def test_a_league_without_runs_says_what_to_do(study, place):
    """One line; the runs come first."""
    assert "run `study" in fault(study("leaderboard", "tiny.toml"))


def test_the_help_of_a_search_names_its_options(study):
    """Where trials are kept, and where the winner goes."""
    code, out, _ = study("search", "--help")
    assert code == 0
    assert all(option in out for option in ("--trials", "--storage", "--out"))


def test_a_narrow_terminal_gets_fewer_columns_not_fragments(monkeypatch, finished):
    """80 columns are what many have; a name cut to three letters is no name."""
    wide = subprocess.run(
        [sys.executable, "-c", NARROW, str(finished)], capture_output=True, text=True, check=True
    ).stdout
    assert "cumulative_confidence" in wide
    assert "digest" not in wide
    assert max(len(line) for line in wide.splitlines()) <= 80


NARROW = """
import sys
from pathlib import Path
from rich.console import Console
from study.cli import tables
from study.tracking import open_store
tables.Console = lambda **kept: Console(force_terminal=True, color_system=None, width=80)
tables.runs_table(open_store(Path(sys.argv[1])), "")
tables.proxies_table()
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_names_from_data_are_shown_as_they_are(terminal, monkeypatch, capsys):
    """A class `[/b]` was markup that ended nothing, and broke every table; ESC reached the terminal."""
    names = ("[/b]", "[red]x", "a\x1b[2Jb")
    if terminal:
        monkeypatch.setattr(tables, "Console", partial(Console, force_terminal=True, color_system=None, width=120))
    tables.dataset_table(replace(blobs(), classes=names))
    out = capsys.readouterr().out
    for shown in ("[/b]", "[red]x", "a\\x1b[2Jb"):
        assert shown in out
    with progress._rich_bar("[/b] \x1b", 2, "examples", 0) as advance:
        advance(1, "[/b]")


def test_data_says_what_it_holds(study):
    """Counts of each class, before a night of training on them."""
    code, out, _ = study("data", "tiny.toml")
    assert code == 0
    assert "60 train, 30 test examples of 3 classes, 6 x 6 x 1" in out


def test_plan_says_the_cost_and_how_to_begin(study):
    """With the changes that were planned, quoted for the shell."""
    code, out, err = study("plan", "tiny.toml", "--set", "subset.ratios=[0.3, 0.9]")
    assert code == 0
    assert out.startswith("ensemble: 8 networks of 8 to train")
    assert "to begin: study run tiny.toml --set 'subset.ratios=[0.3, 0.9]'" in err


def test_check_gives_one_line_per_recipe(study, place):
    """And exit code 2 when one is at fault, for CI."""
    (place / "wrong.toml").write_text("[data]\nname = 'digits'\n[optimiser]\n")
    code, out, err = study("check", ".")
    assert code == 2
    assert out.splitlines()[0] == "ok    tiny.toml"
    assert out.splitlines()[1].startswith("FAULT wrong.toml: unknown key 'optimiser'; did you mean 'optimizer'?")
    assert err == "2 recipes, 1 at fault\n"


def test_a_fault_of_names_or_fit_says_in_which_recipe(study, place):
    """A folder of recipes was named."""
    (place / "wrong.toml").write_text("[data]\nname = 'digits'\n[proxies.cbtll]\n")
    assert "FAULT wrong.toml: unknown proxy 'cbtll'" in study("check", "wrong.toml")[1]


def test_the_default_recipes_are_found_from_anywhere(study, monkeypatch):
    """`scripts/run plan` works in any directory of the user.  That their networks fit is tested with the recipes."""
    monkeypatch.setattr(preflight, "_check_network", lambda recipe: None)
    assert study("check")[0] == 0
    assert not Path("recipes").exists()


def test_an_own_recipe_goes_before_the_shipped_one(study, place, monkeypatch):
    """What lies in the working directory is meant first."""
    copied = place / "recipes" / "digits" / "study.toml"
    copied.parent.mkdir(parents=True)
    copied.touch()
    assert find_recipe(cli.DEFAULT) == cli.DEFAULT


def test_the_store_of_the_checkout_is_used_when_the_script_says_so(study, finished, monkeypatch):
    """`scripts/run` sets STUDY_ROOT."""
    monkeypatch.setenv("STUDY_ROOT", str(finished))
    assert "npz/report" in study("list")[1]


# faults


@pytest.mark.parametrize("verb", ["run", "ensemble", "single", "report", "plan", "data"])
@pytest.mark.parametrize("name", ["missing.toml", "folder.toml", "binary.toml", "empty.toml"])
def test_a_recipe_that_is_none_is_named(study, place, verb, name):
    """Every verb that takes a recipe answers alike."""
    (place / "folder.toml").mkdir()
    (place / "binary.toml").write_bytes(bytes(range(256)))
    (place / "empty.toml").touch()
    assert fault(study(verb, name)).startswith(name)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 not a zip", {"a": np.zeros(3)}, {"x": np.zeros((4, 3, 3)), "y": np.zeros(3)}, None],
    ids=["empty", "broken", "other keys", "unequal", "folder"],
)
def test_data_that_is_none_is_named(study, place, content):
    """An npz file is what people make by hand, and get wrong."""
    (place / "toy.npz").unlink()
    if isinstance(content, dict):
        np.savez(place / "toy.npz", **content)
    elif content is None:
        (place / "toy.npz").mkdir()
    else:
        (place / "toy.npz").write_bytes(content)
    assert "toy.npz" in fault(study("plan", "tiny.toml"))


@pytest.mark.parametrize(
    "override",
    [
        "data.name=mnist2",
        "data.train=gone.npz",
        "data.classes=['7']",
        "data.name=folder",
        "data.name=parquet",
        "model.name=vgg11",
        "model.settings.widths=[0]",
        "model.settings.pretrained=true",
        "proxies.cbtll.x=1",
        "runtime.device=cuda:77",
        "train.epochs=1",
        "lr",
    ],
)
def test_what_cannot_run_is_one_line(study, override):
    """Each with its cure; a traceback is for our mistakes."""
    fault(study("run", "tiny.toml", "--set", override))


@pytest.mark.parametrize("root", ["/dev/null", "/proc/none", "tiny.toml"])
def test_a_root_that_cannot_be_is_named(study, root):
    """A file, a device, a read-only place."""
    assert "root" in fault(study("list", "--root", root)) or root == "/proc/none"


@pytest.mark.parametrize("name", ["gone.npz", "tiny.toml", "toy.npz", "binary.parquet", "empty.csv"])
def test_published_scores_that_are_none_are_named(study, place, name):
    """Missing, another format, other keys, damaged."""
    (place / "binary.parquet").write_bytes(bytes(range(256)))
    (place / "empty.csv").touch()
    assert name in fault(study("reference", name, "tiny.toml"))


def test_published_scores_are_kept(study, place):
    """Beside ours, for the next report."""
    labels = np.load(place / "toy.npz")["y_train"]
    np.savez(place / "scores.npz", labels=labels, scores=np.linspace(0, 1, len(labels)))
    code, out, _ = study("reference", "scores.npz", "tiny.toml")
    assert code == 0
    assert "npz/reference" in out


def test_a_taken_port_names_another(study):
    """A second `study ui`, or somebody else's server."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port + 1}" in fault(study("ui", "--port", str(port)))


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    """A line without a traceback for a bug would hide where it is."""

    def broken() -> None:
        raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError):
        main(broken)


# processes


def process(place: Path, *words: str) -> subprocess.Popen:
    """Start `study` in the folder."""
    script = "import sys; from study.cli.main import main; sys.argv[0] = 'study'; main()"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script, *words], cwd=place, env=environment, **pipes)


def test_a_reader_that_goes_away_is_no_traceback(place):
    """`study proxies | head -1`."""
    run = process(place, "proxies")
    run.stdout.close()
    run.wait(timeout=60)
    assert "Traceback" not in run.stderr.read()
    run.stderr.close()


# a store's files


@pytest.fixture
def store_copy(finished, tmp_path) -> Path:
    """A copy of the finished store."""
    return Path(shutil.copytree(finished, tmp_path / "own"))


def test_check_reads_all_files_of_all_runs(study, store_copy):
    """Damage is found by the analysis that needs the file, a year later."""
    code, out, err = study("check", "--store", "--root", store_copy)
    assert (code, out) == (0, "")
    assert re.fullmatch(r"\d+ runs, \d\d+ files, none missing or damaged\n", err)
    (suspects,) = store_copy.rglob("suspects.csv")
    suspects.write_text(suspects.read_text()[:-9])
    (suspects.parent / ".artifact.uploading.7.report.html").touch()
    code, out, err = study("check", "--store", "--root", store_copy)
    assert code == 2
    faulty, removed = out.splitlines()
    assert re.match(r"FAULT run .*: file suspects.csv is damaged at .*; run its recipe again", faulty)
    assert "uploading" in removed
    assert err.endswith("1 missing or damaged\n")


@pytest.mark.parametrize("name", ["recipe.toml", "correlations.parquet", "suspects.csv", "preview/cscore.csv"])
def test_run_mends_what_was_damaged(study, store_copy, finished, name):
    """No file is an outcome and cannot be trusted; networks are not trained again for it."""
    damaged = list(store_copy.rglob(name))
    assert damaged
    for file in damaged:
        file.write_bytes(b"damaged")
    recipe = finished.parent / "tiny.toml"
    words = ("--root", store_copy, "--set", f"data.train={finished.parent / 'toy.npz'}")
    code, _, err = study("run", recipe, *words)
    assert code == 0
    assert f"file {name} is damaged" in err
    assert "12 of 12" not in err
    assert study("check", "--store", "--root", store_copy)[1] == ""
    assert f"file {name} is damaged" not in study("run", recipe, *words)[2]


def test_a_read_only_store_can_be_read(study, store_copy, finished, tmp_path, monkeypatch):
    """A colleague's folder, a mounted archive."""
    monkeypatch.setattr(sqlite_store, "writable", lambda database: False)
    before = _times(store_copy)
    recipe = finished.parent / "tiny.toml"
    words = (recipe, "--root", store_copy, "--set", f"data.train={finished.parent / 'toy.npz'}")
    run = open_store(store_copy).find("single")[0]
    assert "ensemble" in study("list", "--root", store_copy)[1]
    assert run.id in study("show", run.id, "--root", store_copy)[1]
    assert "cbtl" in study("leaderboard", *words)[1]
    assert study("report", *words, "--out", tmp_path / "page")[0] == 0
    assert {"report.html", "suspects.csv", "figures"} <= {path.name for path in (tmp_path / "page").iterdir()}
    assert _times(store_copy) == before


def _times(folder: Path) -> dict[Path, int]:
    """When each file was written; SQLite's own index of shared memory is none that counts."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if not path.name.endswith("-shm")}


def test_the_page_of_a_read_only_store_is_served_from_a_copy(store_copy):
    """MLflow's server writes into every database that it opens."""
    store = open_store(store_copy)
    copy = copied(store, store.database)
    run = copy.find("single")[0]
    assert copy.database.parent != store_copy
    assert run.read("scores.parquet").is_relative_to(store_copy)
    assert copy.client.get_run(run.id).info.artifact_uri.startswith(store_copy.as_uri())
    shutil.rmtree(copy.database.parent)
