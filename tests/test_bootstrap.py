"""The set-up, with a stand-in for uv: what it is asked for, and how often."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
UV = r"""#!/bin/sh
case "$*" in --version) echo "uv 0.9.1"; exit 0;; esac
echo "$*" >> "{root}/commands"
test -e "{root}/refuse" && {{ echo "error: no network" >&2; exit 2; }}
mkdir -p "{root}/.venv/bin"
ln -sf "{python}" "{root}/.venv/bin/python"
test -e "{root}/slow" && {{ touch "{root}/asleep"; sleep 2; }}
cat > "{root}/.venv/bin/study" <<END
#!/bin/sh
'''exec' "{root}/.venv/bin/python" "\$0" "\$@"
' '''
import os, sys
print(os.getcwd(), os.environ["STUDY_ROOT"], *sys.argv[1:])
print("writes bytecode:", not sys.dont_write_bytecode, file=sys.stderr)
sys.exit(int(os.environ.get("CODE", 0)))
END
chmod +x "{root}/.venv/bin/study"
"""


class Checkout:
    """A copy of the scripts beside a uv that only notes what it is asked."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.tools = root, folder / "tools"
        shutil.copytree(REPOSITORY / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "uv.lock"):
            (root / name).write_text(name)
        self.tools.mkdir()
        (self.tools / "uv").write_text(UV.format(root=root, python=sys.executable))
        (self.tools / "uv").chmod(0o755)

    def start(self, *words: str, cwd: Path | None = None, **variables: str) -> subprocess.Popen:
        """Start `scripts/run`."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_", "STUDY_"))}
        environment |= {"PATH": f"{self.tools}:/usr/bin:/bin", **variables}
        return subprocess.Popen(
            [sys.executable, str(self.root / "scripts" / "run"), *words],
            **{"cwd": cwd or self.root, "env": environment, "text": True},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a script's background jobs ignore it
        )

    def run(self, *words: str, **settings) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `scripts/run`."""
        process = self.start(*words, **settings)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def commands(self) -> list[str]:
        """What uv was asked for, one line per call."""
        file = self.root / "commands"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    root = tmp_path / "ein Ordner für #1"
    root.mkdir()
    return Checkout(root, tmp_path)


@pytest.fixture
def bootstrap():
    spec = importlib.util.spec_from_file_location("bootstrap", REPOSITORY / "scripts" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait_for(file: Path) -> None:
    start = time.monotonic()
    while not file.exists():
        assert time.monotonic() - start < 60
        time.sleep(0.02)


def test_the_second_start_asks_uv_for_nothing(checkout):
    """A sync before every `study list` would be felt."""
    assert checkout.run("list")[0] == 0
    assert checkout.run("list")[0] == 0
    assert len(checkout.commands) == 1


def test_modules_are_compiled_once(checkout):
    """Images set PYTHONDONTWRITEBYTECODE; each process would then compile torch for itself, for seconds."""
    assert checkout.run("list", PYTHONDONTWRITEBYTECODE="1")[2].splitlines()[-1] == "writes bytecode: True"


def test_the_environment_is_what_the_lock_says(checkout):
    """`--locked` refuses a lock that does not fit pyproject.toml, instead of choosing other versions."""
    checkout.run("list")
    assert checkout.commands == [f"sync --locked --project {checkout.root}"]


def test_another_lock_is_synced(checkout):
    """After a `git pull` that changes versions the next start must bring them."""
    checkout.run("list")
    (checkout.root / "uv.lock").write_text("newer")
    checkout.run("list")
    assert len(checkout.commands) == 2


def test_arguments_and_exit_code_pass_through(checkout):
    """A script around it judges by the exit code."""
    code, out, _ = checkout.run("show", "a b", "--set", "x=1", CODE="7")
    assert code == 7
    assert out.endswith(" show a b --set x=1\n")


def test_relative_recipes_are_the_callers_and_runs_the_checkouts(checkout, tmp_path):
    """`cd elsewhere; .../scripts/run list` must show the runs of this checkout, and find recipes where the user is."""
    _, out, _ = checkout.run("list", cwd=tmp_path)
    assert out == f"{tmp_path} {checkout.root / 'mlruns'} list\n"


def test_no_arguments_means_the_main_job(checkout, tmp_path):
    """The first command of the README, from wherever it is typed."""
    _, out, _ = checkout.run(cwd=tmp_path)
    assert out.endswith(f"run {checkout.root / 'recipes/digits/study.toml'}\n")


def test_two_first_launches_set_up_once(checkout):
    """Two terminals, one environment: the second waits and says so."""
    (checkout.root / "slow").touch()
    first = checkout.start("list")
    wait_for(checkout.root / "asleep")
    code, _, err = checkout.run("list")
    assert (code, first.wait(timeout=60), len(checkout.commands)) == (0, 0, 1)
    assert "waiting" in err
    first.communicate()


def test_a_killed_set_up_is_done_again_from_scratch(checkout):
    """uv takes a half-copied package for an installed one; the import would fail for ever."""
    (checkout.root / "slow").touch()
    first = checkout.start("list")
    wait_for(checkout.root / "asleep")
    half = checkout.root / ".venv" / "half a package"
    half.touch()
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    code, _, _ = checkout.run("list")
    assert (code, len(checkout.commands), half.exists()) == (0, 2, False)


def test_uv_outlives_a_killed_launch_and_keeps_the_lock(checkout):
    """kill -9 of the script alone leaves uv at work; a second set-up beside it would mix with it."""
    (checkout.root / "slow").touch()
    first = checkout.start("list")
    wait_for(checkout.root / "asleep")
    first.kill()
    first.wait()
    code, _, err = checkout.run("list")
    first.communicate()
    assert code == 0
    assert "waiting" in err


def test_a_failed_set_up_ends_with_one_line_and_no_traceback(checkout):
    """uv says what is wrong; a traceback of ours would bury it."""
    (checkout.root / "refuse").touch()
    code, _, err = checkout.run("list")
    assert code == 1
    assert err.splitlines()[-1].startswith("uv could not set the environment up")


def test_a_failed_update_keeps_the_environment(checkout):
    """Without network the old environment must not be thrown away."""
    checkout.run("list")
    kept = checkout.root / ".venv" / "a package"
    kept.touch()
    (checkout.root / "uv.lock").write_text("newer")
    (checkout.root / "refuse").touch()
    checkout.run("list")
    (checkout.root / "refuse").unlink()
    assert checkout.run("list")[0] == 0
    assert kept.exists()


def test_a_moved_checkout_is_set_up_anew(checkout):
    """The scripts of an environment begin with its path: they would start the old folder's Python, or none."""
    checkout.run("list")
    old = checkout.root / ".venv" / "old"
    old.touch()
    moved = checkout.root.with_name("moved")
    checkout.root.rename(moved)
    (checkout.tools / "uv").write_text(UV.format(root=moved, python=sys.executable))
    checkout.root = moved
    code, out, _ = checkout.run("list")
    assert (code, str(moved) in out, (moved / ".venv" / "old").exists()) == (0, True, False)


def test_a_signal_reaches_the_study(checkout):
    """Ctrl-C must end the training, not a shell around it."""
    checkout.run("list")
    (checkout.root / ".venv" / "bin" / "study").write_text("#!/bin/sh\ntouch up; exec sleep 60\n")
    process = checkout.start("run")
    wait_for(checkout.root / "up")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT


def test_a_mirror_serves_what_the_lock_names(checkout):
    """Who has pip's settings for a mirror has no other way out; uv.lock's hashes still decide what is installed."""
    assert checkout.run("list", PIP_INDEX_URL="https://mirror.invalid/simple")[0] == 0
    assert [line.split()[0] for line in checkout.commands] == ["venv", "export", "pip", "pip"]
    assert "--require-hashes" in checkout.commands[2]


def test_uv_comes_by_the_next_way_when_one_fails(bootstrap, tmp_path, monkeypatch, capsys):
    """Debian's Python has no ensurepip, and may have no pip."""
    monkeypatch.setattr(bootstrap, "TOOL", tmp_path)
    monkeypatch.setattr(bootstrap, "which", lambda name: None)
    monkeypatch.setattr(bootstrap, "by_venv", failing("No module named ensurepip"))
    monkeypatch.setattr(bootstrap, "by_pip", failing("no pip"))

    def by_wheel(folder: Path, lock: int) -> None:
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "uv").write_text("#!/bin/sh\necho uv 0.9.1\n")
        (folder / "bin" / "uv").chmod(0o755)

    monkeypatch.setattr(bootstrap, "by_wheel", by_wheel)
    assert bootstrap.find_uv(0) == str(tmp_path / "uv")
    assert "No module named ensurepip" in capsys.readouterr().err


def test_without_any_uv_one_line_says_what_to_do(bootstrap, tmp_path, monkeypatch):
    """No network at all: the cure is by hand."""
    monkeypatch.setattr(bootstrap, "TOOL", tmp_path)
    monkeypatch.setattr(bootstrap, "which", lambda name: None)
    for name in ("by_venv", "by_pip", "by_wheel"):
        monkeypatch.setattr(bootstrap, name, failing("no network"))
    with pytest.raises(SystemExit, match="install it by hand"):
        bootstrap.find_uv(0)


def failing(message: str):
    """A way to uv that fails."""

    def install(folder: Path, lock: int) -> None:
        """A way."""
        raise OSError(message)

    return install


def test_a_uv_that_does_not_run_is_passed_over(bootstrap, tmp_path):
    """pyenv puts a `uv` on the PATH that only says which version has one."""
    shim = tmp_path / "uv"
    shim.write_text("#!/bin/sh\necho 'uv: command not found' >&2; exit 127\n")
    shim.chmod(0o755)
    assert bootstrap.uv_version(str(shim)) == (0, 0)


@pytest.mark.parametrize(
    ("system", "machine", "wheel"),
    [
        ("linux", "x86_64", "uv-1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
        ("linux", "aarch64", "uv-1-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl"),
        ("darwin", "arm64", "uv-1-py3-none-macosx_11_0_arm64.whl"),
        ("darwin", "x86_64", "uv-1-py3-none-macosx_10_12_x86_64.whl"),
    ],
)
def test_each_system_takes_its_own_wheel(bootstrap, monkeypatch, system, machine, wheel):
    """A wheel for another processor installs, and then does not start."""
    wheels = [
        "uv-1-py3-none-linux_armv6l.whl",
        "uv-1-py3-none-macosx_10_12_x86_64.whl",
        "uv-1-py3-none-macosx_11_0_arm64.whl",
        "uv-1-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl",
        "uv-1-py3-none-manylinux_2_17_i686.manylinux2014_i686.whl",
        "uv-1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "uv-1-py3-none-musllinux_1_1_x86_64.whl",
        "uv-1-py3-none-win_amd64.whl",
        "uv-1.tar.gz",
    ]
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: "x86_64-pc-linux-gnu")
    assert [name for name in wheels if bootstrap.fits(name)] == [wheel]


def test_the_lock_names_no_index_but_pypi():
    """An address of somebody's mirror in the lock would shut everybody else out."""
    lock = (REPOSITORY / "uv.lock").read_text()
    hosts = {part.split("/")[2] for part in re.findall(r'registry = "([^"]+)"', lock)}
    assert hosts == {"pypi.org"}
