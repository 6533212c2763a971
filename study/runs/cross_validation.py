"""Out-of-sample probabilities by cross-validation.  in: a recipe, a Dataset, a Store   out: a run with (n_train, c)

What cleanlab and other tools take: each training example's class probabilities by a network that has not seen it.
"""

import threading
from contextlib import closing
from dataclasses import replace

import numpy as np

from study.data import Dataset
from study.errors import Stopped, StoreError
from study.progress import Bar, quiet
from study.recipe import Recipe, dump, flatten
from study.runs.data_note import log_data
from study.runs.ensemble import keys, waiting
from study.runs.jobs import runtime_of, template_of
from study.tracking import Run, Store
from study.training.autotune import place_network
from study.training.evaluation import Snapshot
from study.training.fit import fit
from study.training.results import Hooks
from study.training.types import Job

KIND = "cross-validation"
FOLDS = 5
FILE = "probabilities.npz"


def cross_validate(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    *,
    folds: int = FOLDS,
    stop: threading.Event | None = None,
    bar: Bar = quiet,
) -> Run:
    """Train the ensemble's network once per fold on the other folds, and keep what it says of its own.

    Args:
        recipe: its `ensemble` part says what is trained.
        dataset: whose training examples are divided; every fold has its share of each class.
        store: where the run goes; a finished one is found there.
        folds: two or more.
        stop: set to end after the step under way.
        bar: display of the progress.

    Returns:
        The run, FINISHED, with `probabilities.npz`: `probabilities` (n_train, c) float32 and `fold` (n_train,).

    Raises:
        StoreError: a training left the finite numbers.
        Stopped: `stop` was set.
    """
    recipe = recipe.part("ensemble")
    stop = stop or threading.Event()
    tags = keys(recipe, dataset) | {"study.folds": str(folds)}
    experiment = f"{recipe.data.title}/{KIND}"
    name = f"{KIND}-{recipe.digest()}-{dataset.digest}-{folds}"
    with store.lock(name, waiting("this cross-validation", stop), experiment=experiment, lost=stop.set):
        store.reap(tags, lambda run: run.tags.get("study.kind") == KIND)
        finished = finished_cross_validation(store, recipe, dataset, folds)
        return finished or _train(recipe, dataset, store, experiment, tags, folds, stop, bar)


def finished_cross_validation(store: Store, recipe: Recipe, dataset: Dataset, folds: int = FOLDS) -> Run | None:
    """The finished run of this recipe on this data, if its probabilities can be read."""
    tags = keys(recipe.part("ensemble"), dataset) | {"study.folds": str(folds)}
    runs = store.find(KIND, tags=tags, status="FINISHED", max=1)
    return runs[0] if runs and not runs[0].verify(FILE) else None


def held_out_probabilities(run: Run) -> np.ndarray:
    """(n_train, c) of a finished cross-validation."""
    return run.read_arrays(FILE)["probabilities"]


def stratified_folds(labels: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) the fold of each example, 0..folds-1; each class is spread over the folds as evenly as it can be.

    >>> np.bincount(stratified_folds(np.array([0, 0, 0, 0, 1, 1]), 2, np.random.default_rng(0))).tolist()
    [3, 3]
    """
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold


def _train(
    recipe: Recipe,
    dataset: Dataset,
    store: Store,
    experiment: str,
    tags: dict[str, str],
    folds: int,
    stop: threading.Event,
    bar: Bar,
) -> Run:
    template = template_of(recipe)
    fold = stratified_folds(dataset.labels[: dataset.n_train], folds, template.stream("folds", folds))
    jobs = [template.job(("fold", folds, k), np.flatnonzero(fold != k), key=k) for k in range(folds)]
    seen = sum(template.training.seen(len(job.rows)) for job in jobs)
    placement = place_network(template, dataset, runtime_of(recipe), seen, snapshots=True)
    run = store.start(
        experiment,
        f"{folds} folds {recipe.digest()}",
        params=flatten(recipe) | {"folds": folds},
        tags=tags | placement.tags() | {"study.kind": KIND},
        description="Class probabilities of each training example by a network that has not seen it.",
    )
    run.text("recipe.toml", dump(recipe))
    log_data(run, dataset)
    probabilities = np.full((dataset.n_train, dataset.n_classes), np.nan, dtype=np.float32)

    def after_epoch(job: Job, epoch: int, snapshot: Snapshot) -> None:
        if epoch == template.training.length(len(job.rows))[0]:
            rows = np.flatnonzero(fold == job.key)
            probabilities[rows] = snapshot.logits().softmax(dim=-1).float().cpu().numpy()[rows]

    with run:
        try:
            with bar(f"cross-validation, {folds} folds", seen, unit="examples") as advance:
                hooks = Hooks(progress=advance, after_epoch=after_epoch, stop=stop)
                with closing(fit(jobs, dataset, replace(placement, stack=1), hooks)) as outcomes:
                    for _ in outcomes:
                        pass
        except Stopped:
            run.kill("stopped on request; the same command starts it again")
            raise
        if not np.isfinite(probabilities).all():
            raise StoreError("cross-validation: training left the finite numbers; lower optimizer.lr")
        run.arrays(FILE, probabilities=probabilities, fold=fold)
        right = probabilities.argmax(axis=1) == dataset.labels[: dataset.n_train]
        run.log({"holdout/accuracy": float(right.mean())})
    return store.get(run.id)
