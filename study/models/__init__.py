"""Networks: the one door on timm.  in: a recipe's [model], image shape, classes   out: a module with a classifier

The project's networks, one family to a file, are decorated builders (`registry.register_model`); `placements` says
where the probes of the prediction depth sit in any network, `table` and `networks_markdown` what there is.
"""

from study.models.build import (
    create,
    draws_random_numbers,
    fit_check,
    flops,
    names,
    normalization,
    parameters,
    stackable,
)
from study.models.catalog import networks_markdown, table
from study.models.flops import FlopCounter
from study.models.probe_points import placements

__all__ = [
    "FlopCounter",
    "create",
    "draws_random_numbers",
    "fit_check",
    "flops",
    "names",
    "networks_markdown",
    "normalization",
    "parameters",
    "placements",
    "stackable",
    "table",
]
