"""The whole recipe.  in: sections   out: a frozen Recipe, its parts, its digest, its parameters for MLflow"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from study.errors import RecipeError
from study.random_streams import random_stream
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
    Train,
)
from study.recipe.subset import Subset
from study.recipe.sweep import Sweep
from study.recipe.validation_messages import one_line

SCHEMA = 2
PIXELS = ("size", "channels", "limit", "limit_test", "classes")  # what a recipe says of the data beside where it lies
SAMPLING = {"order", "scores", "pacing", "pacing_start", "pacing_end", "weights"}  # keys of [train]
EDITS = ("decisions", "keep")  # files that change them; no part of the digest, for that of the data differs


class Recipe(Section):
    """The whole of a study: data, subset ensemble, single runs, proxies.

    why: the question, which becomes the description of the runs.
    kind: study (ensemble, single runs, report), or one part alone.
    seed: of all random streams.
    proxies: what single runs compute, by name, with settings; none named: those that are free, need a pass, or n x n;
        all = {}: every one.
    signals: settings of the sources of signals, by the source's name.
    """

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
    proxies: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    signals: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    search: Search = Search()
    sweep: Sweep = Sweep()
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _overrides_fit(self) -> "Recipe":
        self.part("single")
        if self.kind != "single" and self.train.samples:
            raise RecipeError("train.order and train.weights concern single runs; write them under [single.train]")
        return self

    def part(self, kind: str) -> "Recipe":
        """The recipe of one kind of run: `ensemble` drops the single runs' overrides, `single` merges them in."""
        plain = Single(**self.single.model_dump(exclude={"model", "optimizer", "schedule", "train"}))
        if kind == "ensemble":
            return self.model_copy(update={"kind": kind, "single": plain})
        merged = {"kind": kind, "single": plain}
        for name, section in (("model", Model), ("optimizer", Optimizer), ("schedule", Schedule), ("train", Train)):
            override = getattr(self.single, name)
            if not override:
                continue
            try:
                merged[name] = section(**merge(getattr(self, name).model_dump(), override))
            except ValidationError as error:
                raise RecipeError(one_line(error, section, f"single.{name}")) from None
        return self.model_copy(update=merged)

    def training(self) -> dict[str, Any]:
        """What decides which networks come out: everything but why, counts, runtime, read-outs and paths.

        Of the network its code too, see `models.build.identity`.
        """
        from study.models.build import identity  # needs torch, which the check of a recipe's form does without

        settings = self.model_dump(include={"seed", "optimizer", "schedule", "train"})
        settings["train"] = _train_digest(self.train)
        settings["model"] = identity(self.model.spec())
        settings["noise"] = self.noise.model_dump(exclude={"file"})
        settings["data"] = self.data.model_dump(include={"name", *PIXELS})
        if self.data.limit_test is None:  # digests are as they were before there was this key
            del settings["data"]["limit_test"]
        if self.kind == "ensemble":
            settings["subset"] = self.subset.model_dump(include={"design", "min_class"})
            if self.subset.group_duplicates:
                settings["subset"]["group_duplicates"] = True
        return {"kind": self.kind, "schema": SCHEMA, **settings}

    def digest(self) -> str:
        """16 hex digits of SHA-256 over `training()`; the same for the recipe written out and read back."""
        return hashlib.sha256(json.dumps(self.training(), sort_keys=True).encode()).hexdigest()[:16]

    def stream(self, *words: object) -> np.random.Generator:
        """A generator that depends on the seed and the words alone: the only source of randomness in the house."""
        return random_stream(self.seed, *words)


def _train_digest(train: Train) -> dict[str, Any]:
    """The settings of a training; of files of scores and weights their content.

    Raises:
        RecipeError: a file that cannot be read.
    """
    settings = train.model_dump(exclude=SAMPLING)
    if not train.samples:  # digests are as they were before there were these keys
        return settings
    settings |= train.model_dump(include=SAMPLING - {"scores", "weights"})
    for name in ("scores", "weights"):
        file = getattr(train, name)
        try:
            settings[name] = file and hashlib.sha256(FilePath(file).expanduser().read_bytes()).hexdigest()
        except OSError as error:
            raise RecipeError(f"train.{name}: {file}: {error.strerror}; name a CSV file") from None
    return settings


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
    settings = recipe.model_dump(exclude={"why", "kind", "single", "proxies", "signals", "search", "sweep", "runtime"})
    edits = [key for key in EDITS if settings["data"][key]]
    settings["data"] = {key: settings["data"][key] for key in ("name", *PIXELS, *edits)}
    if not recipe.subset.until.active:
        settings["subset"].pop("until")
    if recipe.kind != "ensemble":
        settings.pop("subset")
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        elif isinstance(value, tuple):
            flat[prefix] = ", ".join(str(item) for item in value) or "none"
        else:
            flat[prefix] = "none" if value is None else str(value)

    walk("", settings)
    return flat
