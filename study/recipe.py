"""Recipes: what is trained, on what, how.  in: a TOML file, overrides   out: a frozen Recipe, its digest and streams"""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from study.errors import RecipeError

SCHEMA = 1
PIXELS = ("size", "channels", "limit", "classes")  # what a recipe says of the data beside where it lies
BASE_STEPS = 2  # a recipe, its base, and that one's base: more and nobody can say what runs
Scalar = bool | int | float | str
UNION = ("bool", "int", "float", "str")  # what pydantic calls the kinds of a Scalar
SCALAR = "must be a number, text, true or false, or for a network's settings a list of these"
MESSAGES = {
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_pattern_mismatch": "must be auto, cpu, cuda, or one of several such as cuda:1",
}
MISSING = dict.fromkeys(("data", "data.name"), "; say which examples: [data] name = 'digits'")
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of the recipe: frozen, keyword-only, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Data(Section):
    """Which examples: the name of a source, where it lies, what is taken of it."""

    name: str
    label: str | None = None  # the name under which MLflow files it; the source's name when missing
    root: str | None = None
    train: str | None = None
    test: str | None = None
    size: Annotated[int, Field(ge=4, le=1024)] | None = None
    channels: Literal[1, 3] | None = None
    limit: Count | None = None
    classes: tuple[str, ...] | None = None
    download: bool = True

    @property
    def title(self) -> str:
        """The data set's name in MLflow."""
        return self.label or self.name


class Subset(Section):
    """The subset ensemble: ratios of the training set, members at each, how subsets are drawn (J-alg1, J-integral)."""

    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    members: Annotated[int, Field(ge=2)] = 20
    design: Literal["uniform", "balanced"] = "balanced"

    @field_validator("ratios")
    @classmethod
    def _ratios_rise(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        if not ratios or list(ratios) != sorted(set(ratios)):
            raise ValueError("the ratios must rise and must not repeat")
        if any(round(ratio, 2) != ratio for ratio in ratios):
            raise ValueError("a ratio is a whole percentage, 0.01 to 0.99")
        return ratios


class Model(Section):
    """A network by its registered name; settings go to its constructor."""

    name: str = "mlp"
    settings: dict[str, Scalar | tuple[Scalar, ...]] = {}

    @field_validator("settings", mode="before")
    @classmethod
    def _setting_lists_are_tuples(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}


class Optimizer(Section):
    """The update rule.  `momentum` is SGD's or Adam's beta1; `weight_decay` is the L2 term in the gradient."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Positive = 1e-8


class Schedule(Section):
    """The learning rate over the training, as a factor on `optimizer.lr`.

    constant; step: times `factor` at each of `milestones` (epochs, in order); triangular: from 0 to 1 over the first
    `peak` of the steps, then to 0 (J-tab2's 15 %); cosine: half a cosine from 1 to 0.
    """

    name: Literal["constant", "step", "triangular", "cosine"] = "constant"
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.15
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _steps_have_milestones(self) -> "Schedule":
        if self.name == "step" and not self.milestones:
            raise ValueError(
                "a step schedule needs milestones, the epochs at which the rate falls: milestones = [60, 90]"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("the milestones must rise and must not repeat")
        return self


class Train(Section):
    """Passes over the subset, batch size, augmentation (random padded crop, left-right flip), scaling of the pixels."""

    epochs: Count = 10
    batch_size: Count = 128
    pad: Annotated[int, Field(ge=0, le=64)] = 0
    flip: bool = False
    normalize: Literal["unit", "standard"] = "unit"  # 0..1, or mean 0 and SD 1 per channel over the training split


class Single(Section):
    """The single runs on all examples: how many, and what in them differs from the ensemble's members."""

    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    every: Count = 1  # hidden densities are taken after every so many epochs, and after the last
    model: dict[str, Any] = {}
    optimizer: dict[str, Any] = {}
    schedule: dict[str, Any] = {}
    train: dict[str, Any] = {}


class Runtime(Section):
    """Where and how it runs; never changes which networks are trained, so it is no part of the digest."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0  # networks at a time on a CPU; 0: one per core
    stack: Annotated[int, Field(ge=0)] = 0  # networks in one stack on a GPU; 0: what the device gains from
    shard: Annotated[int, Field(ge=1, le=500)] = 10  # members in one shard, the unit of resume


class Recipe(Section):
    """The whole of a study: data, subset ensemble, single runs, read-outs."""

    why: str = ""
    kind: Literal["study", "ensemble", "single"] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data
    subset: Subset = Subset()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train = Train()
    single: Single = Single()
    proxies: dict[str, dict[str, Scalar]] = {}  # none named: every one that is registered
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _overrides_fit(self) -> "Recipe":
        self.part("single")
        return self

    def part(self, kind: str) -> "Recipe":
        """The recipe of one kind of run: `ensemble` drops the single runs' overrides, `single` merges them in."""
        if kind == "ensemble":
            return self.model_copy(
                update={"kind": kind, "single": Single(repeats=self.single.repeats, every=self.single.every)}
            )
        merged = {"kind": kind, "single": Single(repeats=self.single.repeats, every=self.single.every)}
        for name, section in (("model", Model), ("optimizer", Optimizer), ("schedule", Schedule), ("train", Train)):
            own = getattr(self, name).model_dump()
            try:
                merged[name] = section(**merge(own, getattr(self.single, name)))
            except ValidationError as error:
                raise RecipeError(_one_line(error, section, f"single.{name}")) from None
        return self.model_copy(update=merged)

    def training(self) -> dict[str, Any]:
        """What decides which networks come out: everything but why, counts, runtime, read-outs and paths."""
        told = self.model_dump(include={"seed", "model", "optimizer", "schedule", "train"})
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
    told = recipe.model_dump(exclude={"why", "kind", "single", "proxies", "runtime"})
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
        raise RecipeError(f"{source}: {_one_line(error, Recipe)}") from None
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


def _one_line(error: ValidationError, section: type[Section], prefix: str = "") -> str:
    errors = error.errors(include_url=False)
    first = errors[0]
    loc = [str(part) for part in first["loc"]]
    kinds = [part for part in loc if part in UNION]
    loc = loc[: loc.index(kinds[0])] if kinds else loc  # pydantic names each kind that a value could have been
    others = {other["loc"][: len(loc)] for other in errors} - {first["loc"][: len(loc)]}
    more = f" (and {len(others)} more)" if others else ""
    where = ".".join(filter(None, (prefix, *loc)))
    if first["type"] == "extra_forbidden":
        *tables, key = loc
        return f"unknown key {where!r}{nearest(key, _keys(section, tables))}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{MISSING.get(where, '')}{more}"
    message = SCALAR if kinds else MESSAGES.get(first["type"], first["msg"])
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    given = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{where}: {message}{given}{more}" if where else f"{message}{more}"


def _keys(section: Any, tables: Sequence[object]) -> list[str]:
    for word in tables:
        field = section.model_fields.get(str(word))
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
    return list(section.model_fields)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'optimizer'?`, or what there is, or nothing."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(known))}" if known else ""
