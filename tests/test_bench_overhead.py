"""The benchmark of a launch's overhead runs; what it measures is no matter for a test."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_overhead_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    words = ["--examples", "600", "--members", "2", "--epochs", "1", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, "scripts/bench_overhead", *words],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"STUDY_BENCH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "launch, with a new store" in done.stdout
    assert "18 networks, 1 epochs" in done.stdout
