"""Runs in MLflow: open, start, resume, find, read.  in: params, metrics, tables, figures   out: runs, checked files.

The only package that imports mlflow, and only inside functions: the import costs three seconds.

    store = open_store(Path("mlruns"))
    with store.lock(digest), store.start("digits/single", "resnet20", params=params, tags=tags) as run:
        run.series("train/loss", losses)
        run.table("scores.parquet", scores)
    scores = store.find(kind="single", status="FINISHED")[0].read_table("scores.parquet")
"""

from study.tracking.run import Run
from study.tracking.store import Store, open_store

__all__ = ["Run", "Store", "open_store"]
