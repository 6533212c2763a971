"""What proxies read, collected while one network trains.  in: a look at all examples per epoch   out: {word: array}

Only the words that the recipe's proxies name are collected.  Sources reduce features and gradients to a few numbers per
example at once, so none of them is kept.
"""

from study.evidence import densities, gradients, inputs, probes  # noqa: F401  registers its sources
from study.evidence.collector import Collector, Shared, conditions, curved, due_epochs, evidence, look_epochs, wanted
from study.evidence.costs import Cost
from study.evidence.depths import MemberDepths
from study.evidence.sources import SOURCES, check_evidence

__all__ = [
    "SOURCES",
    "Collector",
    "Cost",
    "MemberDepths",
    "Shared",
    "check_evidence",
    "conditions",
    "curved",
    "due_epochs",
    "evidence",
    "look_epochs",
    "wanted",
]
