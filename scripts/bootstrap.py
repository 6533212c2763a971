"""Set the environment up with nothing but Python's standard library, then run a command in it.

uv makes the environment from uv.lock.  It is taken from the PATH, else from `.tool/`, else put there: by a private
virtual environment, by pip beside one, or, where Python comes without both, from the wheel on PyPI.  What was set up
is noted in `.tool/`: the next start looks at the note alone, and a set-up that was killed is done again from scratch.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree, which

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOL = ROOT / ".tool"
NOTE = TOOL / "environment"  # what .venv was made from, or BEGUN
BEGUN = "begun"
PYTHONS = ((3, 11), (3, 14))  # for which uv.lock has wheels; this file runs on any 3, and uv then finds or brings one
OLDEST_UV = (0, 5)  # that reads uv.lock and dependency groups


def run(command):
    """Replace this process by `command`, run in the locked environment."""
    try:
        if not ready():
            set_up()
    except KeyboardInterrupt:
        print("the set-up was stopped; the same command does it again", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        sys.exit(f"{error.filename or ROOT}: {error.strerror}; the set-up needs a checkout that it may write to")
    environment = dict(os.environ, VIRTUAL_ENV=str(VENV))
    environment["PATH"] = os.pathsep.join([str(VENV / "bin"), environment.get("PATH", os.defpath)])
    environment.pop("PYTHONHOME", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # images set it; torch from source takes each process seconds
    if environment.get("LC_ALL") in ("C", "POSIX"):  # in which Python cannot read the path of a folder like Müller
        environment["LC_ALL"] = "C.UTF-8"
    sys.stdout.flush()
    installed = VENV / "bin" / command[0]  # by its path: on the PATH another one could take the place of a broken one
    os.execvpe(str(installed) if installed.exists() else command[0], command, environment)


def ready():
    """Whether the environment is complete and made from what lies here now."""
    try:
        return NOTE.read_text(encoding="utf-8") == wanted() and (VENV / "bin" / "python").exists()
    except OSError:
        return False


def wanted():
    """What an environment depends on: this folder (its scripts hold the path) and the two files that name packages."""
    import hashlib

    files = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "uv.lock")]
    return hashlib.sha256(b"\0".join([os.fsencode(ROOT), *files])).hexdigest()


def set_up():
    """Make or mend the environment; one launch does it, others wait for it."""
    TOOL.mkdir(exist_ok=True)
    with locked() as lock:
        if ready():  # another launch was at it
            return
        uv = find_uv(lock)
        before = NOTE.read_text(encoding="utf-8") if NOTE.exists() else ""
        usable = (VENV / "bin" / "python").exists() and before != BEGUN and not moved()
        NOTE.write_text(BEGUN, encoding="utf-8")
        if not usable:
            print("setting the environment up (once; torch is large)", file=sys.stderr, flush=True)
            if VENV.exists():
                rmtree(VENV)
        fault = sync(uv, lock, fresh=not usable)
        if fault:
            NOTE.write_text(before, encoding="utf-8")
            sys.exit(fault)
        NOTE.write_text(wanted(), encoding="utf-8")


def moved():
    """Whether the environment was made in another folder: its scripts then start another Python, or none."""
    try:
        first = (VENV / "bin" / "study").read_bytes()[:500]
    except OSError:
        return False
    return os.fsencode(VENV) not in first


def sync(uv, lock, *, fresh):
    """Let uv install what uv.lock says, exactly; returns a line that says what went wrong, or None."""
    environment = dict(os.environ, UV_PROJECT_ENVIRONMENT=str(VENV))
    environment.pop("VIRTUAL_ENV", None)
    (major, oldest), (_, newest) = PYTHONS
    here = sys.version_info[:2]
    if fresh:
        others = f">={major}.{oldest},<{major}.{newest + 1}"
        environment.setdefault("UV_PYTHON", sys.executable if PYTHONS[0] <= here <= PYTHONS[1] else others)
    mirror = environment.get("UV_DEFAULT_INDEX") or environment.get("PIP_INDEX_URL")
    quiet = [] if fresh else ["--quiet"]
    for words in through(mirror, fresh) if mirror else [["sync", "--locked", "--project", str(ROOT)]]:
        done = subprocess.run([uv, *words, *quiet], env=environment, pass_fds=[lock])
        if done.returncode:
            old = "" if here >= PYTHONS[0] else "; Python {}.{} is needed, this is {}.{}".format(*PYTHONS[0], *here)
            return f"uv could not set the environment up, its lines above say why{old} ({' '.join([uv, *words])})"
    return None


def through(mirror, fresh):
    """The commands of uv that install uv.lock's versions, by their hashes, from another index than the lock names."""
    listed = str(TOOL / "requirements.txt")
    python = ["--python", str(VENV / "bin" / "python"), "--default-index", mirror]
    return [
        *([["venv", str(VENV)]] if fresh else []),
        ["export", "--frozen", "--no-emit-project", "--project", str(ROOT), "--output-file", listed, "--quiet"],
        ["pip", "sync", "--require-hashes", listed, *python],
        ["pip", "install", "--no-deps", "--editable", str(ROOT), *python],
    ]


@contextmanager
def locked():
    """One set-up at a time.  uv and pip inherit the lock, so it outlives a killed launch until they have ended."""
    try:
        import fcntl
    except ImportError:
        sys.exit("this needs Linux or macOS; on Windows use WSL")
    with open(TOOL / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another launch is setting the environment up; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def find_uv(lock):
    """The path of uv, installed into `.tool/` when there is none that works."""
    local = TOOL / "uv"
    for candidate in (which("uv"), str(local)):
        if candidate and uv_version(candidate) >= OLDEST_UV:
            return candidate
    print("installing uv into .tool/", file=sys.stderr, flush=True)
    new = TOOL / "new"
    for install in (by_venv, by_pip, by_wheel):
        rmtree(new, ignore_errors=True)
        try:
            install(new, lock)
            if uv_version(str(new / "bin" / "uv")) < OLDEST_UV:
                raise ValueError("what came does not run here")
        except (OSError, subprocess.CalledProcessError, ValueError, LookupError, StopIteration) as error:
            print(f"  {install.__doc__.rstrip('.')} did not work: {reason(error)}", file=sys.stderr, flush=True)
            continue
        os.replace(new / "bin" / "uv", local)
        rmtree(new)
        return str(local)
    sys.exit("uv could not be installed; install it by hand (https://docs.astral.sh/uv) and run this again")


def uv_version(path):
    """(major, minor) of a uv, (0, 0) where the file does not run."""
    try:
        version = subprocess.run([path, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        return tuple(int(part) for part in version.stdout.decode().split()[1].split(".")[:2])
    except (OSError, subprocess.CalledProcessError, LookupError, ValueError):
        return (0, 0)


def reason(error):
    """What an attempt failed of, in one line."""
    said = [line.strip() for line in (getattr(error, "output", None) or "").splitlines() if line.strip()]
    errors = [line for line in said if line.lower().startswith("error")] or said
    return errors[0] if errors else str(error) or type(error).__name__


def call(lock, *command):
    """Run a command quietly; what it says is told when it fails."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "universal_newlines": True}
    subprocess.run(command, check=True, pass_fds=[lock], **settings)


def by_venv(folder, lock):
    """A private virtual environment."""
    call(lock, sys.executable, "-m", "venv", "--clear", str(folder))
    call(lock, str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv")


def by_pip(folder, lock):
    """pip into a folder of its own."""
    call(lock, sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "uv")


def by_wheel(folder, lock):
    """uv's wheel, from PyPI's JSON."""
    import hashlib
    import io
    import json
    import zipfile
    from urllib.parse import urljoin
    from urllib.request import urlopen

    index = "https://pypi.org/pypi/uv/json"
    with urlopen(index, timeout=60) as response:
        files = json.load(response)["urls"]
    wheel = next(file for file in files if fits(file["filename"]))
    with urlopen(urljoin(index, wheel["url"]), timeout=300) as response:  # a mirror's addresses may be relative
        content = response.read()
    if hashlib.sha256(content).hexdigest() != wheel["digests"]["sha256"]:
        raise ValueError("the wheel's checksum is wrong")
    (folder / "bin").mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        (folder / "bin" / "uv").write_bytes(archive.read(name))
    (folder / "bin" / "uv").chmod(0o755)


def fits(filename):
    """Whether a wheel is for this system: macOS or Linux, its C library, its processor."""
    import platform
    import sysconfig

    machine = {"AMD64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}
    processor = machine.get(platform.machine(), platform.machine())
    if sys.platform == "darwin":
        return "macosx" in filename and filename.endswith(f"_{processor}.whl")
    musl = "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "")
    return ("musllinux" if musl else "manylinux") in filename and filename.endswith(f"_{processor}.whl")
