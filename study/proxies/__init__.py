"""Numbers per example that stand in for the C-score.  in: evidence of one training run   out: scores (n,)"""

from study.proxies import confidence, density, speed
from study.proxies.registry import (
    PLANTS,
    PROXIES,
    WORDS,
    Spec,
    Word,
    bind,
    compute,
    get,
    oriented,
    proxies_markdown,
    proxy,
    words,
)

__all__ = [
    "PLANTS",
    "PROXIES",
    "WORDS",
    "Spec",
    "Word",
    "bind",
    "compute",
    "confidence",
    "density",
    "get",
    "oriented",
    "proxies_markdown",
    "proxy",
    "speed",
    "words",
]
