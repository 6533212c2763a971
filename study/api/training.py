"""C-scores and proxies of a user's data.  in: data, a network, settings   out: DataFrames; with a store, runs too"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from study.api.inputs import Words, as_dataset, as_recipe, as_store, named, proxy_table
from study.errors import StudyError
from study.progress import chosen_bar

if TYPE_CHECKING:
    from study.data import Dataset
    from study.progress import Bar
    from study.recipe import Recipe


def cscores(
    data: Any,
    labels: Any = None,
    *,
    model: Any = "mlp",
    settings: Mapping[str, Any] | None = None,
    ratios: Sequence[float] | None = None,
    members: int | None = None,
    design: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: Words | None = None,
    lr: float | None = None,
    schedule: Words | None = None,
    train: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    store: Any = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Compute C-scores: how often networks that have not seen an example classify it right.

    Args:
        data: images (n, h, w), (n, h, w, c) or (n, c, h, w), or a matrix (n, d), as numpy array or torch tensor; or a
            `study.Dataset`, a torch Dataset, a Hugging Face Dataset or DatasetDict, a folder of images, the name of a
            data set such as "digits".
        labels: (n,) whole numbers or text; with arrays alone.
        model: a registered or timm name, an `nn.Module` class, or a function that builds a network; it is called with
            `image_shape` and `n_classes` where it takes them.
        settings: keyword arguments of the model.
        ratios: subset ratios, rising, such as (0.1, 0.5, 0.9); 0.1 to 0.9 unless given.
        members: networks at each ratio; 20 unless given.
        design: "balanced" or "uniform", how subsets are drawn; see `study.scores.subsets.subset_mask`.
        epochs, batch_size: of each network; 10 and 128 unless given.
        optimizer: "sgd", "adam", "adamax" or "adagrad", or a mapping with `name`, `lr`, `momentum`, `weight_decay`...
        lr: learning rate; 0.1 unless given.
        schedule: "constant", "cosine", "triangular", or a mapping as in a recipe's [schedule].
        train: further keys of a recipe's [train], such as {"pad": 4, "flip": True}.
        seed: of subsets, initial weights, batch orders; the same seed gives the same scores.
        device: "auto", "cpu", "cuda".
        store: None: nothing is kept.  A folder or an MLflow URI: every shard of the ensemble becomes a run there as
            with `study run`, and finished shards are taken from there.
        progress: show a bar; None: on a terminal and in a notebook.

    Returns:
        One row per example, train rows then test rows: `example` id, `label`, `split`; `cscore` 0 to 1, high means
        consistent; `cscore_soft` from the probability of the label; `stderr`, `stderr_soft`; `held_out` number of
        networks that had not seen it; `consensus`, `consensus_consistency`, `prediction_entropy` of these networks'
        predictions; `cscore_10`, `held_out_10`, ... per ratio; `memorization` and its columns.  NaN where no network
        held the example out.

    Raises:
        StudyError: data, names or values that cannot be used; one line that says what to change.

    Source: J-alg1, J-integral (Jiang et al. 2021).

    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> scores = cscores(digits.images[:200] / 16, digits.target[:200], ratios=(0.5,), members=4, epochs=3)
    >>> scores.columns[:4].tolist(), len(scores)
    (['example', 'label', 'split', 'cscore'], 200)
    """
    bar = chosen_bar(progress)
    dataset = as_dataset(data, labels, bar)
    tables = {
        "subset": {"ratios": None if ratios is None else _ratios(ratios), "members": members, "design": design},
        **_training(epochs, batch_size, optimizer, lr, schedule, train, device),
    }
    recipe = as_recipe(dataset, "ensemble", model, settings, seed, tables)
    if store is not None:
        from study.runs.ensemble import run_ensemble

        return run_ensemble(recipe, dataset, as_store(store), bar=bar).read_table("cscore.parquet")
    from study.runs.jobs import ensemble_plan, runtime_of
    from study.runs.members import score_table, train_ensemble

    profile = train_ensemble(ensemble_plan(recipe), dataset, runtime_of(recipe), bar=bar)
    return score_table(profile, dataset)


@dataclass(frozen=True, eq=False)
class SingleRun:
    """What one training on all train rows gave; `study.single_run` makes it.

    scores: one row per example: `example`, `label`, `split`, and a float32 column per proxy, NaN outside of the split
        on which it is defined.
    trajectory: `epochs` (e,), after which all examples were evaluated; `correct` (e, n) bool; `confidence` (e, n) the
        probability of the label; `top_confidence` (e, n) the largest probability; more where a proxy reads it.
    network: the trained `nn.Module` in evaluation mode; it takes pixels as they were in training, with the default
        `normalize = "unit"` images / `dataset.maximum`.  None with a store, which keeps no weights.
    costs: one row per proxy: `proxy`, `seconds` and `flops` beyond the steps of the training.
    dataset: the examples.

    >>> run = SingleRun(pd.DataFrame({"example": ["a"], "label": [0]}), {}, None, pd.DataFrame())
    >>> len(run.scores)
    1
    """

    scores: pd.DataFrame
    trajectory: Mapping[str, np.ndarray] = field(repr=False)
    network: Any = field(repr=False)
    costs: pd.DataFrame = field(repr=False)
    dataset: "Dataset | None" = None


def single_run(
    data: Any,
    labels: Any = None,
    *,
    model: Any = "mlp",
    settings: Mapping[str, Any] | None = None,
    proxies: Sequence[str] | Mapping[str, Mapping[str, Any]] | str | None = None,
    signals: Mapping[str, Mapping[str, Any]] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: Words | None = None,
    lr: float | None = None,
    schedule: Words | None = None,
    train: Mapping[str, Any] | None = None,
    evaluate_every: int | None = None,
    seed: int = 0,
    device: str = "auto",
    store: Any = None,
    progress: bool | None = None,
) -> SingleRun:
    """Train one network on all train rows and compute proxies: scores that stand in for the C-score.

    Args:
        data, labels, model, settings: see `study.cscores`.
        proxies: names of `study.list_proxies()`, or a mapping from names to settings, or "all"; those that cost little
            unless given.
        signals: settings of what proxies read, by its name, as in a recipe's [signals].
        epochs, batch_size, optimizer, lr, schedule, train, seed, device: see `study.cscores`.
        evaluate_every: epochs between two evaluations of all examples; 1 unless given.
        store: None: nothing is kept.  A folder or an MLflow URI: the training is a run there as with `study run`; one
            that is finished there is read instead of trained.
        progress: show a bar; None: on a terminal and in a notebook.

    Returns:
        A SingleRun with `scores`, `trajectory`, `network`, `costs`.

    Raises:
        StudyError: data, names or values that cannot be used, a training that left the finite numbers.

    >>> run = single_run("digits", epochs=2, proxies=["cbtl", "aum"])
    >>> run.scores.columns.tolist()
    ['example', 'label', 'split', 'cbtl', 'aum']
    >>> run.trajectory["correct"].shape
    (2, 1797)
    """
    bar = chosen_bar(progress)
    dataset = as_dataset(data, labels, bar)
    tables = {
        "proxies": proxy_table(proxies),
        "signals": dict(signals or {}),
        "single": {"evaluate_every": evaluate_every},
        **_training(epochs, batch_size, optimizer, lr, schedule, train, device),
    }
    recipe = as_recipe(dataset, "single", model, settings, seed, tables)
    return _trained(recipe, dataset, bar) if store is None else _stored(recipe, dataset, store, bar)


def _trained(recipe: "Recipe", dataset: "Dataset", bar: "Bar") -> SingleRun:
    from study.runs.jobs import runtime_of, single_plan
    from study.runs.single import place_single, train_single
    from study.runs.single_scores import score_single

    plan = single_plan(recipe)
    placement = place_single(plan, dataset, runtime_of(recipe))
    collector, final = train_single(plan, dataset, placement, bar=bar)
    if final.diverged:
        raise StudyError("the training left the finite numbers; lower lr")
    scored = score_single(collector)
    trajectory = {name: np.stack(arrays) for name, arrays in collector.series.items() if arrays}
    costs = pd.DataFrame([{"proxy": name, **cost} for name, cost in scored.costs.items()])
    epochs = np.array(collector.evaluated, dtype=np.int64)
    return SingleRun(scored.table, {"epochs": epochs, **trajectory}, collector.network, costs, dataset)


def _stored(recipe: "Recipe", dataset: "Dataset", store: Any, bar: "Bar") -> SingleRun:
    from study.api.stores import RunView
    from study.runs.single import run_singles

    view = RunView(run_singles(recipe, dataset, as_store(store), bar=bar)[0])
    return SingleRun(view.scores(), view.trajectory(), None, view.costs(), dataset)


def _ratios(ratios: Sequence[float] | float) -> tuple[float, ...]:
    return tuple(float(ratio) for ratio in np.atleast_1d(np.asarray(ratios, dtype=float)))


def _training(
    epochs: int | None,
    batch_size: int | None,
    optimizer: Words | None,
    lr: float | None,
    schedule: Words | None,
    train: Mapping[str, Any] | None,
    device: str,
) -> dict[str, dict[str, Any]]:
    """The tables of a recipe that say how a network is trained, and where."""
    return {
        "train": named(train, epochs=epochs, batch_size=batch_size),
        "optimizer": named(optimizer, lr=None if lr is None else float(lr)),
        "schedule": named(schedule),
        "runtime": {"device": device},
    }
