"""One job that trains alone, from its first step to its last.  in: a Job, a Context   out: Evaluations, an Outcome"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from study.training.device_data import Examples
from study.training.engines.base import Context
from study.training.evaluation import Learner, Snapshot, evaluate, validate
from study.training.learners import SpareLearner, new_learner, seeded
from study.training.loop import SingleBatches, train_epoch
from study.training.placement import operation_threads
from study.training.results import Evaluation, Hooks, Outcome
from study.training.types import Job


def train_alone(job: Job, context: Context, hooks: Hooks, spare: SpareLearner | None) -> Iterator[Evaluation | Outcome]:
    """Train one job in the calling thread.

    Args:
        job: what to train.
        context: data, placement, validation rows.
        hooks: of this job.
        spare: the calling thread's, where steps are captured.

    Yields:
        An Evaluation after each epoch that is due, where the context has validation rows; the Outcome at the end.

    Raises:
        Stopped: `hooks.stop` was set.
    """
    torch.set_num_threads(context.placement.cores)
    random = context.draws_random_numbers(job.network)  # a captured step would draw the same numbers again
    with seeded(job) if random else nullcontext():
        yield from _train(job, context, hooks, None if random else spare)


def _train(job: Job, context: Context, hooks: Hooks, spare: SpareLearner | None) -> Iterator[Evaluation | Outcome]:
    start = time.perf_counter()
    examples = context.examples(job)
    learner = new_learner(job, examples, context.dataset, context.placement, spare)
    losses: list[float] = []
    epochs, _ = job.training.length(len(job.rows))
    ended = _heard(job, learner, examples, context, hooks, 0)
    for epoch in range(epochs):
        if ended:
            break
        online = torch.zeros(examples.n, dtype=torch.bool, device=learner.weights.device) if hooks.online else None
        batches = SingleBatches(learner, job, epoch, examples, online)
        before = epoch * (len(job.training.edges(len(job.rows))) - 1)  # steps
        pauses = [step for step in range(1, batches.steps + 1) if hooks.steps and not (before + step) % hooks.steps]
        pause = partial(_paused, job, learner, examples, context, hooks, before)
        losses.append(float(train_epoch(batches, hooks.stop, hooks.progress, pauses, pause)))
        ended = _heard(job, learner, examples, context, hooks, epoch + 1, online)
        evaluation = _evaluation(job, learner, examples, context, epoch + 1, losses[-1])
        if evaluation:
            yield evaluation
            if evaluation.ended:
                return
    outcome = evaluate(learner, examples, context.final_rows).outcome()
    if spare is not None:
        spare.put(job, learner)
    outcome.losses, outcome.epochs, outcome.seconds = losses, len(losses), time.perf_counter() - start
    yield outcome


def _evaluation(
    job: Job, learner: Learner, examples: Examples, context: Context, epoch: int, loss: float
) -> Evaluation | None:
    """The network on the validation rows, where an evaluation is due."""
    last = epoch == job.training.length(len(job.rows))[0]
    if not context.is_due(epoch, last, loss):
        return None
    accuracy, val_loss = validate(learner, examples, context.validation_rows)
    return Evaluation(epoch, float(accuracy), float(val_loss), loss, last)


def _paused(
    job: Job, learner: Learner, examples: Examples, context: Context, hooks: Hooks, before: int, step: int
) -> None:
    """Give the caller a snapshot between two steps of an epoch, before which others were taken."""
    if hooks.after_steps is not None:
        with _evaluating(context):
            hooks.after_steps(job, before + step, Snapshot(learner, examples))


def _evaluating(context: Context) -> AbstractContextManager[None]:
    """As many threads as an evaluation may use."""
    placement = context.placement
    return operation_threads(placement.machine if placement.threads == 1 else placement.cores)


def _heard(
    job: Job,
    learner: Learner,
    examples: Examples,
    context: Context,
    hooks: Hooks,
    epoch: int,
    online: Tensor | None = None,
) -> bool:
    """Give the caller a snapshot; whether it ends the training here."""
    if hooks.after_epoch is None:
        return False
    with _evaluating(context):
        return bool(hooks.after_epoch(job, epoch, Snapshot(learner, examples, online)))
