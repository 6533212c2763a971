"""Code from outside: from files, from installed packages, in the command's process and in those of devices."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from test_cli import TINY, fault, place, study  # noqa: F401  fixtures

from study import plugins
from study.errors import PluginError
from study.tracking import open_store

pytest_plugins = ["tests.tracking_fixtures"]

NETWORK = '''
from torch import nn

from study.models.registry import register_model


@register_model("a convolution and a classifier", source="a test")
def {name}(image_shape, num_classes, *, width: int = 6):
    """A convolution, the mean over positions, a classifier."""
    return nn.Sequential(
        nn.Conv2d(image_shape[0], width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, num_classes),
    )
'''
PROXY = '''
from study.proxies.registry import proxy


@proxy(family="learning speed", easy="high", unit="share", label="plugin proxy", source="a test")
def {name}(correct):
    """Share of epochs at which the example is right."""
    return correct.mean(axis=0)
'''


@pytest.fixture(autouse=True)
def clean():
    """Every test begins without plugins, and leaves nothing registered."""
    from study.models.registry import NETWORKS
    from study.proxies import PROXIES
    from study.signals.registry import SOURCES

    before = [
        (registry, dict(registry)) for registry in (NETWORKS, PROXIES, SOURCES, plugins._files, plugins._packages)
    ]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)
    for name in [name for name in sys.modules if name.startswith("study_plugin_")]:
        del sys.modules[name]


def write(folder: Path, content: str, name: str = "mine.py") -> Path:
    """A plugin file."""
    (folder / name).write_text(content)
    return folder / name


def test_a_file_is_imported_once(tmp_path):
    """Registering twice is an error; two options that name one file are not."""
    file = write(tmp_path, PROXY.format(name="once"))
    plugins.load([file])
    plugins.load([file, tmp_path / ".." / tmp_path.name / "mine.py"])
    assert plugins.loaded() == [str(file)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\ny = x.z\n", "line 2: AttributeError: 'int' object has no attribute 'z'"),
        ("x = 1\ndef f(:\n", "line 2: SyntaxError: invalid syntax"),
        ("import nowhere_to_be_seen\n", "line 1: ModuleNotFoundError: No module named 'nowhere_to_be_seen'"),
        ("raise ValueError('two\\nlines')\n", "line 1: ValueError: two lines"),
    ],
)
def test_a_plugin_that_fails_is_one_line(tmp_path, content, message):
    """Which file, which line, why; a second attempt, after it was mended, works."""
    file = write(tmp_path, content)
    with pytest.raises(PluginError) as caught:
        plugins.load([file])
    assert str(caught.value) == f"--plugin {file}: {message}"
    write(tmp_path, "")
    plugins.load([file])
    assert plugins.loaded() == [str(file)]


def test_what_is_no_python_file_is_refused(tmp_path):
    """A folder, a recipe, nothing."""
    for name in (".", "missing.py", "tiny.toml"):
        (tmp_path / "tiny.toml").touch()
        with pytest.raises(PluginError, match="--plugin"):
            plugins.load([tmp_path / name])


def test_two_files_of_one_name_are_refused(tmp_path):
    """Their modules would have one name."""
    (tmp_path / "other").mkdir()
    plugins.load([write(tmp_path, "")])
    with pytest.raises(PluginError, match="rename one"):
        plugins.load([write(tmp_path / "other", "")])


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that installs a package with an entry point."""

    def install(content: str) -> None:
        (tmp_path / "fromoutside.py").write_text(content)
        info = tmp_path / "fromoutside-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fromoutside\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text("[study.plugins]\nextra = fromoutside\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    yield install
    sys.modules.pop("fromoutside", None)


def test_an_installed_package_is_imported_by_its_entry_point(installed):
    """No option needed; the run's tag names the version."""
    from study.proxies import PROXIES

    installed(PROXY.format(name="from_package"))
    plugins.load()
    assert "from_package" in PROXIES
    assert json.loads(plugins.tags()["study.plugins"]) == {"extra": "fromoutside 1.2"}
    assert plugins.loaded() == []


def test_a_broken_package_is_one_line(installed):
    """It names the package, which the user may not know to be a plugin."""
    installed("raise RuntimeError('broken')\n")
    with pytest.raises(PluginError, match=r"plugin extra of fromoutside 1\.2: RuntimeError: broken; mend or uninstall"):
        plugins.load()


def test_a_plugin_of_a_command_is_in_its_run(study, place):  # noqa: F811
    """A network and a proxy from a file; the runs say the file's hash."""
    file = write(place, NETWORK.format(name="mynet") + PROXY.format(name="myproxy"))
    (place / "tiny.toml").write_text(
        TINY.replace('name = "mlp"\nsettings = { widths = [6] }', 'name = "mynet"')
        + "[proxies.cbtl]\n[proxies.myproxy]\n"
    )
    code, _, err = study("single", "tiny.toml", "--plugin", "mine.py")
    assert code == 0, err
    run = open_store(place / "mlruns").find("single")[0]
    assert json.loads(run.tags["study.plugins"]) == {"mine.py": f"sha256:{sha256(file.read_bytes()).hexdigest()}"}
    assert "myproxy" in run.read_table("scores.parquet").columns


def test_a_plan_repeats_the_plugins(study, place):  # noqa: F811
    """The command that it ends with must work as it stands."""
    write(place, "")
    _, _, err = study("plan", "tiny.toml", "--plugin", "mine.py")
    assert "to begin: study run tiny.toml --plugin mine.py" in err


def test_names_of_plugins_are_listed(study, place):  # noqa: F811
    """`study proxies --plugin` and `study networks --plugin` show what a file has registered."""
    write(place, NETWORK.format(name="listed_net") + PROXY.format(name="listed_proxy"))
    assert "listed_proxy" in study("proxies", "--plugin", "mine.py")[1]
    assert "listed_net" in study("networks", "--plugin", "mine.py")[1]


@pytest.mark.parametrize("change", ["model.name=mynet", "proxies.myproxy.x=1"])
def test_an_unknown_name_says_that_plugins_are_named(study, place, change):  # noqa: F811
    """A recipe of a colleague needs the colleague's file."""
    assert "--plugin FILE" in fault(study("plan", "tiny.toml", "--set", change))


def test_a_fault_of_a_plugin_is_one_line_of_a_command(study, place):  # noqa: F811
    """Exit code 2, no traceback."""
    write(place, "1 / 0\n")
    assert fault(study("run", "tiny.toml", "--plugin", "mine.py")) == (
        "--plugin mine.py: line 1: ZeroDivisionError: division by zero"
    )


def test_another_process_loads_the_same_files(tmp_path):
    """What a device's process does: a class of the plugin unpickles there."""
    import pickle

    file = write(tmp_path, "class Thing:\n    pass\n")
    plugins.load([file])
    sent = pickle.dumps(sys.modules[plugins.module_name(file)].Thing())
    script = (
        "import pickle, sys\nfrom study import plugins\n"
        f"plugins.load({plugins.loaded()!r})\n"
        "print(type(pickle.loads(sys.stdin.buffer.read())).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=sent, capture_output=True, check=True)
    assert done.stdout.strip() == b"Thing"
