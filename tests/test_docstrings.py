"""The examples in docstrings run, and everything public has one."""

import doctest
import importlib
import inspect
import pkgutil
import warnings

import pytest

import study

SKIPPED = ("study.__main__",)
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(study.__path__, "study.") if module.name not in SKIPPED
)
DOCUMENTED = ("study.scores", "study.data.dataset", "study.data.types", "study.api")  # a runnable example each


def examples(module: str) -> list[doctest.DocTest]:
    """The docstrings of a module that hold examples."""
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(module)) if test.examples]


def public(module: str) -> list[str]:
    """Functions and classes that a module defines under a name without underscore, NamedTuples and aliases apart."""
    loaded = importlib.import_module(module)
    return [
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") == module
        and (inspect.isfunction(value) or hasattr(value, "__dataclass_fields__"))
    ]


def test_the_walk_sees_the_package():
    """A loop over nothing passes."""
    assert len(MODULES) >= 100
    assert sum(len(examples(module)) for module in MODULES) >= 45


@pytest.mark.parametrize("module", [module for module in MODULES if examples(module)])
def test_examples_run_as_written(module, tmp_path, monkeypatch):
    """An example that fails teaches the wrong thing."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        results = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith(DOCUMENTED)])
def test_everything_public_has_an_example(module):
    """A docstring says what comes out; an example shows it."""
    shown = {test.name.removeprefix(f"{module}.").split(".")[0] for test in examples(module)}
    assert not [name for name in public(module) if name not in shown]
