"""A search at its end.  in: a ledger's trials   out: a table, importances, figures"""

import math
import warnings
from collections.abc import Sequence

import optuna
import pandas as pd
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from study.figures import search_history, search_importance, search_slices
from study.search.trial_queue import FINISHED, TrialQueue
from study.tracking import Run

COLUMNS = ("round", "trial", "state", "value", "last_step", "seconds", "verdict", "run")


def table(ledgers: Sequence[TrialQueue]) -> pd.DataFrame:
    """One row per finished trial.

    round, from 1 | trial, the number under which it was drawn | state, COMPLETE or PRUNED | value, of a pruned trial
    its last report | last_step | seconds | verdict, why it was pruned | run, MLflow's id | and a column per searched
    name, missing where it was not active; lists as JSON.
    """
    rows = []
    for number, ledger in enumerate(ledgers, 1):
        for trial in ledger.trials():
            if trial.state in FINISHED:
                rows.append(_row(number, trial))
    frame = pd.DataFrame(rows)
    return frame[[*COLUMNS, *(name for name in frame if name not in COLUMNS)]]


def _row(number: int, trial: FrozenTrial) -> dict:
    known, seconds = trial.user_attrs, trial.duration.total_seconds() if trial.duration else math.nan
    told = {"round": number, "trial": known.get("first", trial.number), "state": trial.state.name}
    told |= {"value": math.nan if trial.value is None else trial.value, "last_step": trial.last_step or 0}
    told |= {"seconds": seconds, "verdict": known.get("end", ""), "run": known.get("run", "")}
    return told | dict(trial.params)


def importances(ledger: TrialQueue) -> dict[str, float]:
    """Share of each hyper-parameter in what makes trials good (Optuna's PED-ANOVA), largest first; {}: not known."""
    done = [trial for trial in ledger.trials() if trial.state == TrialState.COMPLETE]
    if len({trial.value for trial in done}) < 2 or len(ledger.scope.distributions) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            found = optuna.importance.get_param_importances(ledger.study)
        except (ValueError, RuntimeError):  # too few trials of a conditional name
            return {}
    return {name: share for name, share in found.items() if math.isfinite(share)}


def draw(run: Run, ledgers: Sequence[TrialQueue], trials: pd.DataFrame, metric: str) -> None:
    """Keep the figures of each round: history, slices, and importances where they are known."""
    for number, ledger in enumerate(ledgers, 1):
        end = f"_round_{number}" if len(ledgers) > 1 else ""
        own = trials[trials["round"] == number]
        names = [name for name in ledger.scope.distributions if name in own]
        logarithmic = {name for name, space in ledger.scope.space.items() if space.log}
        listed = {name for name, told in ledger.scope.distributions.items() if hasattr(told, "choices")}
        run.figure(search_history(own, metric), f"figures/history{end}.png")
        if names:
            run.figure(search_slices(own, names, metric, logarithmic, listed), f"figures/slices{end}.png")
        shares = importances(ledger)
        if shares:
            run.figure(search_importance(shares), f"figures/importance{end}.png")
            run.log({f"importance{end}/{name}": share for name, share in shares.items()})
