"""What proxies read, collected while one network trains.  in: an evaluation per epoch   out: {signal: array}

Only the signals that the recipe's proxies name are collected.  Sources reduce features and gradients to a few numbers
per example at once, so none of them is kept.
"""

from study.signals import (  # noqa: F401  registers its sources
    densities,
    input_gradients,
    knn_probes,
    linear_probes,
    weight_gradients,
)
from study.signals.collector import (
    Collector,
    Shared,
    conditions,
    curved,
    due_epochs,
    evaluation_epochs,
    scored_with,
    select_signals,
    wanted,
)
from study.signals.costs import Cost
from study.signals.member_depths import MemberDepths
from study.signals.registry import SOURCES, check_signals

__all__ = [
    "SOURCES",
    "Collector",
    "Cost",
    "MemberDepths",
    "Shared",
    "check_signals",
    "conditions",
    "curved",
    "due_epochs",
    "evaluation_epochs",
    "scored_with",
    "select_signals",
    "wanted",
]
