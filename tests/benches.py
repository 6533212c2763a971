"""Benchmarks in the process of the tests: every way would else start a Python and import torch, for seconds each."""

import io
import json
import os
import runpy
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import benching

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(script: str, *words: str) -> str:
    """What the script prints; its ways run here one after the other, as `--way` runs them in a process of their own."""

    def compare(names: Iterable[str], repeats: int) -> dict[str, list[dict]]:
        results = {name: [_way(script, *words, "--way", name)] for name in names}
        return {name: [each] for name, (each,) in results.items() if each}

    with mock.patch.object(benching, "compare", compare):
        return _printed(script, *words)


def _way(script: str, *words: str) -> dict | None:
    """What a way has found, or None where a package that it needs is not installed."""
    try:
        return json.loads(_printed(script, *words).splitlines()[-1])
    except ModuleNotFoundError:
        return None


def _printed(script: str, *words: str) -> str:
    path, shown = str(SCRIPTS / script), io.StringIO()
    environment = mock.patch.dict(os.environ, STUDY_BENCH="1")
    with redirect_stdout(shown), mock.patch.object(sys, "argv", [path, *words]), environment:
        runpy.run_path(path, run_name="__main__")
    return shown.getvalue()
