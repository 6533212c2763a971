"""The benchmark of searches runs; what it measures is no matter for a test."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_search_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    words = ["--examples", "512", "--trials", "3", "--epochs", "1", "--repeats", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "scripts/bench_search", *words],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"STUDY_BENCH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "one at a time" in done.stdout
    assert "side by side" in done.stdout
