"""What a person types by mistake: one line that names the cure, before anything trains."""

import pytest
from typer.testing import CliRunner

from study.cli.main import app
from study.errors import AnalysisError, DataError
from study.uses.curricula import compare_curricula
from tests.toys import blobs, toy_recipe


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf")])
def test_a_length_that_is_no_share_is_refused(budget):
    """NaN is no smaller than 0, and no number of updates."""
    with pytest.raises(AnalysisError, match="budgets are shares"):
        compare_curricula(toy_recipe("study"), blobs(), None, by="cbtl", budgets=[budget])  # pyright: ignore


def test_a_benchmark_without_any_data_fails(tmp_path):
    """A script that sees success takes an empty table for a result."""
    done = CliRunner().invoke(app, ["benchmark", "--data", str(tmp_path), "--root", str(tmp_path / "runs")])
    assert isinstance(done.exception, DataError)
    assert "none of the 12 protocols has its data" in str(done.exception)


def test_a_keep_list_without_its_column_is_told_its_own_cure(tmp_path):
    """A list of suspects is no keep list."""
    path = tmp_path / "keep.csv"
    path.write_text("id\ntrain/0001\n")
    with pytest.raises(DataError, match="below the heading example"):
        blobs().with_only(path)
