"""Rates of networks without a stacked form, by trying.  in: a JobTemplate, a Dataset   out: a Placement, a Rate

A CPU trains one network per core and a GPU in bfloat16 where it can, by rule, see `placement`: nothing that changes
bits is decided by time.  What a GPU gains from networks side by side is: one, two, four and eight are tried, as long as
more are faster.  Wide ones fill the device alone, narrow ones leave most of it idle.

Rates are kept in the user's cache folder, `study/placement.json`, by network, shape, batch, device, cores and torch,
each with the time at which it was measured.  A rate from which a training differs threefold is dropped, so that the
next launch measures anew.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from study.data import Dataset
from study.models.build import draws_random_numbers, flops, stackable
from study.progress import duration, say
from study.training.device_data import Examples
from study.training.engines.threads import free, own_stream, settle
from study.training.evaluation import Learner
from study.training.learners import SpareLearner, new_learner, seeded
from study.training.placement import Placement, device_name, float32_routing, operation_threads, place, placed
from study.training.regularizers import generators, perturbed
from study.training.types import Job, JobTemplate, RuntimeSpec

ROUNDS = 2  # timed steps of every way, in turns; the fastest counts
FLOP = 3e10  # of a step of the probe, about: the batch is cut to it
ROWS = 16  # but not below this
WORTH = 10  # a training is at least so many times longer than its probe
BESIDE = (1, 2, 4, 8)  # networks side by side on a GPU that are tried
STEPS = 20  # of each network in a turn on a GPU: the next ones are started while it is at work
MORE = 1.05  # twice as many networks on a GPU have to be so much faster to be worth their memory
SHORT = 10.0  # seconds of a training that says nothing of a rate: the first steps of a process take seconds
OFF = 3.0  # a training that is so many times faster or slower than its rate drops the rate


@dataclass(frozen=True)
class Rate:
    """Seconds per example of a training step and of an evaluation, with as many networks as train side by side.

    when: it was measured, in seconds since 1970.
    """

    train: float
    evaluate: float
    when: float = 0.0


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
    """Choose the placement of a launch's networks; how many a GPU trains side by side by a probe where one pays.

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
    random = not stacks and draws_random_numbers(network, dataset.shape, dataset.n_classes)
    if alone or (random and not on_gpu):
        placement = placement.alone(wide=not stacks)
        placement = replace(placement, cores=placed(like).get("cores", placement.cores))
    elif on_gpu and (trials or snapshots):
        placement = replace(placement, threads=1, cores=placement.machine, devices=())
    unsure = not (on_gpu or stacks or like) and (runtime.precision, placement.precision) == ("auto", "bfloat16")
    if unsure and measured_rate(template, dataset, placement) is None:
        placement = replace(placement, precision="float32")  # an operation of the network lacks bfloat16
    settled = stacks or like or alone or trials or snapshots or random or runtime.threads
    return _beside(template, dataset, placement, seen) if on_gpu and not settled else placement


def measured_rate(template: JobTemplate, dataset: Dataset, placement: Placement) -> Rate | None:
    """The rate of this placement: what a probe has measured, else on a CPU by a probe; None for stacked forms."""
    if stackable(template.network):
        return None
    key, way = _key(template, dataset, placement), name(placement)
    rates = _remembered(key)
    if way not in rates and placement.device == "cpu":
        rates = _measured(template, dataset, key, rates, placement)
    return rates.get(way)


def review(
    template: JobTemplate, dataset: Dataset, placement: Placement, seen: int, evaluated: int, seconds: float
) -> None:
    """Drop the rate of a placement from which a training differs threefold: something else was running, then or now.

    Args:
        template, dataset, placement: as trained.
        seen: examples that all trainings took in.
        evaluated: examples that all evaluations took in.
        seconds: of the training.
    """
    if stackable(template.network):
        return
    key, way = _key(template, dataset, placement), name(placement)
    rate = _remembered(key).get(way)
    if not rate or seconds < SHORT:
        return
    expected = (rate.train * seen + rate.evaluate * evaluated) / max(1, len(placement.devices))
    if not 1 / OFF <= seconds / max(expected, 1e-9) <= OFF:
        _keep(key, {other: each for other, each in _remembered(key).items() if other != way})
        say(
            f"{template.network.name} took {duration(seconds)} where its measured rate says {duration(expected)}; "
            "the next launch measures it anew"
        )


def name(placement: Placement) -> str:
    """A placement as the log and the cache say it."""
    return f"{placement.precision}, {placement.layout}, {placement.threads} x {placement.cores} cores"


def _beside(template: JobTemplate, dataset: Dataset, placement: Placement, seen: int) -> Placement:
    """Try twice as many networks side by side for as long as that pays and there is memory."""
    if seen < WORTH * sum(BESIDE) * (ROUNDS + 1) * STEPS * _rows(template, dataset, placement):
        return placement
    key, best = _key(template, dataset, placement), placement
    rates, fastest_yet = _remembered(key), math.inf
    for threads in BESIDE:
        way = replace(placement, threads=threads, cores=max(1, placement.machine // threads))
        if name(way) not in rates:
            rates = _measured(template, dataset, key, rates, way)
            free(placement.device)
        rate = rates[name(way)]
        if rate is None or rate.train * MORE > fastest_yet:
            break
        best, fastest_yet = way, rate.train
    return best


def _measured(
    template: JobTemplate, dataset: Dataset, key: str, rates: Mapping[str, Rate | None], way: Placement
) -> dict[str, Rate | None]:
    """The rates with that of one more way, kept."""
    start = time.perf_counter()
    rates = {**rates, **_measure(template, dataset, way)}
    _keep(key, rates)
    say(f"rate of {template.network.name}: {name(way)}, measured in {time.perf_counter() - start:.1f} s")
    return rates


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
        return Rate(self.train / (count * self.steps), self.evaluate / count, time.time())


def _measure(template: JobTemplate, dataset: Dataset, placement: Placement) -> dict[str, Rate | None]:
    """The best of a few turns; the first, a slow one, is not counted.  None where the network cannot train so."""
    rows = np.arange(_rows(template, dataset, placement))
    images, labels = dataset.images[rows], dataset.labels[rows]
    small = replace(dataset, images=images, labels=labels, ids=dataset.ids[rows], n_train=len(rows))
    with operation_threads(torch.get_num_threads()), seeded(template.job(("probe",), rows)):
        try:
            way = TimedWay(template, small, placement)
            if not way.turn():
                return {name(placement): None}
        except RuntimeError:  # a precision or a layout that an operation does not have, too little memory
            return {name(placement): None}
        way.train = way.evaluate = math.inf
        for _ in range(ROUNDS):
            way.turn()
    return {name(placement): way.rate()}


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
    """The rates of a network, by name of the way; a broken file has none.  Says once how old they are."""
    if key not in _rates:
        try:
            _rates[key] = {way: rate and _read(rate) for way, rate in _table().get(key, {}).items()}
        except (ValueError, TypeError, AttributeError, LookupError):
            _rates[key] = {}
        ages = [time.time() - rate.when for rate in _rates[key].values() if rate]
        if ages:
            say(f"rate of {json.loads(key)[0]}: measured {duration(max(ages))} ago, from {cache_file()}")
    return dict(_rates[key])


def _read(entry: Sequence[float]) -> Rate:
    """A rate as the file has it.

    Raises:
        ValueError, TypeError, LookupError: it is none.
    """
    train, evaluate, when = (float(number) for number in entry)
    if not (0 < train < math.inf and 0 < evaluate < math.inf and 0 <= when < math.inf):
        raise ValueError(f"{entry} is no rate")
    return Rate(train, evaluate, when)


def _table() -> dict:
    """The file's content."""
    try:
        file = cache_file()
        table = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def _keep(key: str, rates: Mapping[str, Rate | None]) -> None:
    """Write the rates into the file, whole or not at all; a folder that takes nothing is let be."""
    _rates[key] = dict(rates)
    file = cache_file()
    table = _table() | {key: {way: rate and [rate.train, rate.evaluate, rate.when] for way, rate in rates.items()}}
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".json", delete=False, encoding="utf-8") as new:
            json.dump(table, new, indent=1)
        os.replace(new.name, file)
