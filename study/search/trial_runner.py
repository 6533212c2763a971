"""One process at work on one round.  in: a trial queue, a store   out: trained trials, each a child run in MLflow"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from study.progress import say
from study.recipe import Search, flatten
from study.search.objectives import Objective, Report
from study.search.trial_queue import Lost, Trial, TrialQueue
from study.tracking import Run, Store, descriptions
from study.training.results import Evaluation, Result
from study.training.types import Job

FLUSH = 1.0  # seconds between two writes of a trial's curves
INHERITED = ("study.digest", "study.data", "study.placement", "study.precision")  # tags of the parent on each child


def score(search: Search, values: Sequence[float]) -> float:
    """What a trial that came to its end is worth.

    last: its last report.  stable: mean less standard deviation of the reports of its last quarter, at least three: a
    curve that is high and does not jump.

    Source: B-search takes "the 7 most accurate and stable training curves" (Baldock et al. 2021, A.3) and gives no
        rule; this one is ours.
    """
    if search.score == "last":
        return float(values[-1])
    tail = np.asarray(values)[-max(3, math.ceil(len(values) / 4)) :]
    return float(tail.mean() - tail.std())


class TrialRunner:
    """Between the engine, the trial queue and MLflow; all of it in the launch's own thread."""

    def __init__(
        self,
        queue: TrialQueue,
        work: Objective,
        store: Store,
        parent: Run,
        search: Search,
        number: int,
        advance: Callable[[int], None],
    ) -> None:
        """Take up a round.

        Args:
            queue: its trials.
            work: what a trial trains.
            store: where runs go.
            parent: the search's run.
            search: how trials are scored.
            number: of the round, from 1.
            advance: the display; counts steps of trials.
        """
        self.queue, self.work, self.store, self.parent, self.search = queue, work, store, parent, search
        self.number, self.advance = number, advance
        self.runs: dict[int, Run] = {}
        self.steps: dict[int, int] = {}
        self.unlogged: dict[int, list[Report]] = {}
        self.logged: dict[int, float] = {}
        self.waiting: dict[int, deque[Job]] = {}  # by the trial's number
        self.training: set[int] = set()

    def next_job(self) -> Job | None:
        """The next job of a trial that waits for one, or the first of a new trial, whose run is begun or taken up
        again.  A trial trains one network at a time.
        """
        for number, jobs in self.waiting.items():
            if jobs and number not in self.training:
                return self._given(number)
        trial = self.queue.ask()
        if trial is None:
            return None
        self.runs[trial.number] = self._run(trial)
        self.steps[trial.number], self.unlogged[trial.number] = 0, []
        self.waiting[trial.number] = deque(self.work.jobs(trial, trial.recipe.part("ensemble")))
        return self._given(trial.number)

    def _given(self, number: int) -> Job:
        self.training.add(number)
        return self.waiting[number].popleft()

    def hear(self, job: Job, result: Result) -> None:
        """Log what has come of a job; ends its trial where the pruner says so."""
        trial: Trial = job.key
        over = not isinstance(result, Evaluation)
        if over:
            self.training.discard(trial.number)
        report = self.work.report(job, result)
        if report is None or self._repeated(trial, report) or self.tell(trial, report):
            return
        self.waiting.pop(trial.number, None)
        if not over:
            result.end()
            self.training.discard(trial.number)

    def _repeated(self, trial: Trial, report: Report) -> bool:
        """Whether this step was reported before, by a network that had to begin anew for want of memory."""
        return 0 < report.step <= self.steps[trial.number] and not report.last

    def tell(self, trial: Trial, report: Report) -> bool:
        """Log a report, hear the pruner; whether the trial goes on."""
        if trial.number not in self.queue.own:
            return False
        run, length = self.runs[trial.number], self.work.length(trial.recipe.part("ensemble"))
        self.advance(report.step - self.steps[trial.number])
        self.steps[trial.number] = report.step
        try:
            self._log(trial, run, report)
            if not math.isfinite(report.value):
                self._end(trial, run, report.fault or f"diverged by step {report.step}", bad=True)
            else:
                pruned = self.queue.report(trial, report.step, report.value)
                if report.last:
                    self._complete(trial, run, report)
                elif pruned:
                    self._end(trial, run, f"pruned by {self.search.pruner} at step {report.step} of {length}")
                else:
                    return True
        except Lost:
            say(f"trial {trial.first}: taken over by another process, which had not heard of this one for too long")
        self.advance(length - report.step)
        return False

    def _log(self, trial: Trial, run: Run, report: Report) -> None:
        """Curves are written about once a second, however short an epoch is, and before a trial ends."""
        waiting = self.unlogged[trial.number]
        waiting.append(report)
        now = time.monotonic()
        if now - self.logged.get(trial.number, 0.0) > FLUSH or report.last or not math.isfinite(report.value):
            self.logged[trial.number] = now
            self._flush(trial, run)

    def _flush(self, trial: Trial, run: Run) -> None:
        waiting = self.unlogged[trial.number]
        for name in waiting[-1].numbers if waiting else ():
            if name != "test/accuracy":
                run.series(name, [report.numbers[name] for report in waiting], [report.step for report in waiting])
        waiting.clear()

    def abandon(self, why: str) -> None:
        """Give the trials under way back, and say so in their runs."""
        for trial in list(self.queue.own.values()):
            self.queue.give_back(trial)
            if trial.number in self.runs:
                self.runs[trial.number].kill(why)

    def _run(self, trial: Trial) -> Run:
        """The child run of a trial; that of a trial which was begun before is taken up, so that it has one."""
        named = {"study.kind": "trial", "optuna.first": trial.first, "study.search": self.queue.name}
        inherited = {key: self.parent.tags[key] for key in INHERITED if key in self.parent.tags}
        state = {"optuna.trial": trial.number, "optuna.state": "RUNNING"}
        params = flatten(trial.recipe.part("ensemble")) | {"round": self.number}
        begun = []
        if trial.first != trial.number:
            begun = self.store.find(tags=named | {"study.digest": inherited["study.digest"]}, parent=self.parent, max=1)
        if begun:
            run = self.store.resume(begun[0])
            run.param(params)
            for key, value in state.items():
                run.tag(key, value)
        else:
            run = self.store.start(
                self.parent.experiment,
                descriptions.trial_name(trial.first, self.number if self.search.rounds else None),
                params=params,
                tags=inherited | named | state,
                parent=self.parent,
                description=descriptions.trial_note(trial.first),
            )
        return run

    def _complete(self, trial: Trial, run: Run, report: Report) -> None:
        """The run first, then the queue: a process that dies between the two has the trial repeated, not lost."""
        value = score(self.search, [value for _, value in trial.values])
        best = self.queue.best()
        facts = {"test_accuracy": report.numbers["test/accuracy"]} if "test/accuracy" in report.numbers else {}
        self.queue.note(trial, run=run.id, **facts)
        run.log({"score": value})
        run.tag("optuna.state", "COMPLETE")
        run.finish()
        self.queue.complete(trial, value)
        better = best is None or value > best.value
        if better:
            values = listed(self.queue.scope.values(trial.params))
            say(f"trial {trial.first}: {value:.4f}, the best so far, with {values}")
        self.parent.log({"search/best": value if better else best.value}, step=len(self.queue.finished()))

    def _end(self, trial: Trial, run: Run, why: str, *, bad: bool = False) -> None:
        self.queue.note(trial, run=run.id)
        self._flush(trial, run)
        run.tag("optuna.state", "PRUNED")
        run.tag("optuna.verdict", why)
        if bad:
            run.fail(why)
        else:
            run.finish()
        self.queue.prune(trial, why)


def listed(values: dict[str, object]) -> str:
    """Values as a person reads them: `optimizer.lr = 0.132, optimizer.momentum = 0.9`."""
    texts = []
    for name, value in values.items():
        shown = f"{value:.3g}" if isinstance(value, float) else list(value) if isinstance(value, tuple) else value
        texts.append(f"{name} = {shown}")
    return ", ".join(texts) or "the recipe's own values"
