"""From a name to a network.  in: a recipe's [model], image shape, classes   out: a module with a classifier

A name is looked up among the networks of this package first, then among timm's.  Whatever comes out has timm's
`get_classifier()`, whose input is the penultimate layer (J-kde-hidden).
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from study import plugins
from study.errors import RecipeError
from study.models.flops import FlopCounter
from study.models.registry import GIVEN, OWN
from study.recipe import Model, nearest

FOREIGN = ("checkpoint_path", "features_only", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here asks a hub for weights
NORMS = {
    "batch": (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm),
    "group": (nn.GroupNorm,),
    "layer": (nn.LayerNorm,),
    "instance": (nn.InstanceNorm2d,),
    "rms": (nn.RMSNorm,),
}
_seeding = threading.Lock()  # torch initializes from a global generator; one network at a time may have it


def names() -> list[str]:
    """The short names of this package's own networks."""
    from study.models import densenet, inception, mlp, resnet, speednet, vgg  # noqa: F401  registers them

    return sorted(OWN)


def create(
    model: Model, shape: tuple[int, int, int], n_classes: int, *, seed: int = 0, device: str = "cpu"
) -> nn.Module:
    """Build one network with initial weights that depend on the seed alone.

    Args:
        model: name and settings.
        shape: (channels, height, width) of an image.
        n_classes: number of logits.
        seed: of the initial weights; torch's global generator is left as it was.
        device: where; "meta" builds shapes only.

    Raises:
        RecipeError: no such network, or settings that its constructor refuses.
    """
    _refuse(model)
    build = OWN[model.name] if model.name in names() else _of_timm(model)
    with _seeding, torch.random.fork_rng(devices=[]), torch.device(device):
        torch.random.default_generator.manual_seed(seed)
        try:
            return build(tuple(shape), n_classes, model.settings)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise RecipeError(f"model {model.name!r} with settings {_shown(model.settings)}: {error}") from None


def _of_timm(model: Model) -> Callable[..., nn.Module]:
    """What builds one of timm's networks; timm takes seconds to import, so who needs none of them does without."""
    import timm

    if not timm.is_model(model.name):
        hint = nearest(model.name, [*names(), *timm.list_models()]) if len(model.name) > 2 else ""
        raise RecipeError(
            f"model.name: no network {model.name!r}{hint if 'mean' in hint else '; own: ' + ', '.join(names())}"
            f" ({plugins.CURE})"
        )
    return lambda shape, n_classes, settings: timm.create_model(
        model.name, num_classes=n_classes, in_chans=shape[0], **settings
    )


def _refuse(model: Model) -> None:
    """Settings that a recipe has no say in: the data decide on some, initial weights depend on the seed alone."""
    for name in model.settings:
        if name in GIVEN:
            raise RecipeError(f"model.settings.{name}: the data decide on it; leave it out")
        if name in FOREIGN:
            raise RecipeError(f"model.settings.{name}: every network here starts from random weights; leave it out")


def _shown(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "none"


def fit_check(model: Model, shape: tuple[int, int, int], n_classes: int) -> None:
    """Feed a network a batch of two: wrong shapes fail here, before any training."""
    network, images = _rehearsed(model, shape, n_classes)
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None
    if not isinstance(classifier, nn.Linear):
        raise RecipeError(
            f"model {model.name!r}: its classifier is no linear layer, so it has no penultimate layer to read"
        )
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = network(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise RecipeError(f"model {model.name!r} does not take {shape} images: {str(error).splitlines()[0]}") from None
    if tuple(logits.shape) != (2, n_classes):
        raise RecipeError(f"model {model.name!r} gives {tuple(logits.shape)} logits, expected (2, {n_classes})")


def stackable(model: Model) -> bool:
    """Whether several of these networks can be trained as one stack: an MLP without dropout."""
    return model.name == "mlp" and not model.settings.get("dropout")


def draws_random_numbers(model: Model, shape: tuple[int, int, int], n_classes: int) -> bool:
    """Whether a training pass draws from torch's global generator: dropout, stochastic depth, however it is written."""
    if stackable(model):
        return False
    network = create(model, shape, n_classes).train()
    with _seeding, torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        network(torch.zeros(2, *shape))
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


def flops(model: Model, shape: tuple[int, int, int], n_classes: int) -> int:
    """Operations of one example's forward pass in training: matrix products and convolutions, two per multiply-add."""
    network, images = _rehearsed(model, shape, n_classes)
    counter = FlopCounter()
    with counter, torch.no_grad(), torch.random.fork_rng(devices=[]):
        network(images)
    return counter.flops // len(images)


def _rehearsed(model: Model, shape: tuple[int, int, int], n_classes: int) -> tuple[nn.Module, Tensor]:
    """A network in training mode and two images (BatchNorm needs two) to see what it makes of such shapes.

    timm's may be huge, and have no weights; own ones have, because torch imports its compiler to compute without, which
    takes longer than all the rest of a start.
    """
    device = "cpu" if model.name in names() else "meta"
    return create(model, shape, n_classes, device=device).train(), torch.zeros(2, *shape, device=device)
