"""This package's own networks, each one decorated function.  in: a builder   out: timm's `study_<name>`, an entry here

A builder's positional parameters are given by the data, its keyword-only parameters are settings that a recipe's
`[model] settings` may change.  The tables of networks and the tests find whatever is registered.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from study.recipe import nearest

PREFIX = "study_"
GIVEN = ("image_shape", "in_chans", "num_classes")  # by the data
TIMM_KEYS = {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}  # timm hands these to every constructor


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is declared about a network.

    usual: (channels, height, width) of the images and number of classes in the source; sizes are told for these.
    source: id of the paper's passage, or where the network comes from.
    """

    name: str
    what: str
    usual: tuple[tuple[int, int, int], int]
    source: str
    settings: Mapping[str, object]


OWN: dict[str, Entry] = {}


def own(
    what: str, *, source: str, image: tuple[int, int, int] = (3, 32, 32), classes: int = 10
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register the decorated builder, `(image_shape, num_classes, *, settings)`, under its own name.

    Raises:
        ValueError: a name twice; at import, since only its author can mend it.
    """

    from timm.models import register_model

    def register(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        name = build.__name__
        if name in OWN:
            raise ValueError(f"network {name!r} is defined twice")
        parameters = inspect.signature(build).parameters.values()
        settings = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
        OWN[name] = Entry(name=name, what=what, usual=(image, classes), source=source, settings=settings)

        @functools.wraps(build)
        def construct(
            pretrained: bool = False,
            *,
            image_shape: Sequence[int],
            in_chans: int,
            num_classes: int = 10,
            **given: object,
        ) -> nn.Module:
            chosen = {key: value for key, value in given.items() if key not in TIMM_KEYS}
            for key in chosen:
                if key not in settings:
                    raise TypeError(f"unknown setting {key!r}{nearest(key, settings) or '; it has none'}")
            return build((in_chans, *image_shape[1:]), num_classes, **chosen)

        construct.__name__ = PREFIX + name
        register_model(construct)
        return build

    return register
