"""The package's order: what may import what, as the README's table of the layout lists it."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "study"
DOORS = {  # one library, one package that imports it
    "filelock": {"tracking"},
    "jinja2": {"report"},
    "lightning": {"recorder"},
    "matplotlib": {"figures", "report", "tracking"},
    "mlflow": {"tracking"},
    "optuna": {"search"},
    "PIL": {"data"},
    "pyarrow": {"data"},
    "pydantic": {"recipe"},
    "ray": {"runs"},
    "rich": {"progress", "cli"},
    "safetensors": {"training"},
    "sklearn": {"data", "experiments", "uses"},
    "sqlalchemy": {"tracking"},
    "submitit": {"workflows"},
    "timm": {"models"},
    "tomli_w": {"recipe"},
    "torch": {"data", "kernels", "models", "recorder", "signals", "training"},
    "torchvision": {"data"},
    "transformers": {"recorder"},
    "typer": {"cli"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layers() -> list[str]:
    """The first column of the README's layout table, from the top down: packages and modules right below study."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Layout\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name.strip("/").removesuffix(".py") for row in rows for name in re.findall(r"`([^`]+)`", row)]


LAYERS = layers()
HEIGHT = {name: len(LAYERS) - number for number, name in enumerate(LAYERS)}


def name_of(file: Path) -> str:
    """`study.data.noise` for study/data/noise.py, `study.data` for its `__init__`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(file) for file in MODULES}


def layer_of(module: str) -> str:
    """The module or package right below study; `__init__` for study itself."""
    return module.split(".")[1] if "." in module else "__init__"


@cache
def imported(file: Path, *, types: bool = True) -> set[str]:
    """Every module that a file imports, also inside functions and, when asked, for type checkers alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                modules.add(whole if whole in NAMES else node.module)
    return modules


def test_the_walk_sees_the_whole_package():
    """A loop over nothing passes."""
    assert len(MODULES) >= 100
    assert len(LAYERS) >= 15


def test_the_layout_table_lists_everything_once():
    """A new package says where it belongs, in the README's table, which is the one list."""
    assert sorted(LAYERS) == sorted({layer_of(name) for name in NAMES})


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_go_down(file):
    """Who reads a module must not have to read what uses it; nothing below the launchers knows that they exist."""
    here = layer_of(name_of(file))
    for module in imported(file):
        there = layer_of(module) if module in NAMES else here
        assert there == here or HEIGHT[there] < HEIGHT[here], f"{name_of(file)} imports {module}"


def test_no_module_imports_itself_round_about():
    """A cycle works until somebody imports its modules in another order; packages' `__init__` files are modules too."""
    graph = {name_of(file): imported(file, types=False) & NAMES - {name_of(file)} for file in MODULES}
    assert set(TopologicalSorter(graph).static_order()) == NAMES


@pytest.mark.parametrize("library", DOORS)
def test_one_library_has_one_door(library):
    """Who wonders what goes to MLflow, or which networks there are, has one place to read."""
    users = {
        layer_of(name_of(file)) for file in MODULES if library in {module.split(".")[0] for module in imported(file)}
    }
    assert users <= DOORS[library]


def modules_of(*words: str) -> set[str]:
    """The libraries that a command has imported when it ends."""
    script = (
        "import sys; sys.argv[1:] = sys.argv[1:]\n"
        "from study.cli.main import main\n"
        "try: main()\n"
        "finally: print('\\nLOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    return {name.split(".")[0] for name in done.stdout.rpartition("LOADED")[2].split()}


@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("list", "--help")])
def test_help_is_cheap(words):
    """torch and mlflow take five seconds to import; nobody waits so long for a line of help."""
    loaded = modules_of(*words)
    assert "typer" in loaded
    assert not loaded & {"torch", "timm", "mlflow", "pandas", "sklearn", "matplotlib", "scipy"}


def test_a_wrong_form_is_found_cheaply(tmp_path):
    """A misspelt key must be answered in a second, before any library of the training is there."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[data]\nname = 'digits'\n[optimiser]\nlr = 1\n")
    for verb in ("check", "run", "plan"):
        loaded = modules_of(verb, str(wrong))
        assert "pydantic" in loaded
        assert not loaded & {"torch", "timm", "mlflow", "sklearn", "matplotlib"}


def test_a_wrong_name_is_found_without_the_training(tmp_path):
    """The registry of proxies takes arrays; a misspelt proxy needs no torch to be told."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[data]\nname = 'digits'\n[proxies.cbtll]\n")
    assert not modules_of("check", str(wrong)) & {"torch", "timm", "mlflow"}
