"""The README says what is there."""

import re
import tomllib
from pathlib import Path

from study.proxies import PROXIES, proxies_markdown
from study.recipe import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"


def test_the_table_of_proxies_is_the_registry_s():
    """A proxy's row is made by `study proxies --markdown`; whoever adds a proxy pastes it."""
    assert proxies_markdown().strip() in (DOCS / "proxies.md").read_text(encoding="utf-8")


def test_every_proxy_is_named():
    """What the page on proxies does not name is not asked for."""
    page = (DOCS / "concepts" / "proxies.md").read_text(encoding="utf-8")
    assert len(PROXIES) >= 38
    assert [name for name in PROXIES if f"`{name}`" not in page] == []


def test_the_recipes_that_the_readme_names_exist():
    """The first thing that a reader types."""
    named = set(re.findall(r"recipes/([\w/-]+\.toml)", README))
    assert len(named) >= 3
    assert [name for name in sorted(named) if not (ROOT / "recipes" / name).exists()] == []


def test_the_files_that_the_readme_shows_exist():
    """A broken picture on the first page."""
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"\./(scripts/\w+)", README)
    assert len(named) >= 3
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_recipes_on_the_site_are_ones():
    """The first thing that a reader copies has to be right."""
    pages = [(DOCS / name).read_text(encoding="utf-8") for name in ("tutorials/recipes.md", "tutorials/search.md")]
    recipe, search = (tomllib.loads(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1]) for page in pages)
    assert parse({"data": {"name": "mnist"}} | search, "search.md").search.trials == 30
    assert (ROOT / "recipes" / "mnist" / recipe["base"]).exists()
    assert recipe["model"]["settings"] == {"widths": [64]}
