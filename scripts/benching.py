"""What the benchmarks share: ways that take turns, each in a process of its own, and the table of what they took.

A benchmark names its ways in a dictionary of functions.  `compare` starts this same script once per way and repeat with
`--way NAME`; the child runs the function and prints what it found as JSON.  So every way starts from a fresh torch, a
busy minute meets all of them, and peak memory is that of the way alone.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCALE = 1024 if sys.platform != "darwin" else 1  # of ru_maxrss, in bytes


def begin(script):
    """Run the script in the project's environment; the second time round, in that environment, do nothing."""
    if os.environ.get("STUDY_BENCH"):
        return
    import bootstrap

    os.environ["STUDY_BENCH"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command `study` has it
    bootstrap.run(["python", str(Path(script).resolve()), *sys.argv[1:]])


def words(document, repeats=3):
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="of every way; the table shows the median")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    return parser


def is_way(name):
    """Whether this process is the child that runs this way; for what has to happen before torch is imported."""
    return name in sys.argv and "--way" in sys.argv


class Meter:
    """Seconds and memory of the part of a way that counts: `with meter:` around it, once."""

    def __init__(self):
        self.seconds = self.memory = None

    def __enter__(self):
        self.before = peak()
        self.start = time.perf_counter()

    def __exit__(self, *error):
        self.seconds = time.perf_counter() - self.start
        self.memory = peak() - self.before


def peak():
    """Bytes, the most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * SCALE


def run_way(function, *arguments):
    """In the child: run a way, `function(meter, *arguments)`, and print seconds, memory and the numbers it returns."""
    meter = Meter()
    result = function(meter, *arguments) or {}
    print(json.dumps({"seconds": meter.seconds, "memory": meter.memory, **result}))


def compare(names, repeats):
    """In the parent: every way in turn, `repeats` times; a list of what each printed, by name.

    A way that cannot run here says why on its last line of standard error; it is shown, and left out.
    """
    results = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            if results[name] is None:
                continue
            done = subprocess.run([sys.executable, *sys.argv, "--way", name], capture_output=True, text=True)
            if done.returncode:
                why = done.stderr.strip().splitlines() or ["no reason given"]
                print(f"{name}: left out, {why[-1]}", file=sys.stderr)
                results[name] = None
            else:
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return {name: each for name, each in results.items() if each}


def median(results, key="seconds"):
    """The median over the repeats of a number that each printed."""
    return statistics.median(each[key] for each in results)


def product_rate(dtype, threads=None):
    """FLOP/s of a 1024 x 1024 x 1024 product, the best of twenty, or of those that half a second holds.

    float32 in the fastest routing that is exact.
    """
    import torch

    from study.kernels.kde import exact_routing
    from study.training.placement import float32_routing

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    times = []
    with float32_routing(exact_routing("cpu")):
        a, b = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
        for _ in range(20):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
            if sum(times) > 0.5:  # bfloat16 on a processor without instructions for it
                break
    torch.set_num_threads(before)
    return 2 * 1024**3 / min(times)


def show(title, columns, rows):
    """Print a table: the first column to the left, the others, text already, to the right; and its line of Markdown."""
    from rich.console import Console
    from rich.table import Table

    from study.training.placement import device_name

    heading = f"{title}\n{date.today()}, {device_name('cpu')}, {versions()}"
    table = Table(title=heading)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=130).print(table)
    print("\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]))


def versions():
    """Of what decides the speed."""
    import numpy
    import torch

    return f"Python {sys.version.split()[0]}, torch {torch.__version__}, numpy {numpy.__version__}"


def made_up(n, shape=(1, 28, 28)):
    """n images of noise in ten classes, for what takes as long whatever it sees."""
    import numpy as np

    from study.data import Dataset

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    labels = rng.integers(0, 10, n)
    ids = np.array([f"train/{i}" for i in range(n)])
    return Dataset("made-up", images, labels, ids, n, tuple("0123456789"), 255.0, (), "bench")


def halves(recipe, dataset, count):
    """Jobs on random halves of the data."""
    import numpy as np

    from study.runs.jobs import template_of

    half, template = len(dataset.labels) // 2, template_of(recipe)
    subsets = (np.sort(recipe.stream("bench", i).permutation(dataset.n)[:half]) for i in range(count))
    return [template.job(("bench", i), subset) for i, subset in enumerate(subsets)]


def gibibytes(count):
    """Memory as a person reads it."""
    return f"{count / 2**30:.2f} GiB"
