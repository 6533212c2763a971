"""The recipes that there are.  in: a folder   out: their headers, as a table that a person chooses from

The first comment lines of a recipe say what it is for:

    # Claim, with the ids of the papers' inventory (J-tab2).
    # cost: what it takes; expect what comes out
    # run:  the command
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from study.errors import RecipeError
from study.recipe.load import read_text, recipe_files


@dataclass(frozen=True)
class Header:
    """A recipe's title page."""

    file: Path
    claim: str
    cost: str
    run: str


def read_header(file: Path) -> Header:
    """Read the first comment lines of a recipe; a line that is indented goes on with the one before.

    Raises:
        RecipeError: it cannot be read, or lacks its claim, cost or command.
    """
    lines = read_text(file, "name a recipe").splitlines()
    parts = {"claim": ""}
    key = "claim"
    for line in lines:
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        word, colon, rest = text.partition(":")
        if colon and word in ("cost", "run"):
            key, text = word, rest.strip()
        parts[key] = f"{parts.get(key, '')} {text}".strip()
    missing = [name for name in ("claim", "cost", "run") if not parts.get(name)]
    if missing:
        raise RecipeError(f"{file}: its first comment lines do not say its {missing[0]}; see study/recipe/catalog.py")
    return Header(file, parts["claim"], parts["cost"], parts["run"])


def catalog(folders: Iterable[Path]) -> list[Header]:
    """The title pages of all recipes below these folders, by path."""
    return [read_header(file) for file in recipe_files(folders)]


def catalog_markdown(folder: Path) -> str:
    """Table of the recipes of a folder, one row each, for its README; winners of searches are the user's own."""
    rows = ["| recipe | what | cost |", "|---|---|---|"]
    for title in catalog([folder]):
        if title.file.stem.endswith("_best"):
            continue
        cells = (f"`{title.file.relative_to(folder)}`", title.claim, title.cost)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
