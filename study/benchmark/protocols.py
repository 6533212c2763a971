"""The protocols of the benchmark.  in: protocols.toml, a folder of data   out: Protocols, each with its recipe"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from study.errors import AnalysisError, DataError, did_you_mean
from study.recipe import Recipe, merge, parse

LABEL_ERRORS, DROPPING, PRUNING = "label errors", "dropping", "pruning"


@dataclass(frozen=True)
class Published:
    """A published figure: of which score and measure, its scale, where it stands, how exactly it could be read."""

    score: str
    measure: str
    value: float
    scale: str
    source: str
    reading: str


@dataclass(frozen=True)
class Protocol:
    """One row of the benchmark.

    name, what: for people.
    data: name of the data set in protocols.toml.
    measure: "label errors", "dropping" or "pruning".
    tables: of its recipe, without the places of the data.
    shares, repeats, by, small_batch: of dropping and pruning, see protocols.toml.
    published: figures of others.
    """

    name: str
    what: str
    data: str
    measure: str
    tables: Mapping[str, Any]
    shares: tuple[float, ...] = ()
    repeats: int = 1
    by: tuple[str, ...] = ()
    small_batch: int | None = None
    published: tuple[Published, ...] = ()

    def recipe(self, folder: Path) -> Recipe:
        """Its recipe on the data below a folder.

        Raises:
            DataError: the data are not there.
        """
        place = _place(self.data, folder)
        tables = merge(
            {"data": _below(folder, place["table"]), "noise": _below(folder, place.get("noise", {}))}, self.tables
        )
        return parse(tables | {"kind": "study"}, f"benchmark {self.name}")


def protocols(names: Sequence[str] = ()) -> list[Protocol]:
    """The protocols of these names, or all, in the order of the file.

    Raises:
        AnalysisError: a name that none has.

    >>> protocols(["mnist-flips"])[0].measure
    'label errors'
    """
    listed = {table["name"]: _protocol(table) for table in _document()["protocol"]}
    for name in names:
        if name not in listed:
            raise AnalysisError(f"there is no protocol {name!r}{did_you_mean(name, listed)}; --list names them all")
    return [protocol for name, protocol in listed.items() if name in names or not names]


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(files("study.benchmark").joinpath("protocols.toml").read_text(encoding="utf-8"))


def _protocol(table: Mapping[str, Any]) -> Protocol:
    more = {key: table[key] for key in ("name", "what", "data", "measure", "repeats", "small_batch") if key in table}
    return Protocol(
        **more,
        tables=merge(_document()["recipes"][table["recipe"]], table.get("set", {})),
        shares=tuple(table.get("shares", ())),
        by=tuple(table.get("by", ())),
        published=tuple(Published(**each) for each in table.get("published", ())),
    )


def _place(data: str, folder: Path) -> Mapping[str, Any]:
    places = _document()["data"][data]
    for place in places:
        if all((folder / path).exists() for path in place["needs"]):
            return place
    missing = [next(path for path in place["needs"] if not (folder / path).exists()) for place in places]
    raise DataError(f"no {data} below {folder} (expected {' or '.join(dict.fromkeys(missing))}); name it by --data")


def _below(folder: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with its paths below the folder."""
    return {key: str(folder / value) if key in ("root", "train", "file") else value for key, value in table.items()}
