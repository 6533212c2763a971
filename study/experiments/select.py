"""Which runs are compared.  in: recipes, a condition in MLflow's syntax, a Store   out: finished runs, in groups"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.errors import AnalysisError
from study.experiments.cells import Cell, cells, parts, sweep_digest
from study.recipe import Recipe, flatten
from study.recipe.schema import EDITS
from study.runs.ensemble import size_tag
from study.tracking import Run, Store

log = logging.getLogger(__name__)
KINDS = ("ensemble", "single")
REPEATED = ("repeat", "seed")  # parameters in which repeats of one training differ


@dataclass(frozen=True)
class Group:
    """Runs of one training on the same data, which differ in repeat and seed alone.

    label: the parameters in which it differs from the other groups of its kind, as text.
    differing: the same as names and values, the seeds among them where they differ.
    """

    label: str
    kind: str
    data: str
    runs: tuple[Run, ...]
    differing: dict[str, str]


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
    """The newest finished run of each repeat, of those whose data the recipe's files have changed in the same way."""
    tags, edits = {"study.digest": part.digest()}, _edits(flatten(part))

    def newest(kind: str, more: dict[str, object]) -> list[Run]:
        runs = store.find(kind, tags=tags | more, status="FINISHED")
        return [run for run in runs if _edits(run.params) == edits][:1]

    if part.kind == "ensemble":
        return newest("ensemble", {"study.size": size_tag(part)})
    return [run for repeat in range(part.single.repeats) for run in newest("single", {"study.repeat": repeat})]


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

    Raises:
        AnalysisError: there are no runs.
    """
    if not runs:
        raise AnalysisError("no finished runs to compare; name recipes that were run, or a --filter that fits some")
    grouped: dict[tuple, dict[str, Run]] = {}
    for run in runs:
        fixed = tuple(sorted((key, value) for key, value in run.params.items() if key not in REPEATED))
        grouped.setdefault((run.tags["study.kind"], run.tags["study.data"], fixed), {})[run.id] = run
    groups = []
    for (kind, data, _), members in grouped.items():
        params = _params([run for key, others in grouped.items() if key[0] == kind for run in others.values()])
        varied = _differing([tuple(others.values()) for key, others in grouped.items() if key[0] == kind], params)
        values = {name: _value(tuple(members.values()), name) for name in varied}
        label = ", ".join(f"{name} = {value}" for name, value in values.items())
        groups.append(Group(label or kind, kind, data, tuple(members.values()), values))
    return groups


def _params(runs: Sequence[Run]) -> list[str]:
    """All parameters, each once, but the number of the repeat."""
    return [name for name in dict.fromkeys(name for run in runs for name in run.params) if name != "repeat"]


def _differing(groups: Sequence[tuple[Run, ...]], params: Sequence[str]) -> list[str]:
    return sorted(name for name in params if len({_value(runs, name) for runs in groups}) > 1)


def _value(runs: Sequence[Run], name: str) -> str:
    """The value of a parameter in a group; several seeds one after the other, nothing where it has none."""
    return ", ".join(sorted({run.params.get(name, "") for run in runs}))
