"""C-scores of image data sets, their proxies, and how well the proxies stand in for them.

    import study

    scores = study.cscores(images, labels, model="mlp", ratios=(0.1, 0.5, 0.9), members=40)
    run = study.single_run(images, labels, epochs=20, proxies=["cbtl", "aum"])
    table = study.correlate(scores, run.scores)

The names below are imported when they are used; `import study` imports nothing else and changes nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.api.catalogs import list_datasets, list_models, list_proxies
    from study.api.comparison import correlate
    from study.api.features import extract_features
    from study.api.stores import open_runs as open
    from study.api.training import SingleRun, cscores, single_run
    from study.data.dataset import Dataset
    from study.data.types import NoiseSpec
    from study.errors import StudyError
    from study.recorder.importers import read_trace
    from study.recorder.recorder import Recorder, merge

__version__ = "0.2.0"

__all__ = [
    "Dataset",
    "NoiseSpec",
    "Recorder",
    "SingleRun",
    "StudyError",
    "__version__",
    "correlate",
    "cscores",
    "extract_features",
    "list_datasets",
    "list_models",
    "list_proxies",
    "merge",
    "open",
    "read_trace",
    "single_run",
]
_HOMES = {
    "Dataset": ("study.data.dataset", "Dataset"),
    "NoiseSpec": ("study.data.types", "NoiseSpec"),
    "Recorder": ("study.recorder.recorder", "Recorder"),
    "SingleRun": ("study.api.training", "SingleRun"),
    "StudyError": ("study.errors", "StudyError"),
    "correlate": ("study.api.comparison", "correlate"),
    "cscores": ("study.api.training", "cscores"),
    "extract_features": ("study.api.features", "extract_features"),
    "list_datasets": ("study.api.catalogs", "list_datasets"),
    "list_models": ("study.api.catalogs", "list_models"),
    "list_proxies": ("study.api.catalogs", "list_proxies"),
    "merge": ("study.recorder.recorder", "merge"),
    "open": ("study.api.stores", "open_runs"),
    "read_trace": ("study.recorder.importers", "read_trace"),
    "single_run": ("study.api.training", "single_run"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'study' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
