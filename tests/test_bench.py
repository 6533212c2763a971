"""The benchmarks run; what they measure is no matter for a test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_training_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    command = [sys.executable, "scripts/bench_training", "--examples", "512", "--members", "2", "--repeats", "1"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"STUDY_BENCH": "1"}, capture_output=True, text=True, check=True
    )
    assert "study," in done.stdout
    assert "DataLoader" in done.stdout
