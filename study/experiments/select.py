"""Which runs are compared.  in: recipes, a condition in MLflow's syntax, a Store   out: finished runs, in groups"""

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from study.errors import AnalysisError
from study.experiments.cells import Cell, cells, parts, sweep_digest
from study.proxies import chosen
from study.recipe import Recipe, flatten, parse
from study.recipe.schema import EDITS
from study.runs.ensemble import size_tag
from study.runs.single import evaluation_tags
from study.signals import scored_with
from study.tracking import Run, Store

log = logging.getLogger(__name__)
KINDS = ("ensemble", "single")
REPEATED = ("repeat", "seed")  # parameters in which repeats of one training differ


@dataclass(frozen=True)
class Group:
    """Runs of one training on the same data, scored alike, which differ in repeat and seed alone.

    label: the parameters in which it differs from the other groups of its kind, as text.
    differing: the same as names and values, the seeds among them where they differ.
    """

    label: str
    kind: str
    data: str
    runs: tuple[Run, ...]
    differing: dict[str, str]

    @property
    def short(self) -> str:
        """The label for narrow places: `widths 256-128, optimizer sgd`; the kind where nothing differs."""
        values = ((_short_key(name), short_value(name, value)) for name, value in self.differing.items() if value)
        return ", ".join(f"{key} {value}" for key, value in values) or self.kind


def _short_key(name: str) -> str:
    """The last part of a parameter's name, of `optimizer.name` the first."""
    table, _, key = name.rpartition(".")
    return table.rpartition(".")[2] if key == "name" and table else key


def short_value(name: str, value: str) -> str:
    """Widths without commas, `256-128` or `4 x 64`; every other value as it is.

    >>> short_value("model.settings.widths", "64, 64, 64, 64")
    '4 x 64'
    """
    if not name.endswith("widths") or ", " not in value:
        return value
    widths = value.split(", ")
    return f"{len(widths)} x {widths[0]}" if len(set(widths)) == 1 else "-".join(widths)


def runs_of(recipe: Recipe, store: Store) -> tuple[list[Run], Run | None]:
    """The finished runs of a recipe, of a sweep those of all cells, and the sweep's own run where it is there.

    The newest run of each repeat counts.  A cell without finished runs is named in a message and left out.
    """
    listed = cells(recipe) if recipe.sweep.values else [Cell({}, recipe)]
    runs, data = [], []
    for cell in listed:
        of_cell = [run for part in parts(cell.recipe) for run in _finished(part, store)]
        if not of_cell:
            log.warning(f"no finished run of {cell.name or 'the recipe'}; `study run` trains it")
        runs += of_cell
        data += [run.tags["study.data"] for run in of_cell[:1]]
    if not recipe.sweep.values or len(data) < len(listed):
        return runs, None
    sweeps = store.find("sweep", tags={"study.sweep": sweep_digest(listed, data)}, max=1)
    return runs, sweeps[0] if sweeps else None


def _finished(part: Recipe, store: Store) -> list[Run]:
    """The newest finished run of each repeat, of those whose data the recipe's files have changed in the same way.

    Of single runs only those that were scored as the recipe says: cells may differ in their [signals] alone.
    """
    tags, edits = {"study.digest": part.digest()}, _edits(flatten(part))

    def newest(kind: str, more: dict[str, object]) -> list[Run]:
        runs = store.find(kind, tags=tags | more, status="FINISHED")
        return [run for run in runs if _edits(run.params) == edits and _scored_as(run, part)][:1]

    if part.kind == "ensemble":
        return newest("ensemble", {"study.size": size_tag(part)})
    when = evaluation_tags(part)
    return [run for repeat in range(part.single.repeats) for run in newest("single", {"study.repeat": repeat, **when})]


def _scored_as(run: Run, part: Recipe) -> bool:
    """Whether what a single run holds of the recipe's proxies has the settings that the recipe gives them."""
    if part.kind == "ensemble":
        return True
    held = run.read_json("scores.json")
    return all(
        scored_with(spec, part).items() <= held[spec.name].items() for spec in chosen(part.proxies) if spec.name in held
    )


def _edits(params: Mapping[str, str]) -> list[str | None]:
    """Decisions and keep lists; they are no part of the digest, for that of the data says what they have changed."""
    return [params.get(f"data.{name}") for name in EDITS]


def runs_where(condition: str, store: Store) -> list[Run]:
    """The finished ensembles and single runs that a condition in MLflow's syntax selects, the oldest first.

    Raises:
        StoreError: a condition that MLflow cannot read.
    """
    runs = store.search(condition)
    return [run for run in reversed(runs) if run.status == "FINISHED" and run.tags.get("study.kind") in KINDS]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ in repeat and seed alone, on the same data, are one group; in the order of their first runs.

    Of several runs of one repeat and seed the last one counts.

    Raises:
        AnalysisError: there are no runs.
    """
    if not runs:
        raise AnalysisError("no finished runs to compare; name recipes that were run, or a --filter that fits some")
    settings = {run.id: settings_of_run(run) for run in runs}
    grouped: dict[tuple, dict[tuple, Run]] = {}
    for run in runs:
        fixed = tuple(sorted((key, value) for key, value in settings[run.id].items() if key not in REPEATED))
        repeat = tuple(settings[run.id].get(name, "") for name in REPEATED)
        grouped.setdefault((run.tags["study.kind"], run.tags["study.data"], fixed), {})[repeat] = run
    groups = []
    for (kind, data, _), members in grouped.items():
        of_kind = [[settings[run.id] for run in each.values()] for key, each in grouped.items() if key[0] == kind]
        of_group = [settings[run.id] for run in members.values()]
        values = {name: _value(of_group, name) for name in _differing(of_kind)}
        label = ", ".join(f"{name} = {value}" for name, value in values.items())
        groups.append(Group(label or kind, kind, data, tuple(members.values()), values))
    return groups


def settings_of_run(run: Run) -> dict[str, str]:
    """The parameters of a run, and what its recipe sets of signals and proxies.

    A run that was trained before a recipe had some key has that key's default.
    """
    written = run.read("recipe.toml").read_text(encoding="utf-8") if "recipe.toml" in run.files else ""
    recipe = tomllib.loads(written)
    scoring = {
        f"{table}.{name}.{key}": str(value)
        for table in ("signals", "proxies")
        for name, values in recipe.get(table, {}).items()
        for key, value in values.items()
    }
    return {**_defaults(run.tags["study.kind"]), **scoring, **run.params}


@cache
def _defaults(kind: str) -> Mapping[str, str]:
    """The parameters of a recipe that says nothing."""
    return MappingProxyType(flatten(parse({"kind": kind, "data": {"name": "digits"}}, "defaults")))


def _differing(groups: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
    """The names, but that of the repeat, in which groups of settings differ."""
    names = {name for group in groups for settings in group for name in settings} - {"repeat"}
    return sorted(name for name in names if len({_value(group, name) for group in groups}) > 1)


def _value(group: Sequence[Mapping[str, str]], name: str) -> str:
    """The value of a parameter in a group; several seeds one after the other, nothing where it has none."""
    return ", ".join(sorted({settings.get(name, "") for settings in group}))
