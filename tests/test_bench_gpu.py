"""The benchmark of GPUs runs; what it measures is no matter for a test."""

import os
import subprocess
import sys
from pathlib import Path


def bench(*words: str) -> subprocess.CompletedProcess:
    """The script in this environment."""
    return subprocess.run(
        [sys.executable, "scripts/bench_gpu", *words],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"STUDY_BENCH": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


def test_the_gpu_benchmark_runs_in_miniature():
    """The code that a large GPU runs once a month, on the CPU at every change."""
    done = bench("--miniature")
    assert done.returncode == 0, done.stderr
    for way in ("authors", "paper", "stack 32", "speednet", "streams 2", "densities", "neighbours"):
        assert f"| {way} |" in done.stdout


def test_without_a_gpu_the_benchmark_says_so_in_one_line():
    """And names what can be run instead."""
    done = bench()
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--miniature" in done.stderr
