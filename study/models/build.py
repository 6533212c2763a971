"""From a spec to a network.  in: a NetworkSpec, image shape, classes   out: a module whose classifier is known

A builder of the caller's is called; a name is looked up among the networks of this package first, then among timm's.
`classifier.classifier_of` gives the last layer of whatever comes out.
"""

import inspect
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from study import plugins
from study.code_hash import code_hash
from study.errors import RecipeError, did_you_mean
from study.models.classifier import classifier_of, locate_classifier
from study.models.flops import FlopCounter
from study.models.registry import GIVEN, NETWORKS
from study.models.spec import NetworkSpec

Shape = tuple[int, int, int]
PRETRAINED = ("checkpoint_path", "features_only", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
NORMS = {
    "batch": (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm),
    "group": (nn.GroupNorm,),
    "layer": (nn.LayerNorm,),
    "instance": (nn.InstanceNorm2d,),
    "rms": (nn.RMSNorm,),
}
BUILD_ERRORS = (TypeError, ValueError, AssertionError, RuntimeError, AttributeError, IndexError, KeyError)
_NOTHING = object()
_seeding = threading.Lock()  # torch initializes from a global generator; one network at a time may have it
_built: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()  # by callers' builders


def names() -> list[str]:
    """The registered networks: this package's own and those of plugins."""
    from study.models import densenet, inception, mlp, resnet, speednet, vgg  # noqa: F401  registers them

    return sorted(NETWORKS)


def create(spec: NetworkSpec, image_shape: Shape, n_classes: int, *, seed: int = 0, device: str = "cpu") -> nn.Module:
    """Build one network with initial weights that depend on the seed alone.

    Args:
        spec: name and settings, or a builder.
        image_shape: (channels, height, width) of an image.
        n_classes: number of logits.
        seed: of the initial weights; torch's global generator is left as it was.
        device: where; "meta" builds shapes only.  A caller's or plugin's builder uses the CPU.

    Returns:
        The network in training mode.  One without `get_classifier` has been passed two images.

    Raises:
        RecipeError: no such network, settings that its constructor refuses, or a builder's network that does not take
            the images or does not give (2, n_classes) logits; one line.
    """
    _refuse_settings(spec)
    image_shape = (image_shape[0], image_shape[1], image_shape[2])
    build = _builder(spec)
    device = device if _builds_on_meta(spec) else "cpu"
    with _seeding, torch.random.fork_rng(devices=[]), torch.device(device):
        torch.random.default_generator.manual_seed(seed)
        try:
            network = build(image_shape, n_classes, spec.settings)
            if not callable(getattr(network, "get_classifier", None)):
                _adopt(network, image_shape, n_classes, device)
        except BUILD_ERRORS as error:
            raise RecipeError(f"{_described(spec)}: {_first_line(error)}") from None
        except RecipeError as error:
            raise RecipeError(f"{_described(spec)}: {error}") from None
    return network


def identity(spec: NetworkSpec) -> dict[str, Any]:
    """What a digest holds of a network: name, settings, and `code` where the name alone does not say it.

    `code` is a hash of the source of a caller's or plugin's builder, or the version of an own network above 1.
    Settings that a network got later are left out at the value that changes nothing.
    """
    settings, code = dict(spec.settings), None
    if spec.builder is not None:
        code = code_hash(spec.builder)
    elif spec.name in names():
        entry = NETWORKS[spec.name]
        settings = {key: value for key, value in settings.items() if entry.later.get(key, _NOTHING) != value}
        code = entry.code
    return {"name": spec.name, "settings": settings} | ({"code": code} if code else {})


def _builder(spec: NetworkSpec) -> Callable[[Shape, int, Mapping[str, Any]], nn.Module]:
    if spec.builder is not None:
        builder = spec.builder
        return lambda image_shape, n_classes, settings: _call(builder, image_shape, n_classes, settings)
    return NETWORKS[spec.name] if spec.name in names() else _of_timm(spec.name)


def _call(builder: Callable[..., nn.Module], image_shape: Shape, n_classes: int, settings: Mapping[str, Any]) -> Any:
    """Call a caller's builder with what its signature takes of shape and classes."""
    parameters = inspect.signature(builder).parameters
    given = {"image_shape": image_shape, "in_chans": image_shape[0], "n_classes": n_classes, "num_classes": n_classes}
    named = {name: value for name, value in given.items() if name in parameters and name not in settings}
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    unnamed = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in positional and parameter.default is parameter.empty and name not in (*named, *settings)
    ]
    anything = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values())
    if not named and (len(unnamed) == 2 or (anything and not unnamed)):
        return builder(image_shape, n_classes, **settings)
    return builder(**named, **settings)


def _adopt(network: object, image_shape: Shape, n_classes: int, device: str) -> None:
    """Check a network that is not timm's by one pass of two images, and find its last layer.

    Raises:
        RecipeError: it is no new `nn.Module`, or its logits are not (2, n_classes).
    """
    if not isinstance(network, nn.Module):
        raise RecipeError(f"it gives a {type(network).__name__}, not an nn.Module")
    if network in _built:
        raise RecipeError("it gave the same network twice; let it build a new one at each call")
    logits = locate_classifier(network.eval(), torch.zeros(2, *image_shape, device=device))
    if tuple(logits.shape) != (2, n_classes):
        raise RecipeError(f"two images of {image_shape} give {tuple(logits.shape)} logits, expected (2, {n_classes})")
    network.train()
    _built.add(network)


def _of_timm(name: str) -> Callable[[Shape, int, Mapping[str, Any]], nn.Module]:
    """What builds one of timm's networks; timm takes seconds to import, so who needs none of them does without."""
    import timm

    if not timm.is_model(name):
        hint = did_you_mean(name, [*names(), *timm.list_models()]) if len(name) > 2 else ""
        close = hint if hint.startswith("; did you mean") else f"; own: {', '.join(names())}"
        raise RecipeError(f"model.name: no network {name!r}{close} ({plugins.CURE})")
    return lambda image_shape, n_classes, settings: timm.create_model(
        name, num_classes=n_classes, in_chans=image_shape[0], **settings
    )


def _refuse_settings(spec: NetworkSpec) -> None:
    """Settings that a recipe has no say in: the data decide on some, initial weights depend on the seed alone."""
    for name in spec.settings:
        if name in GIVEN:
            raise RecipeError(f"model.settings.{name}: the data decide on it; leave it out")
        if name in PRETRAINED and spec.builder is None:
            raise RecipeError(f"model.settings.{name}: every network here starts from random weights; leave it out")


def _described(spec: NetworkSpec) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in spec.settings.items()) or "none"
    return f"model {spec.name!r} with settings {settings}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def fit_check(spec: NetworkSpec, image_shape: Shape, n_classes: int) -> None:
    """Feed a network a batch of two in training mode: wrong shapes fail here, before any training.

    Raises:
        RecipeError: see `create`; or one of timm's without a linear classifier.
    """
    network, images = _rehearsed(spec, image_shape, n_classes)
    if callable(getattr(network, "get_classifier", None)) and not isinstance(classifier_of(network), nn.Linear):
        raise RecipeError(
            f"model {spec.name!r}: its classifier is no linear layer, so it has no penultimate layer to read"
        )
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = network(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise RecipeError(f"model {spec.name!r} does not take {image_shape} images: {_first_line(error)}") from None
    if not isinstance(logits, Tensor):
        raise RecipeError(f"model {spec.name!r} gives a {type(logits).__name__} while it trains, expected logits")
    if tuple(logits.shape) != (2, n_classes):
        raise RecipeError(f"model {spec.name!r} gives {tuple(logits.shape)} logits, expected (2, {n_classes})")


def stackable(spec: NetworkSpec) -> bool:
    """Whether several of these networks can be trained as one stack: an MLP without dropout, a linear layer."""
    return spec.builder is None and spec.name in ("mlp", "linear") and not spec.settings.get("dropout")


def draws_random_numbers(spec: NetworkSpec, image_shape: Shape, n_classes: int) -> bool:
    """Whether a step draws from torch's global generator: dropout, stochastic depth, however it is written."""
    if stackable(spec):
        return False
    network = create(spec, image_shape, n_classes).train()
    with _seeding, torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        network(torch.zeros(2, *image_shape))
        return not torch.equal(before, torch.get_rng_state())


def parameters(network: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def normalization(network: nn.Module) -> str:
    """What most of its normalizations are: batch, group, layer, instance, rms, or none."""
    kinds = Counter(
        kind for module in network.modules() for kind, classes in NORMS.items() if isinstance(module, classes)
    )
    return kinds.most_common(1)[0][0] if kinds else "none"


def flops(spec: NetworkSpec, image_shape: Shape, n_classes: int) -> int:
    """Operations of one example's forward pass in training: matrix products and convolutions, two per multiply-add."""
    network, images = _rehearsed(spec, image_shape, n_classes)
    counter = FlopCounter()
    with counter, torch.no_grad(), torch.random.fork_rng(devices=[]):
        network(images)
    return counter.flops // len(images)


def _rehearsed(spec: NetworkSpec, image_shape: Shape, n_classes: int) -> tuple[nn.Module, Tensor]:
    """A network in training mode and two images (BatchNorm needs two) to see what it makes of such shapes.

    timm's may be huge, and have no weights; registered ones have, because torch imports its compiler to compute
    without, which takes longer than all the rest of a start.
    """
    device = "cpu" if spec.builder or spec.name in names() else "meta"
    return create(spec, image_shape, n_classes, device=device).train(), torch.zeros(2, *image_shape, device=device)


def without_weights(spec: NetworkSpec, image_shape: Shape, n_classes: int) -> tuple[nn.Module, str]:
    """A network in evaluation mode to read shapes of, and its device: "cpu" where a caller or plugin builds it."""
    device = "meta" if _builds_on_meta(spec) else "cpu"
    return create(spec, image_shape, n_classes, device=device).eval(), device


def _builds_on_meta(spec: NetworkSpec) -> bool:
    return not spec.builder and (spec.name not in names() or NETWORKS[spec.name].project)
