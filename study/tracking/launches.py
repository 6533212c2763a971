"""Which launch writes a run, and whether it lives.  in: nothing, or what a launch has noted   out: JSON's types"""

import functools
import os
import secrets
import socket
from pathlib import Path
from typing import Any

BEAT = 15  # seconds between two signs of life of a trial or a lease
GRACE = 120  # seconds without one, after which a launch on another machine counts as dead


def this_launch() -> dict[str, Any]:
    """This process, so that others can tell whether it lives: id, machine, host, number, birth."""
    pid = os.getpid()
    return {
        "id": _id(pid),
        "machine": _machine(),
        "host": socket.gethostname(),
        "pid": pid,
        "born": _born(pid),
    }


def gone(launch: dict[str, Any]) -> bool:
    """Whether a launch of this machine has ended; of one on another machine this is not known."""
    return launch["machine"] == _machine() and launch["born"] != _born(launch["pid"])


@functools.cache
def _id(pid: int) -> str:
    """A number that no other launch has; a forked process is another launch."""
    return secrets.token_hex(6)


def _machine() -> str:
    """A start of a machine, and within it a room of process numbers: containers may share a host's name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> str | None:
    """When a process began, in ticks since the machine did; None when it is gone, or nothing but its waiting entry."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
