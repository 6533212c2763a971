"""Set the environment up with nothing but Python's standard library, then run a command in it.

uv makes the environment from uv.lock.  It is taken from the PATH, else from `.tool/`, else put there: by a private
virtual environment, by pip beside one, or, where Python comes without both, from the wheel on PyPI.
"""

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / ".tool"
OLDEST = (3, 11)


def run(command, *, groups=()):
    """Replace this process by `command`, run in the locked environment."""
    uv = find_uv()
    environment = dict(os.environ)
    if "PIP_INDEX_URL" in environment:  # uv does not read pip's settings, but who needs a mirror needs it here too
        environment.setdefault("UV_DEFAULT_INDEX", environment["PIP_INDEX_URL"])
    flags = [flag for group in groups for flag in ("--group", group)]
    if sys.version_info >= OLDEST:
        environment.setdefault("UV_PYTHON", sys.executable)
    first = not (ROOT / ".venv").exists()
    if first:
        print("setting the environment up (once; torch is large)", file=sys.stderr, flush=True)
    sync = [uv, "sync", "--locked", "--project", str(ROOT), *flags] + ([] if first else ["--quiet"])
    done = subprocess.run(sync, env=environment)
    if done.returncode:
        sys.exit(f"uv could not set the environment up; the lines above say why ({' '.join(sync)})")
    environment["VIRTUAL_ENV"] = str(ROOT / ".venv")
    environment["PATH"] = os.pathsep.join([str(ROOT / ".venv" / "bin"), environment.get("PATH", "")])
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def find_uv():
    """The path of uv, installed into `.tool/` when there is none."""
    known = which("uv") or which("uv", path=str(TOOL / "bin"))
    if known:
        return known
    print("installing uv into .tool/", file=sys.stderr, flush=True)
    for install in (by_venv, by_pip, by_wheel):
        try:
            install()
        except (OSError, subprocess.CalledProcessError, ValueError, KeyError) as error:
            print(f"  {install.__doc__} did not work: {error}", file=sys.stderr)
            continue
        found = which("uv", path=str(TOOL / "bin"))
        if found:
            return found
    sys.exit("uv could not be installed; install it by hand (https://docs.astral.sh/uv) and run this again")


def by_venv():
    """A private virtual environment."""
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(TOOL)], **quiet)
    subprocess.run([str(TOOL / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"], **quiet)


def by_pip():
    """pip into a folder of its own."""
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(TOOL), "uv"], **quiet)


def by_wheel():
    """uv's wheel, from PyPI's JSON."""
    with urllib.request.urlopen("https://pypi.org/pypi/uv/json", timeout=60) as answer:
        files = json.load(answer)["urls"]
    wheel = next(file for file in files if fits(file["filename"]))
    with urllib.request.urlopen(wheel["url"], timeout=300) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != wheel["digests"]["sha256"]:
        raise ValueError("the wheel's checksum is wrong")
    (TOOL / "bin").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        (TOOL / "bin" / "uv").write_bytes(archive.read(name))
    (TOOL / "bin" / "uv").chmod(0o755)


def fits(filename):
    """Whether a wheel is for this system: macOS or Linux, its C library, its processor."""
    machine = {"AMD64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}
    processor = machine.get(platform.machine(), platform.machine())
    if sys.platform == "darwin":
        return "macosx" in filename and filename.endswith(f"_{processor}.whl")
    musl = "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or "")
    return ("musllinux" if musl else "manylinux") in filename and filename.endswith(f"_{processor}.whl")
