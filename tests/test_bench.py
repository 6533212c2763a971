"""The benchmarks run; what they measure is no matter for a test."""

import os
import subprocess
import sys

from benches import SCRIPTS, run


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


TOY = """
import os
import sys

import benching


def fine(meter):
    with meter:
        return {"pid": os.getpid()}


def broken(meter):
    raise OSError("no such machine")


WAYS = {"fine": fine, "broken": broken}
asked = benching.words("A toy.").parse_args()
if asked.way:
    sys.exit(benching.run_way(WAYS[asked.way]))
found = benching.compare(WAYS, asked.repeats)
print(*found, len({os.getpid(), *(each["pid"] for each in found["fine"])}), benching.median(found["fine"]) > 0)
"""


def test_every_repeat_of_a_way_has_a_process_of_its_own(tmp_path):
    """So it starts from a fresh torch; the tests above do without.  A way that fails is left out, and says why."""
    (tmp_path / "bench_toy").write_text(TOY)
    command = [sys.executable, str(tmp_path / "bench_toy"), "--repeats", "3"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "fine 4 True\n"
    assert done.stderr == "broken: left out, OSError: no such machine\n"
