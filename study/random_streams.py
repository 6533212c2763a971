"""Named random streams.  in: a seed, a name   out: a generator that depends on these alone"""

import hashlib

import numpy as np


def random_stream(seed: int, *name: object) -> np.random.Generator:
    """The generator of one purpose: the only source of randomness of the package.

    Args:
        seed: of the recipe, or of a call from Python.
        name: words and numbers, such as ("init", "member", "0.1", 3); other names give independent streams.
    """
    text = "\x1f".join(str(part) for part in name)
    key = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *key.tolist()])))
