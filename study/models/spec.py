"""Which network.  in: a registered name or a callable   out: what `create` builds"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkSpec:
    """A network by its registered name, or by a callable of the user's.

    name: of the registry or of timm; with a `builder` the name under which runs and tables show it.
    settings: keyword arguments of the builder.
    builder: `builder(image_shape, n_classes, **settings)` or, where it takes no such parameters, `builder(**settings)`;
        an `nn.Module` class or a function.  None: the name is looked up.
    """

    name: str = "mlp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    builder: "Callable[..., nn.Module] | None" = None
