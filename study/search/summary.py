"""A search at its end.  in: a queue's trials   out: a table, importances, figures"""

import math
import warnings
from collections.abc import Sequence

import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from study.figures import search_history, search_importance, search_slices
from study.search.storage import one_line_errors
from study.search.trial_queue import FINISHED, TrialQueue
from study.tracking import Run

COLUMNS = ("round", "trial", "state", "value", "last_step", "seconds", "verdict", "run")


def table(queues: Sequence[TrialQueue]) -> pd.DataFrame:
    """One row per finished trial.

    round, from 1 | trial, the number under which it was drawn | state, COMPLETE or PRUNED | value, of a pruned trial
    its last report | last_step | seconds | verdict, why it was pruned | run, MLflow's id | and a column per searched
    name, missing where it was not active; lists as JSON.
    """
    rows = []
    for number, queue in enumerate(queues, 1):
        for trial in queue.trials():
            if trial.state in FINISHED:
                rows.append(_row(number, trial))
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*COLUMNS, *(name for name in frame if name not in COLUMNS)])


def _row(number: int, trial: FrozenTrial) -> dict:
    attributes, seconds = trial.user_attrs, trial.duration.total_seconds() if trial.duration else math.nan
    row = {"round": number, "trial": attributes.get("first", trial.number), "state": trial.state.name}
    row |= {"value": math.nan if trial.value is None else trial.value, "last_step": trial.last_step or 0}
    row |= {"seconds": seconds, "verdict": attributes.get("end", ""), "run": attributes.get("run", "")}
    return row | dict(trial.params)


def importances(queue: TrialQueue) -> dict[str, float]:
    """Share of each hyper-parameter in what makes trials good (Optuna's PED-ANOVA), largest first; {}: not known."""
    done = [trial for trial in queue.trials() if trial.state == TrialState.COMPLETE]
    if len({trial.value for trial in done}) < 2 or len(queue.scope.distributions) < 2:
        return {}
    with one_line_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            shares = optuna.importance.get_param_importances(queue.study)
        except (ValueError, RuntimeError):  # too few trials of a conditional name
            return {}
    return {name: share for name, share in shares.items() if math.isfinite(share)}


def draw(run: Run, queues: Sequence[TrialQueue], trials: pd.DataFrame, metric: str) -> None:
    """Keep the figures of each round: history, slices, and importances where they are known."""
    for number, queue in enumerate(queues, 1):
        end = f"_round_{number}" if len(queues) > 1 else ""
        of_round = trials[trials["round"] == number]
        names = [name for name in queue.scope.distributions if name in of_round]
        logarithmic = {name for name, space in queue.scope.space.items() if space.log}
        distributions = queue.scope.distributions
        listed = {name for name, each in distributions.items() if isinstance(each, CategoricalDistribution)}
        run.figure(search_history(of_round, metric), f"figures/history{end}.png")
        if names:
            run.figure(search_slices(of_round, names, metric, logarithmic, listed), f"figures/slices{end}.png")
        shares = importances(queue)
        if shares:
            run.figure(search_importance(shares), f"figures/importance{end}.png")
            run.log({f"importance{end}/{name}": share for name, share in shares.items()})
