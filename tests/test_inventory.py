"""The inventory of the papers' experiments is whole; `tests/test_docs.py` parses its commands on the page."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import docs_pages

from study.experiments.analyses import check_analyses
from study.proxies import chosen
from study.recipe.load import load

ROOT = Path(__file__).parents[1]
VERDICTS = {"works", "works in part", "recipe only"}


def ids(cell: str) -> set[str]:
    """The ids of a cell such as `J-fig2 / J-fig11`."""
    return set(cell.split(" / "))


def test_every_id_of_the_papers_has_a_row_and_a_verdict():
    """And nothing else; `docs/concepts/papers.md` says what each is."""
    text = (ROOT / "docs" / "concepts" / "papers.md").read_text(encoding="utf-8")
    described = [ids(cell) for cell in re.findall(r"^\| ([JZBA]-[^|]+?) \|", text, re.MULTILINE)]
    rows = docs_pages.experiments()
    assert [ids(each["id"]) for each in rows] == described
    assert len(rows) == 55
    assert {each["verdict"] for each in rows} <= VERDICTS
    assert all(each[column] for each in rows for column in ("command", "where", "scale"))


def test_the_recipes_of_the_commands_have_what_they_name():
    """A command that parses may still name a proxy, an analysis or a key that is not there."""
    checked = 0
    for each in docs_pages.experiments():
        words = shlex.split(each["command"])
        overrides = [value for option, value in pairwise(words) if option == "--set"]
        for name in (word for word in words if word.endswith(".toml")):
            recipe = load(ROOT / name, overrides)
            chosen(recipe.proxies)
            check_analyses(recipe.sweep.analyses)
            checked += 1
    assert checked >= 50
