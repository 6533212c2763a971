"""The benchmarks run; what they measure is no matter for a test."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(script: str, *words: str) -> str:
    """What the script prints."""
    command = [sys.executable, f"scripts/{script}", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"STUDY_BENCH": "1"}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_training_benchmark_runs_in_miniature():
    """A script that is run once a month breaks unseen."""
    shown = run("bench_training", "--examples", "512", "--members", "2", "--repeats", "1", "--epochs", "1")
    assert "study, " in shown
    assert "DataLoader" in shown


def test_the_demonstration_runs_in_miniature():
    words = ["--members", "2", "--recipe", "recipes/digits/study.toml", "--set", "train.epochs=1"]
    assert "200 at each ratio" in run("bench_demo", *words)


def test_the_table_of_precisions_runs_in_miniature():
    words = ["--members", "2", "--recipe", "recipes/digits/study.toml", "--set", "train.epochs=1"]
    assert run("bench_precision", *words).count("| float32 and bfloat16 |") == 2
