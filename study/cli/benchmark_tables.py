"""Tables of the benchmark.  in: protocols, results   out: printed, or one JSON text"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from study.cli.as_json import print_json
from study.cli.tables import frame_table
from study.cli.use_tables import intervals
from study.progress import print_line

if TYPE_CHECKING:
    from study.benchmark.protocols import Protocol
    from study.benchmark.run import Result


def protocol_table(chosen: "Sequence[Protocol]", as_json: bool) -> None:
    """Print the names of protocols, what each measures, on which data."""
    table = pd.DataFrame(
        [
            {"name": each.name, "data": each.data, "measure": each.measure, "published": len(each.published)}
            | {"what": each.what}
            for each in chosen
        ]
    )
    if as_json:
        print_json(table)
    else:
        frame_table(table)


def result_table(result: "Result") -> None:
    """Print what one protocol measured, a column of ours and one of others'."""
    prepared, table = result.prepared, result.table
    print_line(f"{prepared.protocol.name}: {prepared.protocol.what}; {prepared.scale}; {prepared.device}")
    shown = {
        "score": table["label"],
        "measure": table["measure"],
        "here (95 %)": intervals(table, "value", "low", "high"),
        "published": [f"{value:g}" if np.isfinite(value) else "" for value in table["published"]],
        "of": [f"{scale}: {source}" if source else "" for scale, source in _texts(table)],
    }
    frame_table(pd.DataFrame(shown))


def results_as_json(results: "Sequence[Result]", left_out: Sequence[str]) -> None:
    """Print all results, a list of tables."""
    listed = [
        {
            "name": each.prepared.protocol.name,
            "what": each.prepared.protocol.what,
            "scale": each.prepared.scale,
            "device": each.prepared.device,
            "seconds": each.seconds,
            "rows": each.table,
        }
        for each in results
    ]
    print_json({"results": listed, "left_out": list(left_out)})


def _texts(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(table["published_scale"], table["source"], strict=True))
