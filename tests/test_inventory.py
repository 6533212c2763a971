"""The inventory of the papers' experiments is whole; `tests/test_docs.py` parses its commands on the page."""

import re
from pathlib import Path

import docs_pages

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
