"""The project's own kernels, compiled on the machine that runs them.  in: C++ sources   out: a library, or None

A compiler is asked for once per machine and version: the result lies in the user's cache folder under a digest of the
sources, the compiler and the processor, and is put there whole, so that two launches at once do not disturb each other.
Where there is no compiler, or it fails, the caller takes torch's or numpy's operations: slower, never something else.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

log = logging.getLogger(__name__)


SOURCES = Path(__file__).parent
COMPILERS = ("c++", "g++", "clang++")
OPTIONS = ("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-pthread")
PATIENCE = 300  # seconds that a compiler may take
POINTER, LONG, INT, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
SIGNATURES = {
    "study_has_bfloat16": (INT, []),
    "study_mlp_new": (POINTER, [INT, LONG, POINTER, LONG]),
    "study_mlp_free": (None, [POINTER]),
    "study_mlp_read": (None, [POINTER, POINTER]),
    "study_mlp_write": (None, [POINTER, POINTER]),
    "study_mlp_train": (
        None,
        [POINTER, POINTER, POINTER, POINTER, POINTER, POINTER, LONG, DOUBLE, DOUBLE, INT, INT, POINTER, POINTER],
    ),
    "study_mlp_answer": (None, [POINTER, POINTER, LONG, POINTER]),
    "study_kernels_add": (
        None,
        [INT, INT, *(POINTER,) * 6, LONG, LONG, LONG, LONG, DOUBLE, POINTER, LONG, POINTER, LONG],
    ),
    "study_has_bytes": (INT, []),
    "study_nearest_new": (POINTER, [INT, LONG, LONG, LONG, LONG, INT, INT]),
    "study_nearest_free": (None, [POINTER]),
    "study_nearest_one_way": (None, [POINTER, POINTER, POINTER]),
    "study_nearest_both_ways": (None, [POINTER, POINTER, POINTER]),
    "study_nearest_within": (None, [POINTER, POINTER]),
    "study_nearest_best": (None, [POINTER, POINTER, POINTER]),
    "study_concordance": (INT, [POINTER, POINTER, LONG, POINTER, POINTER, POINTER]),
}

log = logging.getLogger(__name__)
_counts = threading.local()


def count_flops(flops: int) -> None:
    """Tell of FLOPs for the calling thread that torch has not seen: of a kernel, or of threads that work for it."""
    _counts.flops = counted_flops() + flops


def counted_flops() -> int:
    """All that the calling thread was told of so far."""
    return getattr(_counts, "flops", 0)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels; None, and one line of the log, where they cannot be had.  Calls into them let other threads run."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None or sys.platform == "win32":
        log.info("no C++ compiler here; torch and numpy take the place of the project's own kernels, at half the speed")
        return None
    try:
        loaded = ctypes.CDLL(str(_built(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        log.warning("the C++ kernels cannot be made with %s (%s); torch and numpy take their place", compiler, reason)
        return None
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def _built(compiler: str) -> Path:
    """The compiled library, made if it is not there yet.

    Raises:
        OSError: no folder to write to, or no such compiler.
        subprocess.SubprocessError: it fails, or takes too long.
    """
    sources = sorted(SOURCES.glob("*.cpp"))
    parts = [_run(compiler, "--version"), " ".join(OPTIONS), _processor()]
    parts += [file.read_text("utf-8") for file in sorted([*sources, *SOURCES.glob("*.hpp")])]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "study"
    target = folder / f"native-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"
    if not target.exists():
        log.info("compiling the project's own kernels for this machine, once")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            compiled = Path(draft) / target.name
            objects = [Path(draft) / f"{source.stem}.o" for source in sources]
            with ThreadPoolExecutor() as pool:  # the compiler takes one core for a source
                list(pool.map(lambda each, to: _run(compiler, *OPTIONS, "-c", "-o", to, each), sources, objects))
            _run(compiler, *OPTIONS, "-shared", "-o", compiled, *objects)
            compiled.replace(target)
    return target


def _run(*command: str | Path) -> str:
    """What a command says that ends well."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout


def _processor() -> str:
    """What `-march=native` goes by: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    names = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(names)}))
