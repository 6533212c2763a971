"""Numbers per example that stand in for the C-score.  in: signals of one training run   out: scores (n,)"""

from study.proxies import confidence, density, depth, gradient, learning_speed, margin, sensitivity  # noqa: F401  register
from study.proxies.registry import (
    PLANTS,
    PROXIES,
    SIGNALS,
    Signal,
    Spec,
    at_epoch,
    bind,
    chosen,
    compute,
    get,
    oriented,
    proxies_markdown,
    proxy,
    signals_of,
)

__all__ = [
    "PLANTS",
    "PROXIES",
    "SIGNALS",
    "Signal",
    "Spec",
    "at_epoch",
    "bind",
    "chosen",
    "compute",
    "confidence",
    "density",
    "depth",
    "get",
    "gradient",
    "margin",
    "oriented",
    "proxies_markdown",
    "proxy",
    "sensitivity",
    "signals_of",
    "speed",
]
