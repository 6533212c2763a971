"""The README says what is there."""

import re
import tomllib
from pathlib import Path

from study.proxies import proxies_markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_proxies_is_the_registry_s():
    """A proxy's row is made by `study proxies --markdown`; whoever adds a proxy pastes it."""
    assert proxies_markdown().strip() in README


def test_every_recipe_is_listed():
    """A recipe that the README does not name is found by nobody."""
    recipes = sorted(path for path in (ROOT / "recipes").rglob("*.toml") if path.name != "base.toml")
    assert len(recipes) >= 7
    missing = [path.name for path in recipes if f"{path.parent.name}/{path.name}" not in README]
    assert missing == []


def test_the_files_that_the_readme_shows_exist():
    """A broken picture on the first page."""
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"\./(scripts/\w+)", README)
    assert len(named) >= 3
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_recipe_in_the_readme_is_one():
    """The first thing that a reader copies has to be right."""
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    recipe = tomllib.loads(block)
    assert (ROOT / "recipes" / "mnist" / recipe["base"]).exists()
    assert recipe["model"]["settings"] == {"widths": [64]}


def test_every_recipe_opens_with_its_title_page():
    """Claim, cost and command: the label on the jar."""
    recipes = [path for path in (ROOT / "recipes").rglob("*.toml") if path.name != "base.toml"]
    for path in recipes:
        head = path.read_text(encoding="utf-8").splitlines()[:4]
        assert head[0].startswith("# "), path
        assert any(line.startswith("# cost:") for line in head), path
        assert any(line.startswith("# run:") for line in head), path
