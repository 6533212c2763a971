"""The data set that a recipe names.  in: a DataSpec or a [data] table, noise   out: a Dataset"""

from typing import Any

from study.data.dataset import Dataset
from study.data.findings import copies
from study.data.foreign import with_foreign
from study.data.readers.registry import read
from study.data.types import DataSpec, ForeignSpec, NoiseSpec
from study.progress import Bar, bar, command, say


def load(data: Any, *, progress: Bar = bar) -> Dataset:
    """Read, check and digest the data set that a DataSpec, or a recipe's [data] table, names.

    Args:
        data: DataSpec, or any object with its attributes.  `classes` keeps only these and re-numbers the labels 0..c-1
            in the order given; `limit` then keeps the first `limit` train examples of each class in canonical order
            (test rows all stay); ids keep the numbers that they have in the whole data set.  `size` and `channels` then
            shape every image.
        progress: opens a display of the decoding; see `study.progress`.

    Raises:
        DataError: one line that names the file or folder and the cure.

    >>> load(DataSpec("digits", classes=("3", "8"))).n_classes
    2
    """
    spec = data if isinstance(data, DataSpec) else DataSpec.of(data)
    return Dataset.of_raw(read(spec, progress), spec, spec)


def open_data(data: Any, noise: Any = None, *, seed: int = 0, progress: Bar = bar) -> Dataset:
    """The data set that a recipe trains on: read as [data] says, made noisy as [noise] says, then corrected and cut.

    Every launch comes by here, so ensemble and single runs of one recipe see the same noise.  Files of decisions are
    applied in their order, the keep list last.

    Args:
        data: DataSpec, or a recipe's [data] table.
        noise: NoiseSpec, or a recipe's [noise] table; None: no noise.
        seed: of the noise.
        progress: opens a display of the decoding; see `study.progress`.

    Raises:
        DataError: see `load`, `Dataset.with_noise`, `Dataset.with_decisions` and `Dataset.with_only`.

    >>> open_data(DataSpec("digits"), NoiseSpec(labels="asymmetric", share=0.1), seed=1).noise.share
    0.1
    """
    dataset = load(data, progress=progress)
    for line in dataset.notes:
        say(f"{dataset.name}: {line}")
    if repeats := copies(dataset):
        say(f"{dataset.name}: {repeats}; `{command('data')}` lists them")
    if noise is not None:
        dataset = dataset.with_noise(noise if isinstance(noise, NoiseSpec) else NoiseSpec.of(noise), seed=seed)
    if data.foreign is not None:
        dataset = with_foreign(dataset, ForeignSpec.of(data.foreign), seed=seed, progress=progress)
    for path in data.decisions:
        dataset = dataset.with_decisions(path)
    if data.keep:
        dataset = dataset.with_only(data.keep)
    for edit in dataset.edits:
        counts = ", ".join(f"{count:,} {name}" for name, count in edit.counts.items())
        say(f"{dataset.name}: {edit.kind}: {counts}")
    return dataset
