"""Networks of the caller's own: how they are called, what is checked, where their last layer is."""

import copy
import functools

import pytest
import torch
from torch import nn

from study.errors import RecipeError
from study.models.build import create, draws_random_numbers, fit_check, flops, stackable
from study.models.classifier import classifier_of
from study.models.probe_points import placements
from study.models.spec import NetworkSpec, network_spec

SHAPE, CLASSES = (1, 6, 6), 3


class Plain(nn.Module):
    """Takes the image shape and the number of classes."""

    def __init__(self, image_shape, n_classes, width=5):
        super().__init__()
        self.head = nn.Linear(width, n_classes)  # registered first, used last
        self.body = nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], width)

    def forward(self, images):
        return self.head(torch.relu(self.body(images.flatten(1))))


class Convolutional(nn.Module):
    """As in torchvision: the number of classes alone."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.fc(self.drop(torch.relu(self.second(torch.relu(self.first(images)))).mean(dim=(2, 3))))


class Fixed(nn.Module):
    """Takes nothing; log-probabilities come out."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 3), nn.LogSoftmax(dim=1))

    def forward(self, images):
        return self.layers(images)


def function(shape, classes, width=4):
    return Plain(shape, classes, width)


BUILDERS = {
    "class": (Plain, "head"),
    "num_classes": (Convolutional, "fc"),
    "nothing": (Fixed, "layers.3"),
    "function": (function, "head"),
    "lambda": (lambda *given: Plain(*given), "head"),
    "partial": (functools.partial(Plain, width=7), "head"),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_builder_is_called_as_its_signature_says(kind):
    """Nobody should have to write a wrapper for a network that works elsewhere."""
    builder, last = BUILDERS[kind]
    network = create(network_spec(builder), SHAPE, CLASSES)
    assert network.training
    assert network(torch.zeros(4, *SHAPE)).shape == (4, CLASSES)
    assert classifier_of(network) is network.get_submodule(last)


@pytest.mark.parametrize("kind", BUILDERS)
def test_initial_weights_of_a_builder_depend_on_the_seed_alone(kind):
    """Lazy layers too, which get their weights in the first pass."""
    spec = network_spec(BUILDERS[kind][0])
    one, same, other = (
        nn.utils.parameters_to_vector(create(spec, SHAPE, CLASSES, seed=seed).parameters()) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_builder_passes_the_checks_of_a_recipe(kind):
    """Plans, preflight and the launchers take any network."""
    spec = network_spec(BUILDERS[kind][0])
    fit_check(spec, SHAPE, CLASSES)
    assert flops(spec, SHAPE, CLASSES) > 0
    assert not stackable(spec)
    assert draws_random_numbers(spec, SHAPE, CLASSES) == (kind == "num_classes")


def test_settings_go_to_the_builder():
    """As in a recipe's [model] settings."""
    assert create(network_spec(Plain, {"width": 9}), SHAPE, CLASSES).head.in_features == 9
    assert create(network_spec(function, {"width": 9}), SHAPE, CLASSES).head.in_features == 9


def test_probes_of_a_plain_network_sit_after_its_layers():
    """After every convolution; without convolutions after every hidden linear layer."""
    assert placements(network_spec(Convolutional), SHAPE, CLASSES) == ("first", "second")
    assert placements(network_spec(Plain), SHAPE, CLASSES) == ("body",)


def test_names_show_the_builder():
    """Runs and tables need a name."""
    assert [network_spec(each).name for each in ("mlp", Plain, function, BUILDERS["partial"][0])] == [
        "mlp",
        "Plain",
        "function",
        "Plain",
    ]


def test_a_copy_knows_its_own_last_layer():
    """Networks are copied and pickled; a hook on the original's layer would hear nothing."""
    network = create(network_spec(Plain), SHAPE, CLASSES)
    twin = copy.deepcopy(network)
    assert classifier_of(twin) is twin.head


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 5)

    def forward(self, images):
        return self.layer(images.flatten(1))


class NoLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 5)

    def forward(self, images):
        return self.layer(images.flatten(1))[:, :3]


SHARED = Plain(SHAPE, CLASSES)


@pytest.mark.parametrize(
    ("builder", "line"),
    [
        (Wrong, r"give \(2, 5\) logits, expected \(2, 3\)"),
        (NoLayer, "no layer gives its"),
        (lambda: 3, "gives a int, not an nn.Module"),
        (lambda depth: nn.Flatten(), r"missing 1 required positional argument"),
        (lambda n_classes: nn.Linear(7, n_classes), "shapes cannot be multiplied"),
        (lambda: (_ for _ in ()).throw(KeyError("x")), "'x'"),
    ],
    ids=["classes", "no last layer", "no module", "signature", "shape", "its own error"],
)
def test_a_builder_that_does_not_fit_is_refused_in_one_line(builder, line):
    """Before the first of 2,000 networks."""
    with pytest.raises(RecipeError, match=line) as caught:
        create(network_spec(builder), SHAPE, CLASSES)
    assert "\n" not in str(caught.value)


def test_one_network_for_all_members_is_refused():
    """Members would train on in each other's weights."""
    spec = network_spec(lambda: SHARED)
    create(spec, SHAPE, CLASSES)
    with pytest.raises(RecipeError, match="the same network twice"):
        create(spec, SHAPE, CLASSES)


def test_a_built_network_is_no_builder():
    """It has weights already, and there is one of it."""
    with pytest.raises(RecipeError, match="pass the class"):
        network_spec(Plain(SHAPE, CLASSES))
    with pytest.raises(RecipeError, match="a name, an nn"):
        network_spec(3)
    assert network_spec(NetworkSpec("vgg16_small")).name == "vgg16_small"
