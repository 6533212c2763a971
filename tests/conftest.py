"""Fixtures that several test files share."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as under the command `study`; read when torch loads


@pytest.fixture(scope="session", autouse=True)
def messages():
    """The package's messages on stderr, as under the command `study`."""
    from study.progress import show_messages

    show_messages()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets: STUDY_TEST_DATA, else ../shared/data beside the repository."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("STUDY_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set STUDY_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def section():
    """Make a recipe's [data] table: defaults, and what a test sets."""
    from study.data.types import Columns

    defaults = dict.fromkeys(
        ("label", "root", "train", "test", "size", "channels", "limit", "limit_test", "classes", "keep", "foreign")
    )

    def make(name: str = "digits", **settings) -> SimpleNamespace:
        texts = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
        given = {"name": name, **defaults, "columns": Columns(), "download": False, "decisions": ()}
        return SimpleNamespace(**given | texts)

    return make
