"""What an import leaves behind in the process of somebody else: nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "study"
MODULES = sorted(
    ".".join(("study", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for file in PACKAGE.rglob("*.py")
    if file.name != "__main__.py"
)
SCRIPT = """
import importlib, json, logging, os, sys, warnings
import torch, timm, optuna, matplotlib, mlflow, pandas, sklearn.datasets, pyarrow.parquet  # theirs come first
import mlflow.tracking, mlflow.store.tracking.sqlalchemy_store
import matplotlib.pyplot

def state():
    loggers = [logging.root, *(logging.getLogger(name) for name in ("study", "optuna", "mlflow", "matplotlib"))]
    return {
        "environment": dict(os.environ),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "precision": torch.get_float32_matmul_precision(),
        "dtype": str(torch.get_default_dtype()),
        "seed": torch.initial_seed(),
        "warnings": [str(each) for each in warnings.filters],
        "handlers": [[type(each).__name__ for each in logger.handlers] for logger in loggers if logger.name != "study"],
        "levels": [logger.level for logger in loggers],
        "optuna": optuna.logging.get_verbosity(),
        "style": {key: str(value) for key, value in matplotlib.rcParams.items()},
        "excepthook": repr(sys.excepthook),
    }

before = state()
changed = {}
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    after = state()
    changes = [key for key in after if after[key] != before[key]]
    if changes:
        changed[name], before = changes, after
print(json.dumps(changed))
"""


def test_importing_any_module_changes_nothing_in_the_process():
    """A notebook's threads, warnings, log and environment are its own."""
    assert len(MODULES) > 100
    done = subprocess.run([sys.executable, "-c", SCRIPT, json.dumps(MODULES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {}


@pytest.mark.parametrize("given", [None, "active"])
def test_the_command_lets_idle_threads_sleep(given):
    """Set before torch loads, unless the user has said otherwise; no import of the package sets it."""
    script = (
        "import os, sys; from study.cli import main\n"
        "assert 'torch' not in sys.modules\n"
        "main.main(lambda: print(os.environ['OMP_WAIT_POLICY']))"
    )
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(PACKAGE.parent)} | (
        {"OMP_WAIT_POLICY": given} if given else {}
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == (given or "passive"), done.stderr[-2000:]
