"""How networks without a stacked form lie best, by trying.  in: a recipe, a Dataset   out: a Placement

On a CPU a few training steps of the recipe's own network are timed in every way that can pay: float32 or bfloat16
autocast, images channels last or contiguous, one network with all cores inside its operations or one network per core.
Which is fastest depends on the network (narrow ones lose to the meeting of threads, wide ones fill the cores) and on
what else runs: a step that shares one of its cores with another process waits for it at every operation.

A GPU takes bfloat16 and channels last by rule.  There one, two, four and eight networks are tried side by side, as long
as more are faster: wide ones fill the device alone, narrow ones leave most of it idle.

What was found is kept in the user's cache folder, `study/placement.json`, by network, shape, batch, device, cores and
torch; to measure anew, delete the file.  torch.compile is not tried: on a CPU it brought nothing (.96 to 1.00 of the
plain step's rate in bfloat16, ResNet-8 and small Inception).
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from study.data import Dataset
from study.models.build import draws_random_numbers, flops
from study.progress import say
from study.recipe import Recipe
from study.training.device_data import Examples
from study.training.engines.threads import free, own_stream, settle
from study.training.evaluation import Learner
from study.training.fit import new_learner, own_randomness
from study.training.job import Member, stackable
from study.training.placement import GAIN, Placement, device_name, float32_routing, operation_threads, place
from study.training.regularizers import generators, perturbed

ROUNDS = 2  # timed steps of every way, in turns; the fastest counts
WAYS = 5  # that are tried at most
FLOP = 3e10  # of a step of the probe, about: the batch is cut to it
ROWS = 16  # but not below this
LONG = 1e12  # operations below which a training is not worth a probe: some five seconds of one core
WORTH = 10  # a training is at least so many times longer than its probe
BESIDE = (1, 2, 4, 8)  # networks side by side on a GPU that are tried
STEPS = 20  # of each network in a turn on a GPU: it is asked for the next ones while it is at work
MORE = 1.05  # twice as many networks on a GPU have to be so much faster to be worth their memory


@dataclass(frozen=True)
class Rate:
    """Seconds per example of a training step and of a look, with as many networks as train side by side."""

    train: float
    look: float


_known: dict[str, dict[str, Rate | None]] = {}  # what this process has measured; None: the way does not work


def place_network(
    recipe: Recipe,
    dataset: Dataset,
    seen: int,
    *,
    like: Mapping[str, str] | None = None,
    alone: bool = False,
    trials: bool = False,
) -> Placement:
    """Choose the placement of a recipe's networks, by a probe where one pays.

    What `[runtime]` asks for and what a resumed run has is taken as it is.

    Args:
        recipe: one part of a study.
        dataset: n examples of the shape that the networks get.
        seen: examples that all trainings will take in; a probe has to be short beside them.
        like: tags of the run that is resumed.
        alone: one network trains at a time.
        trials: networks come and go, each with a recipe of its own: on a GPU one at a time, or as one stack.

    Raises:
        RecipeError: a device that is not there.
    """
    stacks = stackable(recipe)
    placement = place(recipe.runtime, stackable=stacks, like=like)
    on_gpu = placement.device != "cpu"
    if alone:
        placement = placement.alone(wide=not stacks)
    elif on_gpu and (trials or recipe.subset.depth):  # depths are looked up between passes, by products of their own
        placement = replace(placement, threads=1, cores=placement.machine, devices=())
    if stacks or like:
        return placement
    random = draws_random_numbers(recipe.model.spec(), dataset.shape, dataset.n_classes)
    if on_gpu:
        told = alone or trials or recipe.subset.depth or random or recipe.runtime.threads
        return placement if told else _beside(recipe, dataset, placement, seen)
    work = 3.0 * flops(recipe.model.spec(), dataset.shape, dataset.n_classes)
    if seen * work < LONG or seen < WORTH * WAYS * (ROUNDS + 1) * _rows(recipe, dataset, placement):
        return placement
    if random:
        placement = placement.alone(wide=True)  # as `fit` will have it
    return _probed(recipe, dataset, placement)


def measured_rate(recipe: Recipe, dataset: Dataset, placement: Placement) -> Rate | None:
    """The rate of this placement, where a probe has measured it."""
    return _remembered(_key(recipe, dataset, placement)).get(name(placement))


def name(placement: Placement) -> str:
    """A placement as the log and the cache say it."""
    return f"{placement.precision}, {placement.layout}, {placement.threads} x {placement.cores} cores"


def _probed(recipe: Recipe, dataset: Dataset, placement: Placement) -> Placement:
    """Try every precision and layout, then the best of them with one network per core."""
    ways = _ways(recipe, placement)
    side_by_side = not recipe.runtime.threads and placement.threads > 1
    if side_by_side:
        ways = [way.alone(wide=True) for way in ways]
    elif len(ways) == 1:
        return placement
    start, key = time.perf_counter(), _key(recipe, dataset, placement)
    before = _remembered(key)
    rates = before | _measure(recipe, dataset, [way for way in ways if name(way) not in before])
    best = fastest(ways, rates)
    if best and side_by_side:
        ways = [best, replace(best, threads=placement.threads, cores=placement.cores)]
        rates |= _measure(recipe, dataset, [way for way in ways if name(way) not in rates])
        best = fastest(ways, rates)
    if rates != before:
        _keep(key, rates)
        seconds = time.perf_counter() - start
        say(f"placement of {recipe.model.name}: {name(best or placement)}, measured in {seconds:.1f} s")
    return best or placement


def _beside(recipe: Recipe, dataset: Dataset, placement: Placement, seen: int) -> Placement:
    """Try twice as many networks side by side on a GPU for as long as that pays and there is memory."""
    if seen < WORTH * sum(BESIDE) * (ROUNDS + 1) * STEPS * _rows(recipe, dataset, placement):
        return placement
    start, key, best = time.perf_counter(), _key(recipe, dataset, placement), placement
    before = _remembered(key)
    rates, fastest_yet = dict(before), math.inf
    for threads in BESIDE:
        way = replace(placement, threads=threads, cores=max(1, placement.machine // threads))
        if name(way) not in rates:
            rates |= _measure(recipe, dataset, [way])
            free(placement.device)
        rate = rates[name(way)]
        if rate is None or rate.train * MORE > fastest_yet:
            break
        best, fastest_yet = way, rate.train
    if rates != before:
        _keep(key, rates)
        seconds = time.perf_counter() - start
        say(f"placement of {recipe.model.name}: {name(best)}, measured in {seconds:.1f} s")
    return best


def _ways(recipe: Recipe, placement: Placement) -> list[Placement]:
    """The precisions and layouts that the recipe leaves open; bfloat16 only where products gain from it."""
    runtime = recipe.runtime
    precisions = ["float32", "bfloat16"] if runtime.precision == "auto" else [placement.precision]
    if placement.precision == "float32":
        precisions = ["float32"]
    layouts = ["channels_last", "contiguous"] if runtime.layout == "auto" else [placement.layout]
    return [replace(placement, precision=precision, layout=layout) for precision in precisions for layout in layouts]


def fastest(ways: Sequence[Placement], rates: Mapping[str, Rate | None]) -> Placement | None:
    """The fastest way that works; bfloat16 has to be GAIN times faster than float32 where both were tried."""
    able = sorted((way for way in ways if rates.get(name(way))), key=lambda way: rates[name(way)].train)
    exact = next((way for way in able if way.precision != "bfloat16"), None)
    if not able or exact is None or rates[name(able[0])].train * GAIN < rates[name(exact)].train:
        return able[0] if able else None
    return exact


@dataclass
class Contender:
    """One way to lie: as many networks as it trains side by side, a batch for each, its fastest step and look."""

    recipe: Recipe
    dataset: Dataset
    placement: Placement
    train: float = math.inf
    look: float = math.inf
    learners: list[tuple[Member, Learner]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = np.arange(self.dataset.n_train)
        device = self.placement.device
        self.steps = 1 if device == "cpu" else STEPS
        self.examples = Examples(self.dataset, self.recipe.train, device, self.placement.master)
        for number in range(self.placement.threads):
            member = Member(("probe", number), rows)
            spare = None if device == "cpu" else []  # a GPU captures its steps
            learner = new_learner([member], self.examples, self.dataset, self.recipe, self.placement, spare)
            self.learners.append((member, learner))
        self.images, self.labels = self.examples.batch(torch.from_numpy(rows).to(device)), self.examples.labels
        settle(device)

    def turn(self) -> bool:
        """Steps and one look of every network, timed; whether its loss is finite."""
        threads, device = self.placement.threads, self.placement.device
        with (
            float32_routing(self.placement.matmul),
            ThreadPoolExecutor(threads, initializer=own_stream, initargs=(device,)) as pool,
        ):
            start = time.perf_counter()
            finite = all(pool.map(self._step, self.learners))
            middle = time.perf_counter()
            list(pool.map(self._look, self.learners))
        self.train = min(self.train, middle - start)
        self.look = min(self.look, time.perf_counter() - middle)
        return finite

    def _step(self, entry: tuple[Member, Learner]) -> bool:
        member, learner = entry
        torch.set_num_threads(self.placement.cores)
        drawing = generators([member], self.recipe, 0, self.labels.device)
        for _ in range(self.steps):
            images = perturbed(self.images, self.labels, learner, self.recipe.train, drawing)
            loss = learner.step(images, self.labels, 0.0)  # at rate 0 nothing can diverge
        return math.isfinite(float(loss))

    def _look(self, entry: tuple[Member, Learner]) -> None:
        torch.set_num_threads(self.placement.cores)
        logits, _ = entry[1].evaluate(self.images)
        float(logits[0, 0])  # has to be there

    def rate(self) -> Rate:
        """Seconds per example."""
        count = len(self.labels) * len(self.learners)
        return Rate(self.train / (count * self.steps), self.look / count)


def _measure(recipe: Recipe, dataset: Dataset, placements: Sequence[Placement]) -> dict[str, Rate | None]:
    """Let the ways take turns, so that a busy moment meets all; the first of each, a slow one, is not counted."""
    rows = np.arange(_rows(recipe, dataset, placements[0]))
    images, labels = dataset.images[rows], dataset.labels[rows]
    small = replace(dataset, images=images, labels=labels, ids=dataset.ids[rows], n_train=len(rows))
    found: dict[str, Rate | None] = {name(placement): None for placement in placements}
    able = []
    with operation_threads(torch.get_num_threads()), own_randomness(recipe, Member(("probe",), rows)):
        for placement in placements:
            try:
                contender = Contender(recipe, small, placement)
                if contender.turn():
                    able.append(contender)
            except RuntimeError:  # a precision or a layout that an operation does not have, too little memory
                continue
            contender.train = contender.look = math.inf
        for _ in range(ROUNDS):
            for contender in able:
                contender.turn()
    return found | {name(contender.placement): contender.rate() for contender in able}


def _rows(recipe: Recipe, dataset: Dataset, placement: Placement) -> int:
    """Examples in a batch of the probe: the recipe's, unless a step would take a CPU too long."""
    work = 3.0 * flops(recipe.model.spec(), dataset.shape, dataset.n_classes)
    most = max(ROWS, int(FLOP / max(work, 1.0))) if placement.device == "cpu" else dataset.n_train
    return min(recipe.train.batch_size or dataset.n_train, dataset.n_train, most)


def _key(recipe: Recipe, dataset: Dataset, placement: Placement) -> str:
    """What a rate depends on."""
    train = recipe.train
    noise = [train.input_noise, train.input_dropout, train.adversarial]
    network = [recipe.model.name, recipe.model.settings, dataset.shape, dataset.n_classes, recipe.optimizer.name]
    machine = [device_name(placement.device), placement.machine, placement.matmul, torch.__version__]
    return json.dumps([*network, _rows(recipe, dataset, placement), noise, *machine])


def cache_file() -> Path:
    """Where rates are kept, by the XDG base directories."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "study" / "placement.json"


def _remembered(key: str) -> dict[str, Rate | None]:
    """What is known of a network, by name of the way; a broken file knows nothing."""
    if key in _known:
        return _known[key]
    try:
        return {way: rate and Rate(float(rate[0]), float(rate[1])) for way, rate in _table().get(key, {}).items()}
    except (ValueError, TypeError, AttributeError, LookupError):
        return {}


def _table() -> dict:
    """The file's content."""
    try:
        told = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _keep(key: str, rates: Mapping[str, Rate | None]) -> None:
    """Write what was found into the file, whole or not at all; a folder that takes nothing is let be."""
    _known[key] = dict(rates)
    file = cache_file()
    told = _table() | {key: {way: rate and [rate.train, rate.look] for way, rate in rates.items()}}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".json", delete=False, encoding="utf-8") as new:
            json.dump(told, new, indent=1)
        os.replace(new.name, file)
    except OSError:
        return
