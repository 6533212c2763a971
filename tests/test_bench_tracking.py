"""The benchmark of tracking runs; what it measures is no matter for a test."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_tracking_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    done = subprocess.run(
        [sys.executable, "scripts/bench_tracking", "--examples", "512", "--epochs", "2", "--repeats", "1"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"STUDY_BENCH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "right in passing" in done.stdout
    assert "a pass after each epoch" in done.stdout
