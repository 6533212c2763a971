"""Small made-up data and recipes that several test files share."""

from dataclasses import replace

import numpy as np

from study.data import Dataset
from study.recipe import Recipe, parse


def blobs(
    n_train: int = 120, n_test: int = 30, *, n_classes: int = 3, shape: tuple[int, int, int] = (1, 6, 6), seed: int = 0
) -> Dataset:
    """Noisy copies of one random image per class: learned in a few steps, not all of it."""
    rng = np.random.default_rng(seed)
    n = n_train + n_test
    labels = np.arange(n) % n_classes
    centers = rng.integers(60, 196, (n_classes, *shape))
    images = np.clip(centers[labels] + rng.normal(0, 60, (n, *shape)), 0, 255).astype(np.uint8)
    ids = np.array([f"train/{i:04}" for i in range(n_train)] + [f"test/{i:04}" for i in range(n_test)])
    classes = tuple(f"class {i}" for i in range(n_classes))
    return Dataset("blobs", images, labels, ids, n_train, classes, 255.0, (), f"toy-{seed}-{n_train}-{n_test}")


def blobs_with_errors() -> Dataset:
    """The same with every tenth training example under the next class."""
    clean = blobs()
    labels = clean.labels.copy()
    labels[: clean.n_train : 10] = (labels[: clean.n_train : 10] + 1) % clean.n_classes
    return replace(clean, labels=labels, labels_before_noise=clean.labels, digest="toy-changed")


def toy_recipe(kind: str = "ensemble", **tables: object) -> Recipe:
    """Three epochs of a small MLP; `tables` are merged over it."""
    table: dict = {
        "data": {"name": "digits"},
        "model": {"name": "mlp", "settings": {"widths": [16, 8]}},
        "train": {"epochs": 3, "batch_size": 16},
        "subset": {"ratios": [0.3, 0.7], "members": 4, "design": "uniform"},
        "runtime": {"device": "cpu", "precision": "float32", "shard": 2},
    }
    for name, value in tables.items():
        table[name] = {**table.get(name, {}), **value} if isinstance(value, dict) else value
    recipe = parse(table, "toy recipe")
    return recipe if kind == "study" else recipe.part(kind)


def two_figures(results) -> list:
    """In place of the twenty figures of a report, which take most of its time."""
    from study.figures.style import sentence_figure
    from study.report.html import FigureSection

    drawing = sentence_figure("A figure", f"of {len(results.dataset.labels)} examples")
    return [FigureSection(name, "A figure", "A sentence.", drawing) for name in ("proxies", "J-fig6")]
