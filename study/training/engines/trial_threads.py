"""Trainings that come and go side by side, each with a recipe of its own.  in: what to train next   out: marks

A place is a core of a CPU, or one row of a stack of MLPs on a GPU.  As soon as a training ends, by itself or because
its caller has seen enough, its place takes the next one.  The caller is asked and told in its own thread, one thing at
a time, so what it writes needs no locks.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.data import Dataset
from study.errors import Stopped
from study.models.build import draws_random_numbers
from study.recipe import Recipe
from study.training.device_data import Examples
from study.training.evaluation import EVALUATE_ROWS, Learner, look
from study.training.fit import new_learner, own_randomness
from study.training.job import AnyOf, Hooks, Member, Outcome, stackable
from study.training.loop import train_epoch
from study.training.placement import Placement, float32_routing

IDLE = 1.0  # seconds without news after which the caller hears that time has passed


@dataclass(frozen=True)
class Entry:
    """One training: the caller's key for it, and its networks, one after the other, with the recipe of them all."""

    key: Any
    recipe: Recipe
    members: Sequence[Member]


@dataclass(frozen=True)
class Mark:
    """What a training has come to.

    step: epochs, or whatever the work counts.
    value: by which it is judged; NaN when the network has left the finite numbers.
    numbers: beside it, by the name under which they are logged.
    last: the training is over.
    fault: why it cannot go on, such as too little memory; the value is then NaN.
    """

    step: int
    value: float
    numbers: Mapping[str, float] = field(default_factory=dict)
    last: bool = False
    fault: str | None = None


Ask = Callable[[], Entry | None]
Tell = Callable[[Entry, Mark], bool]
Work = Callable[[Entry, AnyOf], Iterator[Mark]]


def train_slots(
    ask: Ask, tell: Tell, work: Work, places: int, *, stop: threading.Event, idle: Callable[[], None] = lambda: None
) -> None:
    """Keep so many places at work until there is nothing more to train.

    Args:
        ask: gives the next training, or None; asked again whenever a place is free.
        tell: hears each mark; False ends that training.
        work: trains an entry, mark by mark, in a thread of its own; ends when the event that it is given is set.
        places: trainings at a time.
        stop: set to end.
        idle: called about once a second.

    Raises:
        Stopped: `stop` was set.
    """
    news: queue.SimpleQueue = queue.SimpleQueue()
    desks: list[queue.SimpleQueue] = [queue.SimpleQueue() for _ in range(places)]
    abandoned = threading.Event()

    def attend(place: int) -> None:
        while entry := desks[place].get():
            try:
                with closing(work(entry, AnyOf(stop, abandoned))) as marks:
                    for mark in marks:
                        news.put((place, mark))
                        if not desks[place].get():
                            break
                news.put((place, None))
            except BaseException as error:  # raised again in the caller's thread
                news.put((place, error))

    def give(place: int) -> bool:
        if stop.is_set():
            raise Stopped
        if entry := ask():
            busy[place] = entry
            desks[place].put(entry)
        return entry is not None

    busy: dict[int, Entry] = {}
    with ThreadPoolExecutor(places) as pool:
        try:
            for place in range(places):
                pool.submit(attend, place)
            while all(give(place) for place in range(places) if place not in busy) or busy:
                _hear(news, desks, busy, tell, idle)
        finally:
            abandoned.set()
            for desk in desks:  # whoever waits for an answer hears no, then that the day is over
                desk.put(False)
                desk.put(None)


def _hear(
    news: queue.SimpleQueue,
    desks: Sequence[queue.SimpleQueue],
    busy: dict[int, Entry],
    tell: Tell,
    idle: Callable[[], None],
) -> None:
    """Wait for what one place has to say, and answer."""
    try:
        place, what = news.get(timeout=IDLE)
    except queue.Empty:
        idle()
        return
    if isinstance(what, BaseException):
        raise what
    if what is None:
        del busy[place]
        idle()
    else:
        desks[place].put(tell(busy[place], what) and not what.last)


@dataclass
class Trainings:
    """What all trainings of one search share: the examples on the device, the rows on which they are judged.

    judged: (v,) row numbers that no entry trains on.
    every: epochs between two marks; after the last epoch there always is one.
    """

    dataset: Dataset
    placement: Placement
    judged: np.ndarray
    every: int = 1
    progress: Callable[[int], None] = lambda examples: None
    _examples: dict[tuple, Examples] = field(default_factory=dict, init=False, repr=False)
    _making: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Float32 products go the placement's way, operations take its cores; both are put back."""
        threads = torch.get_num_threads()
        try:
            with float32_routing(self.placement.matmul):
                yield
        finally:
            torch.set_num_threads(threads)

    def epochs(self, entry: Entry, stop: AnyOf) -> Iterator[Mark]:
        """Train the entry's one member and judge it by its accuracy on the judged rows: a mark per epoch that is due.

        numbers: val/accuracy, val/loss, train/loss; after the last epoch test/accuracy, where there are test rows.
        """
        (member,) = entry.members
        rows = torch.from_numpy(self.judged).to(self.placement.device)
        passes, _ = entry.recipe.train.length(len(member.subset))
        try:
            for epoch, loss, learner, examples in self._passes(entry.recipe, member, stop):
                last = epoch == passes
                if last or epoch % self.every == 0 or not np.isfinite(loss):
                    (found,) = judge(learner, examples, rows)
                    yield self._mark(epoch, loss, found, last, learner, examples)
        except (RuntimeError, MemoryError) as error:
            yield _too_large(error)

    def outcome(self, recipe: Recipe, member: Member, stop: AnyOf) -> Outcome:
        """Train a member to its end and look at all examples with it."""
        *_, (_, _, learner, examples) = self._passes(recipe, member, stop)
        return look(learner, examples)

    def _mark(
        self, epoch: int, loss: float, found: tuple[float, float], last: bool, learner: Learner, examples: Examples
    ) -> Mark:
        accuracy, val_loss = found
        numbers = {"val/accuracy": accuracy, "val/loss": val_loss, "train/loss": loss}
        if not np.isfinite([loss, val_loss]).all():
            return Mark(epoch, float("nan"), numbers)
        if last and self.dataset.n_test:
            test = torch.arange(self.dataset.n_train, self.dataset.n, device=self.placement.device)
            numbers["test/accuracy"] = judge(learner, examples, test)[0][0]
        return Mark(epoch, accuracy, numbers, last)

    def _passes(self, recipe: Recipe, member: Member, stop: AnyOf) -> Iterator[tuple[int, float, Learner, Examples]]:
        """Train alone; after each pass: epoch, mean loss of its batches, learner, examples."""
        torch.set_num_threads(self.placement.cores)
        random = draws_random_numbers(recipe.model.spec(), self.dataset.shape, self.dataset.n_classes)
        hooks = Hooks(progress=self.progress, stop=stop)
        examples = self.examples(recipe)
        with own_randomness(recipe, member) if random else nullcontext():
            learner = new_learner([member], examples, self.dataset, recipe, self.placement)
            passes, _ = recipe.train.length(len(member.subset))
            for epoch in range(passes):
                loss = train_epoch(learner, member, examples, recipe, epoch, hooks)
                yield epoch + 1, loss, learner, examples

    def examples(self, recipe: Recipe) -> Examples:
        """The examples as this recipe scales them; made once for each way that there is."""
        train = recipe.train
        dtype = self.placement.compute if stackable(recipe) else self.placement.master
        way = (train.normalize, train.pad, train.flip, dtype)
        with self._making:
            if way not in self._examples:
                self._examples[way] = Examples(self.dataset, train, self.placement.device, dtype)
            return self._examples[way]


@torch.no_grad()
def judge(learner: Learner, examples: Examples, rows: Tensor) -> list[tuple[float, float]]:
    """(accuracy, mean cross-entropy) on these rows, without augmentation, of each network of the stack."""
    right = torch.zeros(learner.stack, dtype=torch.int64, device=rows.device)
    loss = torch.zeros(learner.stack, dtype=torch.float64, device=rows.device)
    for block in rows.split(EVALUATE_ROWS):
        labels = examples.labels[block]
        logits = learner.evaluate(examples.batch(block))[0].to(learner.weights.dtype)
        log_p = torch.log_softmax(logits.reshape(learner.stack, len(block), -1), dim=-1)
        right += (log_p.argmax(dim=-1) == labels).sum(dim=-1)
        loss -= log_p.gather(-1, labels.expand(learner.stack, -1).unsqueeze(-1)).sum(dim=(-2, -1)).double()
    return list(zip((right.double() / len(rows)).tolist(), (loss / len(rows)).tolist(), strict=True))


def _too_large(error: Exception) -> Mark:
    """A mark for a training that has asked for more memory than there is; any other error is raised."""
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return Mark(0, float("nan"), fault="out of memory")
    raise error
