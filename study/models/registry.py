"""The registered networks, each one decorated function.  in: a builder   out: an entry here

A builder's positional parameters are given by the data, its keyword-only parameters are settings that a recipe's
`[model] settings` may change.  The tables of networks and the tests find whatever is registered.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from study.code_hash import code_hash
from study.errors import did_you_mean

if TYPE_CHECKING:
    from torch import nn

    Builder = Callable[..., nn.Module]

GIVEN = ("image_shape", "in_chans", "n_classes", "num_classes")  # by the data


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """What is declared about a network.

    usual: (channels, height, width) of the images and number of classes in the source; sizes are listed for these.
    source: id of the paper's passage, or where the network comes from.
    build: `(image_shape, num_classes, *, settings)`; none for one of timm's.
    version: of what it computes; to be raised when its code changes and other weights or logits come out.
    later: settings that came after version 1 was in use, with the value that means what it did before.
    """

    name: str
    what: str
    usual: tuple[tuple[int, int, int], int]
    source: str
    settings: Mapping[str, Any]
    build: "Builder | None" = None
    version: int = 1
    later: Mapping[str, Any] = field(default_factory=dict)

    @property
    def project(self) -> bool:
        """Whether it is one of this package's own, and no plugin's."""
        return self.build is None or self.build.__module__.split(".")[0] == "study"

    @property
    def code(self) -> str | None:
        """What a digest holds of its code: None for version 1 of this package's own, a hash for a plugin's."""
        if self.build is None or self.project:
            return None if self.version == 1 else f"version {self.version}"
        return code_hash(self.build)

    def __call__(self, shape: tuple[int, int, int], n_classes: int, settings: Mapping[str, Any]) -> "nn.Module":
        """The network, with initial weights from torch's global generator.

        Raises:
            TypeError: a setting that it has not.
        """
        if self.build is None:
            raise TypeError(f"{self.name} is one of timm's")
        for key in settings:
            if key not in self.settings:
                raise TypeError(f"unknown setting {key!r}{did_you_mean(key, self.settings) or '; it has none'}")
        return self.build(shape, n_classes, **settings)


NETWORKS: dict[str, RegisteredModel] = {}


def register_model(
    what: str,
    *,
    source: str,
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    version: int = 1,
    later: Mapping[str, Any] | None = None,
) -> "Callable[[Builder], Builder]":
    """Register the decorated builder, `(image_shape, num_classes, *, settings)`, under its name.

    Args:
        what: in a few words.
        source, image, classes, version, later: see `RegisteredModel`.

    Raises:
        ValueError: a name twice; at import, since only its author can mend it.
    """

    def register(build: "Builder") -> "Builder":
        name = build.__name__
        if name in NETWORKS:
            raise ValueError(f"network {name!r} is defined twice")
        parameters = inspect.signature(build).parameters.values()
        settings = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
        NETWORKS[name] = RegisteredModel(
            name=name,
            what=what,
            usual=(image, classes),
            source=source,
            settings=settings,
            build=build,
            version=version,
            later=later or {},
        )
        return build

    return register
