"""How networks without a stacked form lie best, by trying.  in: a JobTemplate, a Dataset   out: a Placement

On a CPU a few training steps of the network itself are timed in every way that can pay: float32 or bfloat16
autocast, images channels last or contiguous, one network with all cores inside its operations or one network per core.
Which is fastest depends on the network (narrow ones lose to the meeting of threads, wide ones fill the cores) and on
what else runs: a step that shares one of its cores with another process waits for it at every operation.

A GPU takes bfloat16 and channels last by rule.  There one, two, four and eight networks are tried side by side, as long
as more are faster: wide ones fill the device alone, narrow ones leave most of it idle.

Rates are kept in the user's cache folder, `study/placement.json`, by network, shape, batch, device, cores and
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
from study.models.build import draws_random_numbers, flops, stackable
from study.progress import say
from study.training.device_data import Examples
from study.training.engines.threads import free, own_stream, settle
from study.training.evaluation import Learner
from study.training.learners import SpareLearner, new_learner, seeded
from study.training.placement import GAIN, Placement, device_name, float32_routing, operation_threads, place
from study.training.regularizers import generators, perturbed
from study.training.types import Job, JobTemplate, RuntimeSpec

ROUNDS = 2  # timed steps of every way, in turns; the fastest counts
WAYS = 5  # that are tried at most
FLOP = 3e10  # of a step of the probe, about: the batch is cut to it
ROWS = 16  # but not below this
LONG = 1e12  # operations below which a training is not worth a probe: some five seconds of one core
WORTH = 10  # a training is at least so many times longer than its probe
BESIDE = (1, 2, 4, 8)  # networks side by side on a GPU that are tried
STEPS = 20  # of each network in a turn on a GPU: the next ones are started while it is at work
MORE = 1.05  # twice as many networks on a GPU have to be so much faster to be worth their memory


@dataclass(frozen=True)
class Rate:
    """Seconds per example of a training step and of an evaluation, with as many networks as train side by side."""

    train: float
    evaluate: float


_rates: dict[str, dict[str, Rate | None]] = {}  # what this process has measured; None: the way does not work


def place_network(
    template: JobTemplate,
    dataset: Dataset,
    runtime: RuntimeSpec,
    seen: int,
    *,
    like: Mapping[str, str] | None = None,
    alone: bool = False,
    trials: bool = False,
    snapshots: bool = False,
) -> Placement:
    """Choose the placement of a launch's networks, by a probe where one pays.

    What `runtime` asks for and what a resumed run has is taken as it is.

    Args:
        template: of the jobs.
        dataset: n examples of the shape that the networks get.
        runtime: what is asked for.
        seen: examples that all trainings will take in; a probe has to be short beside them.
        like: tags of the run that is resumed.
        alone: one network trains at a time.
        trials: networks come and go, with settings of their own: on a GPU one at a time, or as one stack.
        snapshots: each network is worked with between two epochs: on a GPU one at a time.

    Raises:
        RecipeError: a device that is not there.
    """
    network = template.network
    stacks = stackable(network)
    placement = place(runtime, stackable=stacks, like=like)
    on_gpu = placement.device != "cpu"
    if alone:
        placement = placement.alone(wide=not stacks)
    elif on_gpu and (trials or snapshots):
        placement = replace(placement, threads=1, cores=placement.machine, devices=())
    if stacks or like:
        return placement
    random = draws_random_numbers(network, dataset.shape, dataset.n_classes)
    if on_gpu:
        settled = alone or trials or snapshots or random or runtime.threads
        return placement if settled else _beside(template, dataset, placement, seen)
    work = 3.0 * flops(network, dataset.shape, dataset.n_classes)
    if seen * work < LONG or seen < WORTH * WAYS * (ROUNDS + 1) * _rows(template, dataset, placement):
        return placement
    if random:
        placement = placement.alone(wide=True)  # as the engine will have it
    return _probed(template, dataset, runtime, placement)


def measured_rate(template: JobTemplate, dataset: Dataset, placement: Placement) -> Rate | None:
    """The rate of this placement, where a probe has measured it."""
    return _remembered(_key(template, dataset, placement)).get(name(placement))


def name(placement: Placement) -> str:
    """A placement as the log and the cache say it."""
    return f"{placement.precision}, {placement.layout}, {placement.threads} x {placement.cores} cores"


def _probed(template: JobTemplate, dataset: Dataset, runtime: RuntimeSpec, placement: Placement) -> Placement:
    """Try every precision and layout, then the best of them with one network per core."""
    ways = _ways(runtime, placement)
    side_by_side = not runtime.threads and placement.threads > 1
    if side_by_side:
        ways = [way.alone(wide=True) for way in ways]
    elif len(ways) == 1:
        return placement
    start, key = time.perf_counter(), _key(template, dataset, placement)
    before = _remembered(key)
    rates = before | _measure(template, dataset, [way for way in ways if name(way) not in before])
    best = fastest(ways, rates)
    if best and side_by_side:
        ways = [best, replace(best, threads=placement.threads, cores=placement.cores)]
        rates |= _measure(template, dataset, [way for way in ways if name(way) not in rates])
        best = fastest(ways, rates)
    if rates != before:
        _keep(key, rates)
        seconds = time.perf_counter() - start
        say(f"placement of {template.network.name}: {name(best or placement)}, measured in {seconds:.1f} s")
    return best or placement


def _beside(template: JobTemplate, dataset: Dataset, placement: Placement, seen: int) -> Placement:
    """Try twice as many networks side by side on a GPU for as long as that pays and there is memory."""
    if seen < WORTH * sum(BESIDE) * (ROUNDS + 1) * STEPS * _rows(template, dataset, placement):
        return placement
    start, key, best = time.perf_counter(), _key(template, dataset, placement), placement
    before = _remembered(key)
    rates, fastest_yet = dict(before), math.inf
    for threads in BESIDE:
        way = replace(placement, threads=threads, cores=max(1, placement.machine // threads))
        if name(way) not in rates:
            rates |= _measure(template, dataset, [way])
            free(placement.device)
        rate = rates[name(way)]
        if rate is None or rate.train * MORE > fastest_yet:
            break
        best, fastest_yet = way, rate.train
    if rates != before:
        _keep(key, rates)
        seconds = time.perf_counter() - start
        say(f"placement of {template.network.name}: {name(best)}, measured in {seconds:.1f} s")
    return best


def _ways(runtime: RuntimeSpec, placement: Placement) -> list[Placement]:
    """The precisions and layouts that are left open; bfloat16 only where products gain from it."""
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
class TimedWay:
    """One way to lie: as many networks as it trains side by side, a batch for each, its fastest step and evaluation."""

    template: JobTemplate
    dataset: Dataset
    placement: Placement
    train: float = math.inf
    evaluate: float = math.inf
    learners: list[tuple[Job, Learner]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rows = np.arange(self.dataset.n_train)
        device = self.placement.device
        self.steps = 1 if device == "cpu" else STEPS
        self.examples = Examples(self.dataset, self.template.training, device, self.placement.master)
        for number in range(self.placement.threads):
            job = self.template.job(("probe", number), rows)
            spare = None if device == "cpu" else SpareLearner()  # a GPU captures its steps
            self.learners.append((job, new_learner(job, self.examples, self.dataset, self.placement, spare)))
        self.images, self.labels = self.examples.batch(torch.from_numpy(rows).to(device)), self.examples.labels
        settle(device)

    def turn(self) -> bool:
        """Steps and one evaluation of every network, timed; whether its loss is finite."""
        threads, device = self.placement.threads, self.placement.device
        with (
            float32_routing(self.placement.matmul),
            ThreadPoolExecutor(threads, initializer=own_stream, initargs=(device,)) as pool,
        ):
            start = time.perf_counter()
            finite = all(pool.map(self._step, self.learners))
            middle = time.perf_counter()
            list(pool.map(self._evaluate, self.learners))
        self.train = min(self.train, middle - start)
        self.evaluate = min(self.evaluate, time.perf_counter() - middle)
        return finite

    def _step(self, entry: tuple[Job, Learner]) -> bool:
        job, learner = entry
        torch.set_num_threads(self.placement.cores)
        noise = generators([job], 0, self.labels.device)
        for _ in range(self.steps):
            images = perturbed(self.images, self.labels, learner, job.training, noise)
            loss = learner.step(images, self.labels, 0.0)  # at rate 0 nothing can diverge
        return math.isfinite(float(loss))

    def _evaluate(self, entry: tuple[Job, Learner]) -> None:
        torch.set_num_threads(self.placement.cores)
        logits, _ = entry[1].evaluate(self.images)
        float(logits[0, 0])  # has to be there

    def rate(self) -> Rate:
        """Seconds per example."""
        count = len(self.labels) * len(self.learners)
        return Rate(self.train / (count * self.steps), self.evaluate / count)


def _measure(template: JobTemplate, dataset: Dataset, placements: Sequence[Placement]) -> dict[str, Rate | None]:
    """Let the ways take turns, so that a busy moment meets all; the first of each, a slow one, is not counted."""
    if not placements:
        return {}
    rows = np.arange(_rows(template, dataset, placements[0]))
    images, labels = dataset.images[rows], dataset.labels[rows]
    small = replace(dataset, images=images, labels=labels, ids=dataset.ids[rows], n_train=len(rows))
    rates: dict[str, Rate | None] = {name(placement): None for placement in placements}
    able = []
    with operation_threads(torch.get_num_threads()), seeded(template.job(("probe",), rows)):
        for placement in placements:
            try:
                way = TimedWay(template, small, placement)
                if way.turn():
                    able.append(way)
            except RuntimeError:  # a precision or a layout that an operation does not have, too little memory
                continue
            way.train = way.evaluate = math.inf
        for _ in range(ROUNDS):
            for way in able:
                way.turn()
    return rates | {name(way.placement): way.rate() for way in able}


def _rows(template: JobTemplate, dataset: Dataset, placement: Placement) -> int:
    """Examples in a batch of the probe: the jobs', unless a step would take a CPU too long."""
    work = 3.0 * flops(template.network, dataset.shape, dataset.n_classes)
    most = max(ROWS, int(FLOP / max(work, 1.0))) if placement.device == "cpu" else dataset.n_train
    return min(template.training.batch_size or dataset.n_train, dataset.n_train, most)


def _key(template: JobTemplate, dataset: Dataset, placement: Placement) -> str:
    """What a rate depends on."""
    train, model = template.training, template.network
    noise = [train.input_noise, train.input_dropout, train.adversarial]
    network = [model.name, dict(model.settings), dataset.shape, dataset.n_classes, template.optimizer.name]
    machine = [device_name(placement.device), placement.machine, placement.matmul, torch.__version__]
    return json.dumps([*network, _rows(template, dataset, placement), noise, *machine])


def cache_file() -> Path:
    """Where rates are kept, by the XDG base directories."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "study" / "placement.json"


def _remembered(key: str) -> dict[str, Rate | None]:
    """The rates of a network, by name of the way; a broken file has none."""
    if key in _rates:
        return _rates[key]
    try:
        return {way: rate and Rate(float(rate[0]), float(rate[1])) for way, rate in _table().get(key, {}).items()}
    except (ValueError, TypeError, AttributeError, LookupError):
        return {}


def _table() -> dict:
    """The file's content."""
    try:
        table = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _keep(key: str, rates: Mapping[str, Rate | None]) -> None:
    """Write the rates into the file, whole or not at all; a folder that takes nothing is let be."""
    _rates[key] = dict(rates)
    file = cache_file()
    table = _table() | {key: {way: rate and [rate.train, rate.evaluate] for way, rate in rates.items()}}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".json", delete=False, encoding="utf-8") as new:
            json.dump(table, new, indent=1)
        os.replace(new.name, file)
    except OSError:
        return
