"""The benchmark of distances runs; what it measures is no matter for a test."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_distances_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    words = ["--examples", "400", "--slice", "150", "--repeats", "1", "--only", "/hidden"]
    done = subprocess.run(
        [sys.executable, "scripts/bench_distances", *words],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"STUDY_BENCH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "kernel, hidden 400 x 256: study" in done.stdout
    assert "neighbors, hidden 400 x 256: study" in done.stdout
