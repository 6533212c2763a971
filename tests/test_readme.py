"""The README says what is there."""

import re
import tomllib
from pathlib import Path

from study.proxies import PROXIES, proxies_markdown
from study.recipe import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_proxies_is_the_registry_s():
    """A proxy's row is made by `study proxies --markdown`; whoever adds a proxy pastes it."""
    assert proxies_markdown().strip() in (ROOT / "docs" / "proxies.md").read_text(encoding="utf-8")


def test_every_proxy_is_named():
    """What the README does not name is not asked for."""
    assert len(PROXIES) >= 38
    assert [name for name in PROXIES if f"`{name}`" not in README] == []


def test_the_recipes_that_the_readme_names_exist():
    """The first thing that a reader types."""
    named = set(re.findall(r"`(?:recipes/)?([\w-]+/[\w/-]+\.toml)`", README)) | set(
        re.findall(r"recipes/([\w/-]+\.toml)", README)
    )
    assert len(named) >= 10
    assert [name for name in sorted(named) if not (ROOT / "recipes" / name).exists()] == ["mnist/narrow.toml"]


def test_the_files_that_the_readme_shows_exist():
    """A broken picture on the first page."""
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"\./(scripts/\w+)", README)
    assert len(named) >= 3
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_recipe_in_the_readme_is_one():
    """The first thing that a reader copies has to be right."""
    recipe, search = (tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", README, re.DOTALL))
    assert parse({"data": {"name": "mnist"}} | search, "README").search.trials == 30
    assert (ROOT / "recipes" / "mnist" / recipe["base"]).exists()
    assert recipe["model"]["settings"] == {"widths": [64]}
