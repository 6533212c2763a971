"""The notebooks run as they are stored, and show what they gave."""

import importlib.util
import resource
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
nbclient = pytest.importorskip("nbclient", reason="the notebooks' tools are not installed")


@pytest.fixture
def shell():
    """What executes cells in a kernel, in this process: starting one takes longer than most notebooks."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.enable_gui = lambda gui=None: None
    return shell


def test_the_walk_finds_the_notebooks():
    """A loop over nothing passes."""
    assert len(NOTEBOOKS) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_within_a_minute(path, shell, tmp_path, monkeypatch):
    """What a newcomer runs first must not fail, nor ask for patience."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for library in notebook.metadata.get("needs", []):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    used = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    start = sum(resource.getrusage(who).ru_utime for who in used)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in a kernel
        for cell in notebook.cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source, store_history=True).raise_error()
    assert sum(resource.getrusage(who).ru_utime for who in used) - start < 60


def test_a_notebook_runs_in_a_kernel(tmp_path, monkeypatch):
    """One of them, as Jupyter runs it: in a process of its own, with what only a notebook shows."""
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "notebooks" / "digits.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own libraries
        client.execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_output(path):
    """The site shows them without running them: a table and a picture each, no error, nothing of a machine."""
    import nbformat

    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert all(cell.execution_count for cell in cells)
