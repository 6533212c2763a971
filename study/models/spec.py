"""Which network.  in: a registered name or a callable   out: what `build.create` builds; imports no torch"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from study.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class NetworkSpec:
    """A network by its registered name, or by a callable of the user's.

    name: of the registry or of timm; with a `builder` the name under which runs and tables show it.
    settings: keyword arguments of the builder.
    builder: an `nn.Module` class or a function; None: the name is looked up.  It is called as
        `builder(image_shape, n_classes, **settings)`; parameters that it does not have are left out, and
        `num_classes` and `in_chans` (timm's names) are filled in too.
    """

    name: str = "mlp"
    settings: Mapping[str, Any] = field(default_factory=dict)
    builder: "Callable[..., nn.Module] | None" = None

    def spec(self) -> "NetworkSpec":
        """Itself, as a recipe's [model] gives one."""
        return self


def network_spec(
    model: "str | NetworkSpec | Callable[..., nn.Module]", settings: Mapping[str, Any] | None = None
) -> NetworkSpec:
    """The spec of what a caller from Python names: a registered or timm name, an `nn.Module` class, a function.

    Raises:
        RecipeError: a network that is built already, or something that cannot be called.
    """
    if isinstance(model, NetworkSpec):
        return model
    if isinstance(model, str):
        return NetworkSpec(model, dict(settings or {}))
    if hasattr(model, "state_dict") and not isinstance(model, type):
        raise RecipeError("model: pass the class, or a function that builds a new network, not a network")
    if not callable(model):
        raise RecipeError(f"model: a name, an nn.Module class or a function that builds one, not {model!r}")
    wrapped = getattr(model, "func", model)  # of functools.partial
    name = getattr(wrapped, "__name__", type(wrapped).__name__)
    return NetworkSpec("network" if name == "<lambda>" else name, dict(settings or {}), model)
