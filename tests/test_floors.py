"""The house's order, read from its imports: what may know what."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "study"
FLOORS = (  # from the ground up; a module imports from lower floors, and within its own package
    ("errors", "display"),
    ("native",),
    ("recipe", "ranks", "consensus", "difficulty", "regularity"),
    ("cscore",),
    ("data", "memorization", "networks", "proxies", "tracking"),
    ("training", "notes"),
    ("evidence", "shards"),
    ("ensemble",),
    ("single",),
    ("analysis", "figures", "report", "plan", "reference"),
    ("search",),
    ("check",),
    ("page",),
    ("launch", "shelf", "ui"),
    ("tables",),
    ("cli",),
)
DOORS = {  # one library, one door
    "jinja2": {"report"},
    "matplotlib": {"figures", "report", "tracking"},
    "mlflow": {"tracking", "ui"},
    "optuna": {"search"},
    "PIL": {"data"},
    "pyarrow": {"data"},
    "pydantic": {"recipe"},
    "ray": {"engine"},
    "rich": {"display", "tables"},
    "sklearn": {"data"},
    "sqlalchemy": {"tracking"},
    "timm": {"networks", "training"},
    "tomli_w": {"recipe"},
    "torch": {"data", "evidence", "networks", "proxies", "training"},
    "torchvision": {"data"},
    "typer": {"cli"},
}
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = sorted(HOUSE.rglob("*.py"))


def name_of(file: Path) -> str:
    """`study.data.npz` for study/data/npz.py, `study.data` for its `__init__`."""
    parts = file.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The module or package right below study."""
    return module.split(".")[1] if "." in module else ""


def imported(file: Path, *, types: bool = True) -> set[str]:
    """Every module that a file imports, also inside functions and, when asked, for type checkers alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found: set[str] = set()
    known = {name_of(module) for module in MODULES}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            modules = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= modules or {node.module}
    return found


def test_the_walk_sees_the_whole_house():
    """A loop over nothing passes."""
    assert len(MODULES) >= 45


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_go_down(file):
    """Who reads a module must not have to read what uses it; nothing below the launchers knows that they exist."""
    own = part_of(name_of(file))
    if not own:
        return
    for module in imported(file):
        other = part_of(module) if module.startswith("study.") else ""
        if other and other != own:
            assert FLOOR[other] < FLOOR[own], f"{name_of(file)} imports {module}"


def test_every_module_has_a_floor():
    """A new file says where it belongs, in the one list above."""
    assert {part_of(name_of(file)) for file in MODULES} - {""} <= set(FLOOR)


def test_no_module_imports_itself_round_about():
    """A cycle inside a package works until somebody imports its modules in another order."""
    graph = {name_of(file): imported(file, types=False) - {name_of(file)} for file in MODULES}
    packages = {name_of(file) for file in MODULES if file.name == "__init__.py"}
    order = TopologicalSorter({name: found - packages for name, found in graph.items() if name not in packages})
    assert len([name for name in order.static_order() if name.startswith("study")]) >= len(graph) - len(packages)


@pytest.mark.parametrize("library", DOORS)
def test_one_library_has_one_door(library):
    """Who wonders what goes to MLflow, or which networks there are, has one place to read."""
    users = {
        part_of(name_of(file)) for file in MODULES if library in {module.split(".")[0] for module in imported(file)}
    }
    assert users <= DOORS[library]


def modules_of(*words: str) -> set[str]:
    """The libraries that a command has imported when it ends."""
    script = (
        "import sys; sys.argv[1:] = sys.argv[1:]\n"
        "from study.cli import main\n"
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
