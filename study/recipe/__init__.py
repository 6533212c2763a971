"""Recipes: what is trained, on what, how.  in: a TOML file, overrides   out: a frozen Recipe, its digest and streams"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tomli_w
from pydantic import Field, ValidationError, model_validator

from study.errors import RecipeError
from study.recipe.faults import nearest, one_line
from study.recipe.search import Search
from study.recipe.sections import (
    Data,
    Model,
    Noise,
    Optimizer,
    Runtime,
    Scalar,
    Schedule,
    Section,
    Single,
    Subset,
    Train,
)

__all__ = [
    "Data",
    "Model",
    "Noise",
    "Optimizer",
    "Recipe",
    "Runtime",
    "Schedule",
    "Search",
    "Single",
    "Subset",
    "Train",
    "dump",
    "dump_table",
    "flatten",
    "load",
    "merge",
    "nearest",
    "parse",
]

SCHEMA = 2
PIXELS = ("size", "channels", "limit", "classes")  # what a recipe says of the data beside where it lies
BASE_STEPS = 2  # a recipe, its base, and that one's base: more and nobody can say what runs


class Recipe(Section):
    """The whole of a study: data, subset ensemble, single runs, read-outs."""

    why: str = ""
    kind: Literal["study", "ensemble", "single"] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data
    noise: Noise = Noise()
    subset: Subset = Subset()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train = Train()
    single: Single = Single()
    proxies: dict[str, dict[str, Scalar]] = Field(default_factory=dict)  # none: free, pass, n x n; all = {}: every one
    evidence: dict[str, dict[str, Scalar]] = Field(default_factory=dict)  # settings of what proxies read, by its name
    search: Search = Search()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _overrides_fit(self) -> "Recipe":
        self.part("single")
        return self

    def part(self, kind: str) -> "Recipe":
        """The recipe of one kind of run: `ensemble` drops the single runs' overrides, `single` merges them in."""
        plain = Single(**self.single.model_dump(include={"repeats", "look", "every"}))
        if kind == "ensemble":
            return self.model_copy(update={"kind": kind, "single": plain})
        merged = {"kind": kind, "single": plain}
        for name, section in (("model", Model), ("optimizer", Optimizer), ("schedule", Schedule), ("train", Train)):
            own = getattr(self, name).model_dump()
            try:
                merged[name] = section(**merge(own, getattr(self.single, name)))
            except ValidationError as error:
                raise RecipeError(one_line(error, section, f"single.{name}")) from None
        return self.model_copy(update=merged)

    def training(self) -> dict[str, Any]:
        """What decides which networks come out: everything but why, counts, runtime, read-outs and paths."""
        told = self.model_dump(include={"seed", "model", "optimizer", "schedule", "train"})
        told["noise"] = self.noise.model_dump(exclude={"file"})
        told["data"] = self.data.model_dump(include={"name", *PIXELS})
        if self.kind == "ensemble":
            told["subset"] = {"design": self.subset.design}
        return {"kind": self.kind, "schema": SCHEMA, **told}

    def digest(self) -> str:
        """16 hex digits of SHA-256 over `training()`; the same for the recipe written out and read back."""
        return hashlib.sha256(json.dumps(self.training(), sort_keys=True).encode()).hexdigest()[:16]

    def stream(self, *words: object) -> np.random.Generator:
        """A generator that depends on the seed and the words alone: the only source of randomness in the house."""
        text = "\x1f".join(str(word) for word in words)
        key = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4")
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, *key.tolist()])))


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge, everything else (lists too) is replaced; `settings` do not outlive the `name` they were for."""
    merged = dict(base)
    if "name" in base and over.get("name", base["name"]) != base["name"]:
        merged.pop("settings", None)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def flatten(recipe: Recipe) -> dict[str, str]:
    """Dotted names to text, every default filled in: MLflow's params.  Only what can tell two runs of a kind apart."""
    told = recipe.model_dump(exclude={"why", "kind", "single", "proxies", "evidence", "search", "runtime"})
    told["data"] = {key: told["data"][key] for key in ("name", *PIXELS)}
    if recipe.kind != "ensemble":
        told.pop("subset")
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        elif isinstance(value, tuple):
            flat[prefix] = ", ".join(str(item) for item in value) or "none"
        else:
            flat[prefix] = "none" if value is None else str(value)

    walk("", told)
    return flat


def dump(recipe: Recipe) -> str:
    """The resolved recipe as TOML; it reads back to an equal recipe."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def dump_table(table: Mapping[str, Any]) -> str:
    """A part of a recipe as TOML, such as what differs from a base."""
    return tomli_w.dumps(table)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with its bases, apply `a.b=value` overrides, check its form.

    Raises:
        RecipeError: one line with file, key and cure.
    """
    over: dict[str, Any] = {}
    for override in overrides:
        over = merge(over, _override(override))
    return parse(merge(_read(Path(path), BASE_STEPS), over), str(path))


def parse(table: Mapping[str, Any], source: str) -> Recipe:
    """Turn a table into a Recipe; `source` opens the error line."""
    try:
        return Recipe(**table)
    except ValidationError as error:
        raise RecipeError(f"{source}: {one_line(error, Recipe)}") from None
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None


def _read(path: Path, steps: int, of: Path | None = None) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        cure = f"{of} names it as its base" if of else "name a recipe such as recipes/digits/study.toml"
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); {cure}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str):
        raise RecipeError(f"{path}: base must be one path, relative to this file")
    if steps == 0:
        raise RecipeError(f"{path}: base {base!r} is the third step; at most {BASE_STEPS} are allowed")
    return merge(_read(path.parent / base, steps - 1, path), table)


def _override(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"--set {text}: write it as name=value, such as --set optimizer.lr=0.05")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for word in reversed(name.strip().split(".")):
        parsed = {word: parsed}
    return parsed
