"""What a caller passes, as Dataset, Recipe and Store.  in: arrays, names, words   out: the package's own types"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.data import Dataset, NoiseSpec
from study.errors import DataError, RecipeError, StoreError
from study.models.spec import network_spec
from study.progress import Bar
from study.recipe import Model, Recipe, parse

if TYPE_CHECKING:
    from study.tracking import Store

Words = str | Mapping[str, Any]


def as_dataset(data: Any, labels: Any, progress: Bar) -> Dataset:
    """The Dataset of what a caller has: one already, arrays with labels, a name, a folder, another library's data set.

    Raises:
        DataError: nothing of these, or labels where the data have their own.

    >>> from study.progress import quiet
    >>> as_dataset("digits", None, quiet).n
    1797
    """
    if labels is not None:
        if isinstance(data, (Dataset, str, os.PathLike)):
            raise DataError("labels go with arrays alone; a data set has its own")
        return Dataset.from_arrays(data, labels)
    if isinstance(data, Dataset):
        return data
    if isinstance(data, os.PathLike) or (isinstance(data, str) and Path(data).expanduser().is_dir()):
        return Dataset.from_folder(os.fsdecode(data), progress=progress)
    if isinstance(data, str):
        return Dataset.from_name(data, progress=progress)
    if isinstance(data, Mapping) or hasattr(data, "column_names"):
        return Dataset.from_huggingface(data, progress=progress)
    if hasattr(data, "shape"):
        raise DataError("images without labels; pass labels as the second argument")
    if hasattr(data, "__getitem__"):
        return Dataset.from_torch(data)
    raise DataError(
        f"a {type(data).__name__} is no data set; pass images and labels, a study.Dataset, a torch or Hugging Face "
        "Dataset, a folder or a name"
    )


def as_recipe(
    dataset: Dataset,
    kind: str,
    model: Any,
    settings: Mapping[str, Any] | None,
    seed: int,
    tables: Mapping[str, Mapping[str, Any]],
) -> Recipe:
    """The recipe of a call; what is None in `tables` takes the recipe's default.

    Args:
        dataset: its name and noise become [data] and [noise].
        kind: "ensemble" or "single".
        model: name, spec or builder; a builder goes with the recipe, which as text has its name only.
        settings: of the model.
        seed: of everything that is drawn.
        tables: the other tables.

    Raises:
        RecipeError: a value that its table refuses, noise of another seed.

    >>> as_recipe(Dataset.from_name("digits"), "single", "mlp", None, 0, {"train": {"epochs": 3}}).train.epochs
    3
    """
    noisy = dataset.noise != NoiseSpec()
    if noisy and dataset.noise_seed != seed:
        raise RecipeError(
            f"the noise in {dataset.name} was drawn with seed {dataset.noise_seed}, the call has seed={seed}; "
            "use one seed for both"
        )
    network = network_spec(model, settings)
    given = {name: {key: value for key, value in table.items() if value is not None} for name, table in tables.items()}
    recipe = parse(
        {
            "kind": kind,
            "seed": seed,
            "data": _given(dataset.spec) if dataset.spec else {"name": dataset.name},
            "noise": _given(dataset.noise) if noisy else {},
            "model": {"name": network.name, "settings": dict(network.settings)},
            **given,
        },
        "study",
    )
    return recipe if network.builder is None else recipe.model_copy(update={"model": Model.of(network)})


def _given(spec: Any) -> dict[str, Any]:
    """The fields of a frozen spec that are not None; a spec in it becomes a table."""
    given = {key: _given(value) if is_dataclass(value) else value for key, value in vars(spec).items()}
    return {key: value for key, value in given.items() if value is not None}


def named(words: Words | None, **more: Any) -> dict[str, Any]:
    """A table of a recipe from a name, or from a mapping, and further keys; None is left out.

    >>> named("adam", lr=0.001)
    {'name': 'adam', 'lr': 0.001}
    """
    table = {"name": words} if isinstance(words, str) else dict(words or {})
    return table | {key: value for key, value in more.items() if value is not None}


def proxy_table(proxies: Sequence[str] | Mapping[str, Mapping[str, Any]] | str | None) -> dict[str, dict[str, Any]]:
    """A recipe's [proxies] table of names, of a mapping from names to settings, or of one name.

    >>> proxy_table(["cbtl", "aum"])
    {'cbtl': {}, 'aum': {}}
    """
    if proxies is None:
        return {}
    if isinstance(proxies, str):
        return {proxies: {}}
    if isinstance(proxies, Mapping):
        return {name: dict(settings or {}) for name, settings in proxies.items()}
    return {name: {} for name in proxies}


def as_store(store: Any, *, create: bool = True) -> "Store":
    """Open a folder, or an MLflow tracking URI.

    Args:
        store: path or URI, or an open Store.
        create: whether an empty store may be made.

    Raises:
        StoreError: there is none, or it cannot be used.

    >>> as_store("no/such/folder", create=False)
    Traceback (most recent call last):
        ...
    study.errors.StoreError: no/such/folder: no runs here (no mlflow.db); name the folder of the runs, or a URI
    """
    from study.tracking import Store, open_store

    if isinstance(store, Store):
        return store
    if "://" in str(store):
        return open_store(uri=str(store))
    folder = Path(store).expanduser()
    if not create and not os.environ.get("MLFLOW_TRACKING_URI") and not (folder / "mlflow.db").is_file():
        raise StoreError(f"{folder}: no runs here (no mlflow.db); name the folder of the runs, or a URI")
    return open_store(folder)
