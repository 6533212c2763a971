"""Networks: the one door on timm.  in: a recipe's [model], image shape, classes   out: a module with a classifier

Own networks, one family to a file, are decorated builders (`study.networks.registry.own`); `placements` says where the
probes of the prediction depth sit in any network, `table` and `networks_markdown` what there is.
"""

from study.networks.catalog import networks_markdown, table
from study.networks.counting import FlopCounter
from study.networks.door import (
    create,
    draws_random_numbers,
    fit_check,
    flops,
    names,
    normalization,
    parameters,
    stackable,
)
from study.networks.probes import placements

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
