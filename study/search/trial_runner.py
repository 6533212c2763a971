"""One process at work on one round.  in: a ledger, a store   out: trained trials, each a child run in MLflow"""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from study.progress import say
from study.recipe import Search, flatten
from study.search.objectives import Accuracy, Reliability
from study.search.trial_queue import Lost, Trial, TrialQueue
from study.tracking import Run, Store, descriptions
from study.training.engines.trial_threads import Entry, Mark

FLUSH = 1.0  # seconds between two writes of a trial's curves
INHERITED = ("study.digest", "study.data", "study.matmul", "study.precision")  # tags of the parent on each child


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
    """Between the trainings, the ledger and MLflow; all of it in the launch's own thread."""

    def __init__(
        self,
        ledger: TrialQueue,
        work: Accuracy | Reliability,
        store: Store,
        parent: Run,
        search: Search,
        number: int,
        advance: Callable[[int], None],
    ) -> None:
        """Take up a round.

        Args:
            ledger: its trials.
            work: what a trial trains.
            store: where runs go.
            parent: the search's run.
            search: how trials are scored.
            number: of the round, from 1.
            advance: the display; counts steps of trials.
        """
        self.ledger, self.work, self.store, self.parent, self.search = ledger, work, store, parent, search
        self.number, self.advance = number, advance
        self.runs: dict[int, Run] = {}
        self.steps: dict[int, int] = {}
        self.unlogged: dict[int, list[Mark]] = {}
        self.logged: dict[int, float] = {}

    def ask(self) -> Entry | None:
        """The next trial to train, with its run begun or taken up again."""
        trial = self.ledger.ask()
        if trial is None:
            return None
        self.runs[trial.number] = self._run(trial)
        self.steps[trial.number], self.unlogged[trial.number] = 0, []
        return self.work.entry(trial, trial.recipe.part("ensemble"))

    def tell(self, entry: Entry, mark: Mark) -> bool:
        """Log a mark, hear the pruner; whether the trial goes on."""
        trial = entry.key
        if trial.number not in self.ledger.own:
            return False
        run, length = self.runs[trial.number], self.work.length(entry.recipe)
        self.advance(mark.step - self.steps[trial.number])
        self.steps[trial.number] = mark.step
        try:
            self._log(trial, run, mark)
            if not math.isfinite(mark.value):
                self._end(trial, run, mark.fault or f"diverged by step {mark.step}", bad=True)
            else:
                pruned = self.ledger.report(trial, mark.step, mark.value)
                if mark.last:
                    self._complete(trial, run, mark)
                elif pruned:
                    self._end(trial, run, f"pruned by {self.search.pruner} at step {mark.step} of {length}")
                else:
                    return True
        except Lost:
            say(f"trial {trial.first}: taken over by another process, which had not heard of this one for too long")
        self.advance(length - mark.step)
        return False

    def _log(self, trial: Trial, run: Run, mark: Mark) -> None:
        """Curves are written about once a second, however short an epoch is, and before a trial ends."""
        waiting = self.unlogged[trial.number]
        waiting.append(mark)
        now = time.monotonic()
        if now - self.logged.get(trial.number, 0.0) > FLUSH or mark.last or not math.isfinite(mark.value):
            self.logged[trial.number] = now
            self._flush(trial, run)

    def _flush(self, trial: Trial, run: Run) -> None:
        waiting = self.unlogged[trial.number]
        for name in waiting[-1].numbers if waiting else ():
            if name != "test/accuracy":
                run.series(name, [mark.numbers[name] for mark in waiting], [mark.step for mark in waiting])
        waiting.clear()

    def abandon(self, why: str) -> None:
        """Give the trials under way back, and say so in their runs."""
        for trial in list(self.ledger.own.values()):
            self.ledger.give_back(trial)
            if trial.number in self.runs:
                self.runs[trial.number].kill(why)

    def _run(self, trial: Trial) -> Run:
        """The child run of a trial; that of a trial which was begun before is taken up, so that it has one."""
        named = {"study.kind": "trial", "optuna.first": trial.first, "study.search": self.ledger.name}
        own = {key: self.parent.tags[key] for key in INHERITED if key in self.parent.tags}
        state = {"optuna.trial": trial.number, "optuna.state": "RUNNING"}
        params = flatten(trial.recipe.part("ensemble")) | {"round": self.number}
        known = []
        if trial.first != trial.number:
            known = self.store.find(tags=named | {"study.digest": own["study.digest"]}, parent=self.parent, max=1)
        if known:
            run = self.store.resume(known[0])
            run.param(params)
            for key, value in state.items():
                run.tag(key, value)
        else:
            run = self.store.start(
                self.parent.experiment,
                descriptions.trial_name(trial.first, self.number if self.search.rounds else None),
                params=params,
                tags=own | named | state,
                parent=self.parent,
                description=descriptions.trial_note(trial.first),
            )
        return run

    def _complete(self, trial: Trial, run: Run, mark: Mark) -> None:
        """The run first, then the ledger: a process that dies between the two has the trial repeated, not lost."""
        value = score(self.search, [value for _, value in trial.values])
        best = self.ledger.best()
        facts = {"test_accuracy": mark.numbers["test/accuracy"]} if "test/accuracy" in mark.numbers else {}
        self.ledger.note(trial, run=run.id, **facts)
        run.log({"score": value})
        run.tag("optuna.state", "COMPLETE")
        run.finish()
        self.ledger.complete(trial, value)
        better = best is None or value > best.value
        if better:
            values = told(self.ledger.scope.values(trial.params))
            say(f"trial {trial.first}: {value:.4f}, the best so far, with {values}")
        self.parent.log({"search/best": value if better else best.value}, step=len(self.ledger.finished()))

    def _end(self, trial: Trial, run: Run, why: str, *, bad: bool = False) -> None:
        self.ledger.note(trial, run=run.id)
        self._flush(trial, run)
        run.tag("optuna.state", "PRUNED")
        run.tag("optuna.verdict", why)
        if bad:
            run.fail(why)
        else:
            run.finish()
        self.ledger.prune(trial, why)


def told(values: dict[str, object]) -> str:
    """Values as a person reads them: `optimizer.lr = 0.132, optimizer.momentum = 0.9`."""
    texts = []
    for name, value in values.items():
        shown = f"{value:.3g}" if isinstance(value, float) else list(value) if isinstance(value, tuple) else value
        texts.append(f"{name} = {shown}")
    return ", ".join(texts) or "the recipe's own values"
