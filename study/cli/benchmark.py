"""`study benchmark`.  in: names of protocols   out: ours beside the published figures, as tables or JSON"""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.interrupt import interruptible
from study.cli.options import AsJson, Root
from study.progress import bar, duration, say


def benchmark(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="protocols; all unless given")] = [],
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="of mnist/, cifar10/ or cifar10-jpeg/, cifar10n/")
    ] = Path("~/.cache/study"),
    list_them: Annotated[bool, typer.Option("--list", help="name the protocols and run none")] = False,
    root: Root = Path("mlruns"),
    as_json: AsJson = False,
) -> None:
    """Repeat published measurements at a small scale."""
    from study.benchmark.protocols import protocols

    chosen = protocols(names)
    if list_them:
        from study.cli.benchmark_tables import protocol_table

        protocol_table(chosen, as_json)
        return
    from study.benchmark.run import Result, prepare, run
    from study.cli.benchmark_tables import result_table, results_as_json
    from study.errors import DataError
    from study.tracking import open_store

    store = open_store(root)
    with interruptible() as stop:
        ready, left_out = prepare(chosen, data.expanduser(), store)
        if not ready:
            raise DataError(_nothing(left_out, data))
        for line in left_out:
            say(line)
        for each in ready:
            say(f"{each.protocol.name}: {each.scale}; {each.device}; about {duration(each.seconds)} of training")
        results: list[Result] = []
        for result in run(ready, store, stop=stop, bar=bar):
            results.append(result)
            say(f"{result.prepared.protocol.name}: done in {duration(result.seconds)}, {len(results)} of {len(ready)}")
            if not as_json:
                result_table(result)
    if as_json:
        results_as_json(results, left_out)


def _nothing(left_out: list[str], folder: Path) -> str:
    """Why no protocol can run, in one line."""
    if len(left_out) == 1:
        return left_out[0]
    return f"none of the {len(left_out)} protocols has its data below {folder}; name their folder by --data"
