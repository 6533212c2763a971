"""The trials of one round, each finished exactly once.  in: a storage, a scope   out: trials to train, their verdicts

Several processes share a round without a lock between them; what decides is the order of Optuna's trial numbers, on
which all agree.  A trial that is more than was asked for, or that repeats another, is dropped by whoever drew it; a
trial whose process has died is failed by whoever sees it and queued again with the same values.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.recipe import Recipe, Search
from study.search.space import Scope
from study.search.storage import one_line_errors
from study.tracking.launches import BEAT, GRACE, gone, this_launch

RETRIES = 5  # of a trial that takes its process with it, such as one that needs too much memory
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class Trial:
    """A trial that this process trains.

    number: Optuna's.  first: the number under which it was drawn, before its process died.
    run: id of its MLflow run, once there is one.
    values: (step, value) as reported.
    """

    number: int
    first: int
    params: dict[str, Any]
    recipe: Recipe
    run: str | None
    handle: optuna.Trial = field(repr=False)
    values: list[tuple[int, float]] = field(default_factory=list)


class Lost(Exception):  # noqa: N818  not an error: the trial goes on elsewhere
    """The trial was given to another process, because this one had shown no sign of life."""


class TrialQueue:
    """One round of a search in Optuna's storage."""

    def __init__(self, storage: RDBStorage, name: str, scope: Scope, search: Search, every: int, length: int) -> None:
        """Open the round, make it when it is not there.

        Args:
            storage: see `open_storage`.
            name: of the round.
            scope: what it tries.
            search: how many, sampler, pruner.
            every: steps between two reports.
            length: the last step.
        """
        self.storage, self.name, self.scope = storage, name, scope
        self.own: dict[int, Trial] = {}
        self.last_beat = 0.0
        with one_line_errors():
            self.study = optuna.create_study(
                study_name=name,
                storage=storage,
                direction="maximize",
                load_if_exists=True,
                pruner=pruner(search, every, length),
            )
        self.target = None if scope.grid else search.trials

    def seed(self, draw: Callable[..., int], search: Search) -> None:
        """Queue the grid, or the recipe's own values; give the sampler a stream that no other launch has.

        Under the lock of the search: two processes that did this at once would queue twice.  What a kill has left
        half queued is completed.
        """
        with one_line_errors():
            launch = self.study.user_attrs.get("launches", 0)
            self.study.set_user_attr("launches", launch + 1)
            self.study.sampler = sampler(search, draw("search", "sampler", self.name, launch))
            if self.scope.grid:
                queued = {_key(trial.params) for trial in self.trials()}
                for point in self.scope.points():
                    if _key(point) not in queued:
                        self._queue(point, {})
            elif not self.trials():
                self.study.enqueue_trial(self.scope.given_values())

    def trials(self) -> list[FrozenTrial]:
        """All trials of the round, by number."""
        with one_line_errors():
            return self.study.get_trials(deepcopy=False)

    def finished(self) -> list[FrozenTrial]:
        """Those that count: completed or pruned."""
        return [trial for trial in self.trials() if trial.state in FINISHED]

    def total(self) -> int:
        """How many are to be finished."""
        return len(self.scope.points()) if self.target is None else self.target

    def over(self) -> bool:
        """Whether nothing is left to train, here or elsewhere."""
        trials = self.trials()
        states = [trial.state for trial in trials if trial.state != TrialState.FAIL]
        enough = not self._orphans(trials) if self.target is None else len(states) >= self.target
        return enough and all(state.is_finished() for state in states)

    def kept(self, count: int) -> list[FrozenTrial]:
        """The completed trials with the highest values, best first; of equals the earlier."""
        done = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return sorted(done, key=lambda trial: (-(trial.value or 0.0), trial.number))[:count]

    def best(self) -> FrozenTrial | None:
        """The completed trial with the highest value."""
        return next(iter(self.kept(1)), None)

    # ------------------------------------------------------------------------------------------------------ one trial

    def ask(self) -> Trial | None:
        """The next trial to train; None when enough are finished or under way."""
        with one_line_errors(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Heartbeat of storage")  # `beat` keeps it going
            while True:
                alive = [trial for trial in self.trials() if trial.state != TrialState.FAIL]
                queued = any(trial.state == TrialState.WAITING for trial in alive)
                if not queued and (self.target is None or len(alive) >= self.target):
                    return None
                handle = self.study.ask()
                handle.set_user_attr("worker", this_launch())
                self.storage.record_heartbeat(handle._trial_id)
                reason = self._superfluous(handle.number)
                if reason is None:
                    return self._taken(handle)
                handle.set_user_attr("end", reason)
                self.study.tell(handle, state=TrialState.FAIL)

    def _taken(self, handle: optuna.Trial) -> Trial:
        self.scope.suggest(handle)
        attributes = handle.user_attrs
        trial = Trial(
            handle.number,
            attributes.get("first", handle.number),
            handle.params,
            self.scope.recipe(handle.params),
            attributes.get("run"),
            handle,
        )
        self.own[trial.number] = trial
        return trial

    def note(self, trial: Trial, **facts: Any) -> None:
        """Keep facts with a trial that runs; a retried trial inherits them."""
        with self._update(trial):
            for key, value in facts.items():
                trial.handle.set_user_attr(key, value)

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Report a value; whether the pruner ends the trial here.

        Raises:
            Lost: the trial is no longer this process's.
        """
        with self._update(trial):
            trial.handle.report(value, step)
            trial.values.append((step, value))
            return trial.handle.should_prune()

    def complete(self, trial: Trial, value: float) -> None:
        """The trial has come to its end, with this value."""
        with self._update(trial):
            self.study.tell(trial.handle, value)
        del self.own[trial.number]

    def prune(self, trial: Trial, why: str) -> None:
        """The trial ends before its time and counts: its last report is its value, without one it is the worst."""
        with self._update(trial):
            trial.handle.set_user_attr("end", why)
            self.study.tell(trial.handle, state=TrialState.PRUNED)
        del self.own[trial.number]

    def give_back(self, trial: Trial) -> None:
        """The trial was stopped; it is queued again with the same values."""
        with suppress(Lost), self._update(trial):
            trial.handle.set_user_attr("stopped", True)
            self.study.tell(trial.handle, state=TrialState.FAIL)
        self.own.pop(trial.number, None)
        self._requeue()

    # --------------------------------------------------------------------------------------------------- other workers

    def beat(self) -> None:
        """Show that this process's trials are alive; look after those of others.  To be called every second or so."""
        now = time.monotonic()
        if now - self.last_beat < BEAT:
            return
        self.last_beat = now
        with one_line_errors():
            for trial in list(self.own.values()):
                self.storage.record_heartbeat(trial.handle._trial_id)
        self.reap()

    def reap(self) -> None:
        """Fail the trials of processes that are gone, and queue them again.

        Gone is a process of this machine that does not run, at once; one of another machine after two minutes without
        a sign of life.
        """
        old = datetime.now() - timedelta(seconds=GRACE)
        with one_line_errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            for trial in self.trials():
                if trial.state != TrialState.RUNNING or trial.number in self.own:
                    continue
                process = trial.user_attrs.get("worker")
                silent = trial.datetime_start is None or trial.datetime_start < old
                if gone(process) if process else silent:
                    with suppress(UpdateFinishedTrialError):
                        self.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
            optuna.storages.fail_stale_trials(self.study)
        self._requeue()

    def others(self) -> int:
        """Trials that other living processes train."""
        running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        return sum(trial.number not in self.own for trial in running)

    def _orphans(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Failed trials whose end nobody has decided and that are not queued again; after RETRIES they are given up."""
        followed = {trial.user_attrs.get("retry_of") for trial in trials}
        failed = [trial for trial in trials if trial.state == TrialState.FAIL and trial.number not in followed]
        return [trial for trial in failed if "end" not in trial.user_attrs and _retries(trial) <= RETRIES]

    def _requeue(self) -> None:
        for trial in self._orphans(self.trials()):
            attributes = trial.user_attrs
            facts = {key: attributes[key] for key in ("run",) if key in attributes}
            facts |= {
                "first": attributes.get("first", trial.number),
                "retry_of": trial.number,
                "retries": _retries(trial),
            }
            self._queue(trial.params, facts, trial.system_attrs)

    def _queue(self, params: dict[str, Any], facts: dict[str, Any], system: dict[str, Any] | None = None) -> None:
        distributions = {name: self.scope.distributions[name] for name in params}
        fixed = {key: value for key, value in (system or {}).items() if key == "fixed_params"}
        with one_line_errors():
            self.study.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    params=params,
                    distributions=distributions,
                    user_attrs=facts,
                    system_attrs=fixed,
                )
            )

    def _superfluous(self, number: int) -> str | None:
        """Why a trial that was just drawn is dropped; of several that are one too many, the later ones are."""
        trials = self.trials()
        drawn = next(trial for trial in trials if trial.number == number)
        before = [trial for trial in trials if trial.number < number]
        alive = [trial for trial in before if trial.state != TrialState.FAIL]
        source = drawn.user_attrs.get("retry_of")
        if source is not None and any(trial.user_attrs.get("retry_of") == source for trial in before):
            return "queued twice"
        if self.target is None:
            listed = bool(drawn.params) and all(trial.params != drawn.params for trial in alive)
            return None if listed else "not of the grid, or there already"
        return "one more than asked for" if len(alive) >= self.target else None

    @contextmanager
    def _update(self, trial: Trial) -> Iterator[None]:
        """Around what is written of a trial; another process may have ended it already: then it is lost, not wrong."""
        try:
            with one_line_errors():
                yield
        except (UpdateFinishedTrialError, ValueError) as error:
            if not self.storage.get_trial(trial.handle._trial_id).state.is_finished():
                raise
            self.own.pop(trial.number, None)
            raise Lost from error


def sampler(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler that the recipe names; TPE and GP begin with `startup` random trials."""
    startup = search.startup
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return {
            "tpe": lambda: optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed),
            "gp": lambda: optuna.samplers.GPSampler(n_startup_trials=startup, seed=seed),
            "qmc": lambda: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
            "random": lambda: optuna.samplers.RandomSampler(seed),
            "grid": lambda: optuna.samplers.RandomSampler(seed),  # never asked: the grid is queued
        }[search.sampler]()


def pruner(search: Search, every: int, length: int) -> optuna.pruners.BasePruner:
    """The pruner that the recipe names; a trial is safe until it has made more than `warmup` reports."""
    late = {"n_startup_trials": search.startup, "n_warmup_steps": search.warmup * every + 1}
    first = max(1, search.warmup) * every
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return {
            "median": lambda: optuna.pruners.MedianPruner(**late),
            "percentile": lambda: optuna.pruners.PercentilePruner(75.0, **late),
            "halving": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3),
            "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=first, max_resource=length),
            "none": optuna.pruners.NopPruner,
        }[search.pruner]()


def _retries(trial: FrozenTrial) -> int:
    """How often a trial would have been retried with one more; stopping it on request does not count."""
    return trial.user_attrs.get("retries", 0) + (not trial.user_attrs.get("stopped"))


def _key(params: dict[str, Any]) -> tuple:
    return tuple(sorted((name, str(value)) for name, value in params.items()))
