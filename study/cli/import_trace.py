"""`study import`.  in: a trace that another tool has written   out: a recorded run with its proxies"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from study.cli.options import Root
from study.errors import DataError
from study.progress import command, print_line


def import_trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a trace: .npy, .npz, .csv, .parquet, folder of .jsonl")],
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="class numbers where the trace has none: .npy, or a line each")
    ] = None,
    experiment: Annotated[str, typer.Option(metavar="NAME", help="of the run; FILE/recorded unless given")] = "",
    online: Annotated[
        bool, typer.Option("--online", help="predictions were made in training, before the step")
    ] = False,
    root: Root = Path("mlruns"),
) -> None:
    """Compute proxies of a trace that another tool wrote.

    Dataset cartography's folder, AUM's records, cleanlab's pred_probs, arrays and tables; the scores become a run.
    """
    from study.recorder.importers import read_trace

    recorder = read_trace(file, labels=None if labels is None else _labels(labels), kind="online" if online else "end")
    scores = recorder.scores()
    run = recorder.log(root, experiment or f"{file.stem}/recorded", name=file.name)
    print_line(f"{len(scores)} examples, {', '.join(scores.attrs['trace'])}")
    for name, why in scores.attrs["left_out"].items():
        print_line(f"left out: {name}, {why}")
    print_line(f"run: {run}  ({command('show ' + run[:8])})")


def _labels(file: Path) -> np.ndarray:
    try:
        if file.suffix == ".npy":
            return np.load(file, allow_pickle=False)
        return np.array([int(line) for line in file.read_text(encoding="utf-8").split()])
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as labels ({error}); write .npy, or a number in each line") from None
