"""The benchmark of convolutional members runs; what it measures is no matter for a test."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_convolutions_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    words = ["--examples", "32", "--members", "1", "--batch", "8", "--networks", "resnet8", "--no-probe"]
    done = subprocess.run(
        [sys.executable, "scripts/bench_convolutions", *words],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"STUDY_BENCH": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "resnet8, nn.Module" in done.stdout
    assert "resnet8, study," in done.stdout
