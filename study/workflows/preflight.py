"""Whether a recipe can run, before anything trains.  in: recipe files   out: one line per fault

Three steps: form (the schema), names (proxies and their settings, subset sizes), fit (the network is built on the meta
device and fed one batch).  The first two take milliseconds; the third imports timm.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from study.data import Dataset
from study.errors import AnalysisError, RecipeError, StudyError
from study.experiments.cells import cells
from study.models.spec import NetworkSpec
from study.proxies import SIGNALS, bind, chosen, compute
from study.recipe import Recipe, load
from study.recipe.load import recipe_files
from study.scores.subsets import block_length, percent

SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((1, 8, 8), 10),
    **dict.fromkeys(("mnist", "fashion-mnist", "kmnist"), ((1, 28, 28), 10)),
    **dict.fromkeys(("cifar10", "svhn"), ((3, 32, 32), 10)),
    "cifar100": ((3, 32, 32), 100),
}
"""Image shape and classes of the data sets whose name tells; others are known once they are read."""

FEATURES = (1024, 1, 1)
"""A usual shape of features, for recipes whose file is not read."""

MOST_PARAMETERS = 10**9  # the largest networks of timm have 2e9; hundreds of such a size are no study
REHEARSED = 10_000  # epochs; what proxies ask of their number is a handful

_fitting: set[str] = set()  # networks that took their images: cells of a sweep and recipes of a folder share them


def check_names(recipe: Recipe) -> None:
    """Second step: names that are registered, settings that their owners take, subsets that can be drawn.

    Raises:
        RecipeError: one line that says what there is instead.
    """
    for spec in chosen(recipe.proxies):
        bind(spec, recipe.proxies.get(spec.name, {}))
    if recipe.kind != "ensemble":
        rehearse(recipe)
    if recipe.signals:
        from study.signals import check_signals  # imports torch: who sets nothing of it need not wait

        check_signals(recipe.signals)
    if recipe.kind == "single" or recipe.subset.design != "balanced":
        return
    for ratio in recipe.subset.ratios:
        block = block_length(ratio)
        if recipe.subset.members % block:
            near = max(block, round(recipe.subset.members / block) * block)
            raise RecipeError(
                f"subset.members = {recipe.subset.members}: at {percent(ratio)} % a balanced design comes in "
                f"blocks of {block} members; take {near}, or subset.design = 'uniform'"
            )


def rehearse(recipe: Recipe, n_train: int | None = None) -> None:
    """Compute every proxy of the recipe on two made-up examples, over as many evaluations as its single run takes.

    A recipe that counts steps has as many epochs as the data say; until `n_train` is known, the most that there can be.

    Raises:
        RecipeError: a proxy that refuses its settings, or so few epochs.
    """
    part = recipe.part("single")
    at_most = part.train.steps or part.train.epochs  # a pass has one step at least
    epochs = min(at_most if n_train is None else part.train.length(n_train)[0], REHEARSED)
    at, every = part.single.evaluate_every, math.lcm(part.single.evaluate_every, part.single.signals_every)
    evaluations, due = -(-epochs // at), -(-epochs // every)
    sizes = dict.fromkeys("nclk", 2) | {"e": evaluations, "t": evaluations + 1, "w": due}
    made_up = {
        name: np.ones([sizes.get(axis, 2) for axis in signal.axes], dtype=np.int64) for name, signal in SIGNALS.items()
    }
    for spec in chosen(recipe.proxies):
        try:
            compute(spec, made_up, recipe.proxies.get(spec.name, {}))
        except AnalysisError as error:
            raise RecipeError(str(error)) from None


def check_fit(recipe: Recipe, shape: tuple[int, int, int], n_classes: int) -> None:
    """Third step: the networks of both kinds take these images and give logits for these classes."""
    from study.models import build

    for spec in _networks(recipe):
        key = json.dumps([build.identity(spec), shape, n_classes], default=str)
        if key not in _fitting:
            check_size(spec, shape, n_classes)
            build.fit_check(spec, shape, n_classes)
            _fitting.add(key)
    _check_layers(recipe, shape, n_classes)


def check_size(spec: NetworkSpec, shape: tuple[int, int, int], n_classes: int) -> None:
    """Build the network without memory, and count its parameters.

    Raises:
        RecipeError: it cannot be built, or is larger than MOST_PARAMETERS.
    """
    from study.models import build

    network = build.create(spec, shape, n_classes, device="meta")
    count = sum(parameter.numel() for parameter in network.parameters())
    if count > MOST_PARAMETERS:
        memory = 12 * count / 1e9  # float32: weights, gradient, momentum
        raise RecipeError(
            f"model {spec.name}: {count:.3g} parameters, {memory:.3g} GB to train one network; "
            f"at most {MOST_PARAMETERS:.0e} are taken, choose smaller settings"
        )


def _check_layers(recipe: Recipe, shape: tuple[int, int, int], n_classes: int) -> None:
    """The layers that [signals] names are layers of the single run's network; members with depths have probes."""
    if recipe.subset.depth and recipe.kind != "single":
        from study.models.probe_points import placements

        placements(recipe.model.spec(), shape, n_classes)
    layers = {name: str(given["layer"]) for name, given in recipe.signals.items() if "layer" in given}
    if not layers or recipe.kind == "ensemble":
        return
    from study.signals.activations import find_layer, layer_names

    names = layer_names(recipe.part("single").model.spec(), shape, n_classes)
    for name, layer in layers.items():
        try:
            find_layer(layer, names)
        except RecipeError as error:
            raise RecipeError(f"signals.{name}.layer: {error}") from None


def check_data(recipe: Recipe, dataset: Dataset) -> None:
    """What only the data can tell: the network fits the images, every subset trains on some and holds some out."""
    if dataset.is_features:
        _refuse_augmentation(recipe)
    check_fit(recipe, dataset.shape, dataset.n_classes)
    if recipe.kind != "ensemble" and recipe.part("single").train.steps is not None:
        rehearse(recipe, dataset.n_train)
    if recipe.kind == "single":
        return
    from study.signals.knn_probes import NEIGHBORS

    for ratio in recipe.subset.ratios:
        if not 0 < round(ratio * dataset.n_train) < dataset.n_train:
            raise RecipeError(
                f"subset.ratios: {percent(ratio)} % of {dataset.n_train} examples leaves nothing to train on "
                "or to hold out; leave this ratio out"
            )
        if recipe.subset.depth and int(ratio * dataset.n_train) < NEIGHBORS:
            raise RecipeError(
                f"subset.depth: probes ask {NEIGHBORS} neighbours, and {percent(ratio)} % of {dataset.n_train} "
                "examples are fewer; leave this ratio out, or the depths"
            )


def _refuse_augmentation(recipe: Recipe) -> None:
    """Features have no pixels that could be cropped or mirrored."""
    for part in (recipe.part(kind) for kind in ("ensemble", "single") if recipe.kind in ("study", kind)):
        if part.train.pad or part.train.flip:
            raise RecipeError("train.pad and train.flip are for images; leave them out for features and tables")


def check_all(paths: Sequence[Path], overrides: Sequence[str] = ()) -> Iterator[tuple[Path, str | None]]:
    """Check recipe after recipe; yields (file, fault), fault None for a recipe that can run.

    Raises:
        RecipeError: there is no recipe below these paths.
    """
    files = recipe_files(paths)
    if not files:
        raise RecipeError(f"no recipes (*.toml) below {', '.join(map(str, paths))}")
    for file in files:
        try:
            recipe = load(file, overrides)
            if recipe.sweep.values:
                check_sweep(recipe)
            else:
                check_names(recipe)
                _check_network(recipe)
            if recipe.search.space:
                from study.search.run import check_search

                check_search(recipe)
            yield file, None
        except StudyError as error:
            yield file, str(error)


def check_sweep(recipe: Recipe) -> None:
    """Check the form of every cell, then its names and its network.

    Raises:
        RecipeError: an analysis that is not there; the first cell at fault, in one line.
    """
    if recipe.sweep.analyses:
        from study.experiments.analyses import check_analyses  # which draws: matplotlib

        check_analyses(recipe.sweep.analyses)
    for cell in cells(recipe):
        try:
            check_names(cell.recipe)
            _check_network(cell.recipe)
        except StudyError as error:
            raise RecipeError(f"sweep: cell {cell.name}: {error}") from None


def _check_network(recipe: Recipe) -> None:
    """Fit, where the recipe tells the images' shape; for a user's own images, whether the networks can be built."""
    if recipe.data.name in SHAPES:
        check_fit(recipe, *_shape(recipe))
        return
    size = recipe.data.size or 224
    shape = FEATURES if recipe.data.name in ("features", "table") else (recipe.data.channels or 3, size, size)
    for spec in _networks(recipe):
        check_size(spec, shape, 2)
    _check_layers(recipe, shape, 2)


def _networks(recipe: Recipe) -> list[NetworkSpec]:
    """The networks that a recipe trains, each once."""
    specs = [recipe.part(kind).model.spec() for kind in ("ensemble", "single") if recipe.kind in ("study", kind)]
    return specs[:1] if specs[1:] == specs[:1] else specs


def _shape(recipe: Recipe) -> tuple[tuple[int, int, int], int]:
    (channels, height, width), n_classes = SHAPES[recipe.data.name]
    data = recipe.data
    height, width = (data.size, data.size) if data.size else (height, width)
    return (data.channels or channels, height, width), len(data.classes) if data.classes else n_classes
