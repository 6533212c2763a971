"""Files that uses of scores write are those of one recipe and data set, and go where no other recipe writes."""

import pytest

from study.tracking import Store
from study.uses.scores import folder_of_lists
from tests.toys import blobs, toy_recipe


def folder(tmp_path, **tables):
    return folder_of_lists("keep", toy_recipe("study", **tables), blobs(), Store(tmp_path, "", None))


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"subset": {"members": 5}},
        {"single": {"repeats": 2}},
        {"single": {"train": {"epochs": 4}}},
        {"proxies": {"cbtl": {}}},
    ],
)
def test_recipes_with_other_scores_write_their_lists_apart(tmp_path, changed):
    """A keep list that another recipe overwrites trains on examples that nobody has chosen."""
    assert folder(tmp_path, **changed) != folder(tmp_path)


def test_how_a_recipe_runs_does_not_move_its_lists(tmp_path):
    """The same lists on another machine are found again."""
    assert folder(tmp_path, runtime={"shard": 1}, why="another reason") == folder(tmp_path)
