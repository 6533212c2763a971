"""The winner as a recipe that `study run` takes.  in: the searched recipe, the best trial   out: a TOML file"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.errors import RecipeError
from study.recipe import Recipe, dump, dump_table, load
from study.recipe.load import BASE_STEPS, SHIPPED

LINE = "# search: "  # the header line that names the search which has written a file

ASIDE = {"search", "runtime"}  # of the launch that searched, not of what it found


def place(out: Path | None, path: Path, name: str) -> Path:
    """Where the winner goes: `out`, or `<recipe>_best.toml` beside the recipe, of an installed one in this folder.

    Raises:
        RecipeError: something else lies there; asked before anything trains.
    """
    if out is None:
        best = f"{path.stem}_best.toml"
        out = Path(best) if path.is_relative_to(SHIPPED) else path.with_name(best)
    if out.is_dir() or out.suffix != ".toml":
        raise RecipeError(f"--out {out}: name a file that ends in .toml")
    if not os.access(out.parent, os.W_OK):
        raise RecipeError(f"{out}: that folder is not there or not writable; --out names another file")
    if out.exists() and LINE + name not in out.read_text(encoding="utf-8").splitlines():
        raise RecipeError(f"{out}: exists, and is not of this search; move it away, or --out names another file")
    return out


def write(out: Path, path: Path, winner: Recipe, header: list[str], name: str) -> str:
    """Write the winner as what differs from its base, or whole where a base cannot say it; returns the text.

    The base is the searched recipe's file, or that one's own base where the chain of bases would become too long.
    """
    winner = winner.model_copy(update={"search": type(winner.search)(), "runtime": type(winner.runtime)()})
    head = "".join(f"# {line}\n" for line in header) + f"\n{LINE}{name}\n"
    text = head + dump(winner)
    base = _base(path)
    if base is not None:
        changes = _changes(load(base).model_dump(exclude=ASIDE), winner.model_dump(exclude=ASIDE))
        if changes is not None:
            named = {"base": os.path.relpath(base, out.parent).replace(os.sep, "/"), **changes}
            short = head + dump_table(_plain(named))
            if _reads_back(out, short, winner):
                return short
    _put(out, text)
    return text


def _reads_back(out: Path, text: str, winner: Recipe) -> bool:
    _put(out, text)
    return load(out).model_dump(exclude=ASIDE) == winner.model_dump(exclude=ASIDE)


def _put(out: Path, text: str) -> None:
    """Whole or not at all."""
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, out)
    except OSError as error:
        raise RecipeError(f"{out}: {error.strerror}; --out names another file") from error
    finally:
        aside.unlink(missing_ok=True)


def _base(path: Path) -> Path | None:
    """The recipe's file, or the nearest of its bases on which one more step is allowed; none in an installed package,
    whose place changes with every installation."""
    if path.is_relative_to(SHIPPED):
        return None
    chain = [path]
    while chain[-1].is_file() and (base := tomllib.loads(chain[-1].read_text(encoding="utf-8")).get("base")):
        chain.append(chain[-1].parent / base)
    steps = len(chain) - 1
    at = max(0, steps + 1 - BASE_STEPS)
    return chain[at] if at < len(chain) and chain[at].is_file() else None


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to merge over `old` to get `new`; None where it cannot be said, because a value has gone."""
    changed: dict[str, Any] = {}
    if set(old) - set(new):
        return None
    for key, value in new.items():
        if key in old and old[key] == value:
            continue
        if isinstance(value, Mapping) and isinstance(old.get(key), Mapping):
            inner = _changes(old[key], value)
            if inner is None:
                return None
            changed[key] = inner
        elif value is None:
            return None
        else:
            changed[key] = value
    return changed


def _plain(value: Any) -> Any:
    """Tuples as lists: what TOML writes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
