"""A search for hyper-parameters.  in: a recipe with [search], a Dataset, a Store   out: trials as runs, the winner

Optuna suggests, an engine trains, the winner becomes a recipe.  Several processes may work on one search; a
killed one goes on where it was.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path

from study.data import Dataset
from study.errors import AnalysisError, RecipeError, Stopped
from study.models import build
from study.progress import Bar, duration, number, quiet, say
from study.recipe import Recipe, dump, flatten
from study.runs.data_note import log_data
from study.runs.jobs import runtime_of, template_of
from study.runs.speed import seconds_per_example
from study.search import summary, winner
from study.search.objectives import OBJECTIVES, REPORTS, Objective, validation_rows
from study.search.space import Scope
from study.search.storage import close, open_storage
from study.search.trial_queue import TrialQueue
from study.search.trial_runner import TrialRunner, listed
from study.tracking import Run, Store, descriptions
from study.training.autotune import place_network
from study.training.engines.base import Context, Engine
from study.training.engines.stacked import Stacked, one_stack
from study.training.engines.threads import Threads
from study.training.fit import computing
from study.training.results import Hooks


def search_name(recipe: Recipe, dataset: Dataset) -> str:
    """The search's name in storage and store: everything that decides what its trials are, but not how many."""
    part = recipe.part("ensemble")
    facts = {"training": part.training(), "subset": part.subset.model_dump(), "data": dataset.digest}
    facts["search"] = recipe.search.model_dump(exclude={"trials"})
    if _validates_clean(recipe, dataset):
        facts["validation"] = "clean"
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def check_search(recipe: Recipe, dataset: Dataset | None = None) -> list[Recipe]:
    """Whether every trial that the search may draw can run; the recipes at the corners of its space.

    Raises:
        RecipeError: a name, a value, a combination that cannot run; a network that does not take the images.
    """
    search = recipe.search
    if not search.space:
        raise RecipeError(
            "search.space is empty; say what to try: "
            "[search.space] optimizer.lr = { low = 1e-4, high = 1.0, log = true }"
        )
    if recipe.train.samples:
        raise RecipeError("a search takes every example once an epoch; remove train.order and train.weights")
    if search.sampler != "grid" and not all(further.space for further in search.rounds):
        raise RecipeError("search.rounds: a round without a space tries nothing; say what it tries")
    corners = [corner for scope in _rehearsed(recipe) for corner in scope.check()]
    if dataset is not None:
        for model in {repr(corner.model): corner.model for corner in corners}.values():
            build.fit_check(model.spec(), dataset.shape, dataset.n_classes)
    return corners


def cost(recipe: Recipe, dataset: Dataset) -> str:
    """What the search will take at most, in a line: trials, examples, time on this machine when nothing is pruned.

    Raises:
        RecipeError: see `check_search`.
    """
    check_search(recipe, dataset)
    search, part = recipe.search, recipe.part("ensemble")
    template, seen = template_of(part), search.trials * part.train.seen(dataset.n_train)
    placement = place_network(template, dataset, runtime_of(part), seen, trials=True)
    work = OBJECTIVES[search.objective](part, dataset, validation_rows(recipe, dataset))
    trials, total, bases = 0, 0.0, 1
    for scope in _rehearsed(recipe):
        count = bases * len(scope.points()) if scope.grid else search.trials
        corners = scope.check()
        each = sum(work.seen(corner.part("ensemble")) for corner in corners) / len(corners)
        trials, total, bases = trials + count, total + count * each, min(search.keep, count)
    seconds, _ = seconds_per_example(template, dataset, placement)
    return (
        f"search: {trials} trials, {number(total)} examples, at most about {duration(seconds * total)} "
        f"when nothing is pruned"
    )


@dataclass
class Search:
    """A search that this process takes part in."""

    recipe: Recipe
    dataset: Dataset
    store: Store
    name: str
    work: Objective
    engine: Engine
    stop: threading.Event
    bar: Bar

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which its runs know each other."""
        return {"study.digest": self.name, "study.data": self.dataset.digest}

    def locked(self) -> object:
        """A lock: joining and ending are not done by two processes at once."""
        return _lock(self.store, self.recipe, self.name)

    def round(self, storage: object, scope: Scope, turn: int, parent: Run) -> TrialQueue:
        """Work on one round until it is over, here and elsewhere."""
        search = self.recipe.search
        length = max(self.work.length(corner.part("ensemble")) for corner in scope.check())
        every = -(-length // REPORTS)
        if self.work.validation:
            self.work.validation.every = every
        title = self.name if turn == 1 else f"{self.name} round {turn} of {' '.join(scope.bases)}"
        queue = TrialQueue(storage, title, scope, search, every, length)
        with self.locked():
            queue.reap()
            queue.seed(lambda *words: int(self.recipe.stream(*words).integers(2**31)), search)
        done, total = len(queue.finished()), queue.total()
        shown = f"search, {total} trials" if turn == 1 else f"round {turn}, {total} trials"
        with self.bar(shown, total * length, unit="epochs", done=done * length) as advance:
            session = TrialRunner(queue, self.work, self.store, parent, search, turn, advance)
            try:
                self._until_over(queue, session)
            except BaseException as error:
                session.abandon(
                    "stopped on request; the same command goes on" if isinstance(error, Stopped) else "died"
                )
                raise
        return queue

    def _until_over(self, queue: TrialQueue, session: TrialRunner) -> None:
        said = False
        while True:
            with closing(self.engine.results(session.next_job, idle=queue.beat)) as results:
                for job, result in results:
                    session.hear(job, result)
            if queue.over():
                return
            if not said:
                say(f"waiting for {queue.others()} trials of other processes")
                said = True
            queue.reap()
            if self.stop.wait(1.0):
                raise Stopped


def run_search(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    path: Path,
    *,
    out: Path | None = None,
    storage: str | None = None,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> tuple[Run, Path]:
    """Train trials until as many are finished as the recipe asks for, write the winner.

    Args:
        recipe: its [search]; trials train as members of its ensemble do.
        dataset: trials train on the training rows without the validation rows; test rows choose nothing.
        store: where runs go: a parent, `<data>/search`, and a child per trial.
        path: the recipe's file; the winner is written as what differs from it.
        out: the winner's file; see `winner.place`.
        storage: Optuna's storage URL; `optuna.db` beside the store's database unless given.
        stop: set to end after the step under way; the trials under way are repeated by the same command.
        bar: display of the progress.

    Returns:
        The parent run, FINISHED: `trials.parquet`, `best.toml`, `figures/`; and the winner's file.

    Raises:
        Stopped: `stop` was set.
        RecipeError: a space that cannot be searched.
        AnalysisError: no trial came to its end.
    """
    name = search_name(recipe, dataset)
    out = winner.place(out, Path(path), name)
    corners = check_search(recipe, dataset)
    stop = stop or threading.Event()
    opened = open_storage(store.root, storage)
    try:
        search, parent = _open(recipe, dataset, store, name, corners, stop, bar)
        try:
            with computing(search.engine.context.placement):
                queues = _rounds(search, opened, parent)
            return _conclude(search, queues, parent, Path(path), out), out
        except Stopped:
            _stopped(search, parent)
            raise
        except Exception as error:
            parent.fail(f"{type(error).__name__}: {error}")
            raise
    finally:
        close(opened)


def _open(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    name: str,
    corners: list[Recipe],
    stop: threading.Event,
    bar: Bar,
) -> tuple[Search, Run]:
    """Find or start the parent run, choose the placement as it was chosen then."""
    tags = {"study.digest": name, "study.data": dataset.digest}
    part = recipe.part("ensemble")
    with _lock(store, recipe, name):
        store.reap(tags)
        before = store.find("search", tags=tags, max=1)
        can_stack = build.stackable(part.model.spec())
        seen = recipe.search.trials * part.train.seen(dataset.n_train)
        like = before[0].tags if before else None
        placement = place_network(template_of(part), dataset, runtime_of(part), seen, like=like, trials=True)
        if any(_random(corner, dataset) for corner in corners):
            placement = placement.alone(wide=not can_stack)
        work = OBJECTIVES[recipe.search.objective](part, dataset, validation_rows(recipe, dataset))
        stacked = placement.stack > 1 and work.validation is not None and _one_stack(work, corners)
        if placement.device != "cpu" and not stacked:
            placement = replace(placement, threads=1, stack=1)
        if _validates_clean(recipe, dataset):
            say("label noise: trials train on noisy labels and are validated on the labels before the noise")
        parent = before[0] if before else _start(store, recipe, dataset, tags | placement.tags())
        if parent.status != "RUNNING":
            parent = store.resume(parent)
    context = Context(work.dataset, placement, Hooks(stop=stop), work.validation)
    engine = Stacked(context) if stacked else Threads(context)
    return Search(recipe, dataset, store, name, work, engine, stop, bar), parent


def _lock(store: Store, recipe: Recipe, name: str) -> AbstractContextManager[None]:
    """The lock of a search, which its processes hold for a moment each, on whichever machine."""
    return store.lock(f"search-{name}", lambda holder: None, experiment=f"{recipe.data.title}/search")


def _one_stack(work: Objective, corners: list[Recipe]) -> bool:
    """Whether all trials of the space can train as one stack."""
    return one_stack([job for corner in corners for job in work.jobs(None, corner.part("ensemble"))])


def _validates_clean(recipe: Recipe, dataset: Dataset) -> bool:
    """Whether trials are judged by the labels before the noise."""
    return recipe.search.objective == "accuracy" and dataset.labels_before_noise is not None


def _random(recipe: Recipe, dataset: Dataset) -> bool:
    return build.draws_random_numbers(recipe.model.spec(), dataset.shape, dataset.n_classes)


def _start(store: Store, recipe: Recipe, dataset: Dataset, tags: Mapping[str, str]) -> Run:
    search = recipe.search
    settings = {f"search.{key}": value for key, value in search.model_dump(exclude={"space", "rounds"}).items()}
    tried = {f"search.space.{key}": _range(space.model_dump()) for key, space in search.space.items()}
    run = store.start(
        f"{recipe.data.title}/search",
        descriptions.search_name(recipe, tags["study.digest"]),
        params=flatten(recipe.part("ensemble"))
        | {key: value for key, value in settings.items() if key != "search.trials"}
        | tried
        | ({"search.validation_labels": "before the noise"} if _validates_clean(recipe, dataset) else {}),
        tags={**tags, "study.kind": "search"},
        description=descriptions.search_note(recipe),
    )
    log_data(run, dataset)
    run.text("recipe.toml", dump(recipe))
    return run


def _range(space: Mapping[str, object]) -> str:
    facts = {key: value for key, value in space.items() if value not in (None, (), {}, False)}
    return json.dumps(facts)


def _scope(recipe: Recipe, space: Mapping, bases: Mapping[str, Recipe]) -> Scope:
    return Scope(bases, space, recipe.search.sampler == "grid")


def _rehearsed(recipe: Recipe) -> Iterator[Scope]:
    """The scope of each round, as if the round before had kept the first of its corners alone."""
    search = recipe.search
    scope = _scope(recipe, search.space, {"": recipe})
    yield scope
    for further in search.rounds:
        scope = replace(_scope(recipe, further.space, {"": scope.check()[0]}), fixed=further.set)
        yield scope


def _rounds(search: Search, storage: object, parent: Run) -> list[TrialQueue]:
    """The first round, then each further one over the trials that the one before has kept."""
    settings = search.recipe.search
    scope = _scope(search.recipe, settings.space, {"": search.recipe})
    queues = [search.round(storage, scope, 1, parent)]
    for turn, further in enumerate(settings.rounds, 2):
        kept = queues[-1].kept(settings.keep)
        if not kept:
            break
        values = ", ".join(f"{trial.number} ({trial.value:.4f})" for trial in kept)
        say(f"round {turn} extends the trials {values}")
        old = queues[-1].scope
        bases = {str(trial.number): old.recipe(trial.params) for trial in kept}
        scope = replace(_scope(search.recipe, further.space, bases), fixed=further.set)
        queues.append(search.round(storage, scope, turn, parent))
    return queues


def _conclude(search: Search, queues: list[TrialQueue], parent: Run, path: Path, out: Path) -> Run:
    """Table, figures, winner; by the first process that comes here, the others find it done."""
    best = queues[-1].best()
    if best is None:
        raise AnalysisError("no trial of the search came to its end: all diverged or were pruned; widen search.space")
    scope, metric = queues[-1].scope, search.work.metric
    recipe, values = scope.recipe(best.params), scope.values(best.params)
    count = sum(len(queue.finished()) for queue in queues)
    first = best.user_attrs.get("first", best.number)
    measure = descriptions.measure(search.recipe)
    header = [
        f"The winner of {count} trials: trial {first}, {measure} {best.value:.4f}.",
        "cost: as the recipe that was searched; `study plan` tells",
        f"run:  study run {out}",
    ]
    text = winner.write(out, path, recipe, header, search.name)
    with search.locked():
        parent = search.store.get(parent.id)
        if parent.status == "FINISHED" and parent.tags.get("study.trials") == str(count):
            return parent
        if parent.status != "RUNNING":
            parent = search.store.resume(parent)
        with parent:
            trials = summary.table(queues)
            parent.table("trials.parquet", trials)
            parent.text("best.toml", text)
            summary.draw(parent, queues, trials, metric)
            facts = {"search/value": best.value, "search/trials": count}
            facts["search/pruned"] = int((trials["state"] == "PRUNED").sum())
            if "test_accuracy" in best.user_attrs:
                facts["test/accuracy"] = best.user_attrs["test_accuracy"]
            parent.log(facts)
            parent.tag("study.trials", count)
            parent.tag("study.best", f"trial {first}: {listed(values)}"[:5000])
    say(f"winner: trial {first}, {measure} {best.value:.4f}, {listed(values)}")
    return search.store.get(parent.id)


def _stopped(search: Search, parent: Run) -> None:
    """KILLED, unless others are still at work on it."""
    running = search.store.find("trial", tags=search.tags, status="RUNNING", parent=parent, max=1)
    if not running:
        parent.kill("stopped on request; the same command goes on")
