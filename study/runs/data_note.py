"""What a run says of its data.  in: a Run, a Dataset   out: name, digest, size, and the files that have changed it"""

from study.data import Dataset
from study.tracking import Run


def log_data(run: Run, dataset: Dataset) -> None:
    """Name the data that a run trains on, and keep the decisions and keep lists that have changed it."""
    run.dataset(dataset.name, dataset.digest, "training", dataset.n_train, **dataset.profile)
    for number, edit in enumerate(dataset.edits, 1):
        run.text(f"data/{number}_{edit.kind}.csv", edit.text)
