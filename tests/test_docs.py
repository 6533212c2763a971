"""What README and site say can be typed, clicked and read back."""

import re
import shlex
import tomllib
from pathlib import Path
from unittest.mock import patch

import docs_pages
import numpy as np
import pytest
import torch
import typer

from study.analysis.leaderboard import AGREEMENT_AND_COST, KEYS, MEASURES
from study.cli.main import app
from study.data import Dataset
from study.data.readers.registry import READERS
from study.models.registry import NETWORKS
from study.proxies import PROXIES, compute
from study.recipe import parse
from study.scores.cscore import cscore_columns, shard_profile
from study.scores.memorization import memorization_columns
from study.search.summary import COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
NOT_THERE = {"mnist/narrow.toml", "mnist/search_best.toml"}  # files that the reader makes
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[\w-]+)?\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(study [^`]+|\./scripts/[^`]+)`")


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in one language, "" for those that name none."""
    return [code for name, code in BLOCK.findall(text) if name == language]


def commands(text: str) -> list[list[str]]:
    """The words of every command on a page: of lines in blocks, and of code inside sentences."""
    lines = [line for block in blocks(text, "") for line in block.splitlines()] + INLINE.findall(text)
    split = [shlex.split(line, comments=True) for line in lines if line.startswith(("study ", "./scripts/"))]
    return [words for words in split if words]


USAGE = "docs/reference/commands.md"  # shows forms, not commands
COMMANDS = [(page, words) for page, text in TEXTS.items() if page != USAGE for words in commands(text)]


def arguments(words: list[str]) -> list[str] | None:
    """What reaches `study`; None for the other scripts."""
    if words[0] == "study":
        return words[1:]
    return words[1:] or ["run"] if words[0] == "./scripts/run" else None


def test_the_site_has_pages():
    """A loop over nothing passes."""
    assert len(PAGES) >= 25
    assert len(COMMANDS) >= 50


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    """A broken link on the first page; mkdocs looks at those inside docs/ only."""
    links = [link for link in LINK.findall(TEXTS[page]) if "://" not in link]
    folder = (ROOT / page).parent
    assert [link for link in links if not (folder / link).exists()] == []


def test_every_command_parses():
    """The first thing that a reader types."""
    group = typer.main.get_command(app)
    wrong = []
    for page, words in COMMANDS:
        typed = arguments(words)
        if typed is None or "..." in typed:
            continue
        try:
            command = group.commands[typed[0]]
            if len(typed) > 1:  # alone it is a mention of the command
                command.make_context(typed[0], typed[1:]).close()
        except Exception as error:
            wrong.append(f"{page}: {shlex.join(words)}: {error!r}")
    assert wrong == []


def test_the_scripts_exist():
    """`./scripts/...` and `scripts/...` on every page."""
    assert len([words for _, words in COMMANDS if words[0].startswith("./scripts/")]) >= 10
    named = {name for text in TEXTS.values() for name in re.findall(r"\bscripts/(\w+(?:\.\w+)?)\b", text)}
    assert [name for name in sorted(named) if not (ROOT / "scripts" / name).exists()] == []


def test_the_recipes_that_are_named_exist():
    """A recipe that was renamed."""
    named = {name for text in TEXTS.values() for name in re.findall(r"\b([\w-]+(?:/[\w-]+)+\.toml)", text)}
    names = {name.removeprefix("recipes/") for name in named}
    assert len(names) >= 10
    assert {name for name in names if not (ROOT / "recipes" / name).exists()} <= NOT_THERE


def test_blocks_of_toml_are_recipes():
    """What a reader copies into a recipe has to be one; a base is given what it lacks."""
    checked = 0
    for page, text in TEXTS.items():
        for block in blocks(text, "toml"):
            table = tomllib.loads(block)
            if "project" not in table:
                table.pop("base", None)
                parse({"data": {"name": "mnist"}} | table, page)
                checked += 1
    assert checked >= 2


def test_blocks_of_python_compile():
    """A typing error in an example."""
    examples = [(page, block) for page, text in TEXTS.items() for block in blocks(text, "python")]
    assert len(examples) >= 5
    for page, block in examples:
        compile(block, page, "exec")


def test_the_example_of_a_cscore_is_right():
    """The page says what comes out."""
    (block,) = blocks(TEXTS["docs/concepts/cscore.md"], "python")
    names: dict = {}
    exec(block, names)
    np.testing.assert_allclose(names["cscore"], [1, 2 / 3, 0])


def test_the_example_of_the_api_runs(capsys):
    """Ten lines that a reader pastes; fewer networks here."""
    (block,) = blocks(TEXTS["README.md"], "python")
    exec(block.replace("members=20", "members=2").replace("epochs=20", "epochs=2"), {})
    assert "cumulative_confidence" in capsys.readouterr().out


def test_the_plugins_of_the_tutorial_register_what_they_say():
    """A reader starts from these lines."""
    source = "\n".join(blocks(TEXTS["docs/tutorials/plugins.md"], "python"))
    with patch.dict(PROXIES), patch.dict(NETWORKS), patch.dict(READERS):
        exec(source, {})
        correct = np.array([[0, 1, 0], [0, 0, 1]], bool)
        assert compute(PROXIES["last_epoch_wrong"], {"correct": correct}).tolist() == [2, 2, 1]
        assert NETWORKS["tiny_cnn"]((1, 8, 8), 2, {"width": 4})(torch.zeros(3, 1, 8, 8)).shape == (3, 2)
        assert Dataset.from_name("stripes").n_test == 50


@pytest.mark.parametrize("name", docs_pages.pages())
def test_generated_pages_are_current(name):
    """Whoever changes the schema, a command or a signal runs `scripts/docs --write`."""
    assert (docs_pages.FOLDER / name).read_text(encoding="utf-8") == docs_pages.pages()[name]


def test_every_key_of_a_recipe_has_a_meaning():
    """An empty cell in the reference."""
    page = docs_pages.pages()["recipe.md"]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) >= 70
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_column_is_explained():
    """The page on reading results names every column of the tables that people load."""
    page = TEXTS["docs/tutorials/results.md"]
    masks = np.array([[True, False, True, False], [False, True, False, True]])
    profile = shard_profile(masks, np.zeros((2, 4), int), np.full((2, 4), 0.5), np.array([0, 1, 0, 1]), 0.1, (0, 1), 2)
    tables = {
        "cscore": [*cscore_columns(profile, np.array([0, 1, 0, 1])), *memorization_columns(profile)],
        "profile": list(profile.columns()),
        "leaderboard": [*KEYS, *MEASURES, *AGREEMENT_AND_COST],
        "trials": COLUMNS,
    }
    assert {name: [column for column in columns if f"`{column}`" not in page] for name, columns in tables.items()} == {
        name: [] for name in tables
    }
