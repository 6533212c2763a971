"""One door on networks: names, sizes, what comes out, and that initial weights depend on the seed alone."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from study.errors import RecipeError
from study.models import build
from study.models.spec import NetworkSpec

OWN = {  # name: (image shape, parameters with 10 classes, width of the penultimate layer)
    "densenet100": ((3, 32, 32), 769_162, 342),  # Huang et al. 2017, Tab. 2: 0.8 M
    "densenet160": ((3, 32, 32), 6_831_466, 1104),
    "inception_small": ((3, 32, 32), 1_895_786, 336),
    "linear": ((1280, 1, 1), 12_810, 784),  # the width on 28 x 28, the pixels
    "mlp": ((1, 28, 28), 535_818, 256),
    "resnet110": ((3, 32, 32), 1_727_962, 64),  # He et al. 2016, Tab. 6: 1.7 M
    "resnet18_groupnorm": ((3, 32, 32), 11_173_962, 512),
    "resnet18_small": ((3, 32, 32), 11_173_962, 512),
    "resnet20": ((3, 32, 32), 269_722, 64),  # He et al. 2016, Tab. 6: 0.27 M
    "resnet32": ((3, 32, 32), 464_154, 64),  # 0.46 M
    "resnet8": ((3, 32, 32), 78_042, 64),  # Banbury et al. 2021: 78 k
    "speednet": ((3, 32, 32), 1_972_490, 256),
    "vgg16_small": ((3, 32, 32), 14_714_688 + 5_130, 512),  # the first number is that of VGG16 without its top
}
SMALL = NetworkSpec(name="mlp", settings={"widths": (7, 5)})


def test_every_own_network_is_in_these_tests():
    """A network that is added must say its size here."""
    assert sorted(OWN) == build.names()


@pytest.mark.parametrize("name", OWN)
def test_sizes_are_those_of_the_papers(name):
    """One layer more or less is another network, and its C-scores are others."""
    shape, parameters, _ = OWN[name]
    assert build.parameters(build.create(NetworkSpec(name=name), shape, 10, device="meta")) == parameters


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 32, 32), (3, 45, 37)], ids=str)
@pytest.mark.parametrize("name", OWN)
def test_one_logit_per_class(name, shape):
    """For any number of classes and channels, on digits, CIFAR and odd sizes."""
    if name == "vgg16_small" and shape == (1, 8, 8):
        pytest.skip("needs 16 x 16")
    network = build.create(NetworkSpec(name=name), shape, 7, device="meta")
    assert network(torch.empty(3, *shape, device="meta")).shape == (3, 7)


@pytest.mark.parametrize("name", [*OWN, "resnet18"])
def test_the_penultimate_layer_is_the_input_of_the_classifier(name):
    """Hidden-space densities read it there (J-kde-hidden), whatever the network calls it."""
    network = build.create(NetworkSpec(name=name), (1, 28, 28), 10).eval()
    seen: list[torch.Tensor] = []
    network.get_classifier().register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = network(torch.rand(2, 1, 28, 28))
        assert torch.equal(network.get_classifier()(seen[0]), logits)
    assert seen[0].shape == (2, OWN.get(name, (0, 0, 512))[2])


def test_an_mlp_is_matrices_and_relu():
    """By hand: the formula of the network, with its own weights."""
    network = build.create(SMALL, (1, 4, 4), 3)
    images = torch.rand(6, 1, 4, 4)
    (w1, b1), (w2, b2) = ((block.weight, block.bias) for block in network.blocks)
    hidden = torch.clamp(torch.clamp(images.reshape(6, 16) @ w1.T + b1, min=0) @ w2.T + b2, min=0)
    expected = hidden @ network.classifier.weight.T + network.classifier.bias
    torch.testing.assert_close(network(images), expected)


def test_the_small_resnet_keeps_the_size_of_small_images():
    """A stride-2 stem and a pool leave 8 x 8 of 32 x 32 before the first block, and accuracy falls."""
    network = build.create(NetworkSpec(name="resnet18_small"), (3, 32, 32), 10, device="meta")
    features = network.forward_features(torch.empty(1, 3, 32, 32, device="meta"))
    assert features.shape == (1, 512, 4, 4)


def weights(model: NetworkSpec, seed: int) -> torch.Tensor:
    """All weights in one row."""
    return nn.utils.parameters_to_vector(build.create(model, (1, 8, 8), 3, seed=seed).parameters())


@pytest.mark.parametrize("model", [SMALL, NetworkSpec(name="resnet18_small")], ids=lambda model: model.name)
def test_initial_weights_depend_on_the_seed_alone(model):
    """A member is the same network in whatever order and on whatever thread it is built."""
    first = weights(model, 3)
    torch.rand(5)
    assert torch.equal(weights(model, 3), first)
    assert not torch.equal(weights(model, 4), first)


def test_building_a_network_leaves_torchs_generator_alone():
    """Nothing in the house draws from it, but a user's notebook may."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    build.create(SMALL, (1, 8, 8), 3, seed=9)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mpl", "'mlp'"),
        ("resnet18_smal", "'resnet18_small'"),
        ("resnt50", "'resnet50'"),
        ("x", "own: densenet100, densenet160, inception"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name, hint):
    """timm has 1,200 names; nobody reads the list."""
    with pytest.raises(RecipeError, match=hint):
        build.create(NetworkSpec(name=name), (1, 8, 8), 3)


def test_own_networks_do_without_timm_and_the_compiler_of_torch():
    """Both take seconds to import, at every start of a command: to build, to check, to count operations."""
    code = """
import sys
from study.models import build
from study.models.spec import NetworkSpec

network = NetworkSpec(name="resnet8")
build.create(NetworkSpec(), (1, 8, 8), 3)
build.create(network, (3, 8, 8), 3)
build.fit_check(network, (3, 32, 32), 10)
build.flops(network, (3, 32, 32), 10)
print([name for name in ("timm", "torch._dynamo") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("mlp", {"width": (3,)}, "unknown setting 'width'"),
        ("mlp", {"widths": ()}, "one or more whole numbers"),
        ("mlp", {"widths": (3, 0)}, "one or more whole numbers"),
        ("mlp", {"widths": (2.5,)}, "one or more whole numbers"),
        ("mlp", {"widths": 512}, "one or more whole numbers"),
        ("mlp", {"widths": (True,)}, "one or more whole numbers"),
        ("mlp", {"drop_rate": 0.1}, "unknown setting 'drop_rate'; did you mean 'dropout'?"),
        ("mlp", {"dropout": 1.0}, "share from 0 to below 1"),
        ("mlp", {"dropout": False}, "share from 0 to below 1"),
        ("mlp", {"dropout": "much"}, "share from 0 to below 1"),
        ("resnet18_small", {"widths": (3,)}, "unknown setting 'widths'; there are init"),
        ("speednet", {"widths": (3, 0)}, "one or more whole numbers"),
        ("speednet", {"flip": 1}, "true or false"),
        ("resnet18", {"widths": (3,)}, "widths"),
        ("mlp", {"num_classes": 3}, "the data decide"),
        ("mlp", {"image_shape": (1, 2, 2)}, "the data decide"),
        ("resnet18", {"in_chans": 3}, "the data decide"),
        ("resnet18", {"pretrained": True}, "random weights"),
        ("resnet18", {"checkpoint_path": "weights.pth"}, "random weights"),
    ],
)
def test_settings_are_refused_in_one_line(name, settings, line):
    """Before the first of 2,000 networks, not with timm's traceback."""
    with pytest.raises(RecipeError, match=line) as caught:
        build.fit_check(NetworkSpec(name=name, settings=settings), (1, 8, 8), 3)
    assert "\n" not in str(caught.value)


def test_settings_of_timm_are_passed_on():
    """The door takes what timm takes: dropout, stochastic depth, widths."""
    network = build.create(NetworkSpec(name="resnet18", settings={"drop_rate": 0.25}), (3, 32, 32), 10, device="meta")
    assert network.drop_rate == 0.25


def test_images_that_are_too_small_are_found_without_training():
    """VGG halves an 8 x 8 image away."""
    with pytest.raises(RecipeError, match=r"'vgg11' does not take \(1, 8, 8\) images") as caught:
        build.fit_check(NetworkSpec(name="vgg11"), (1, 8, 8), 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("densenet100", 3), ("speednet", 1), ("vgg16_small", 15)])
def test_an_own_network_says_which_size_it_needs(name, size):
    """One line that names the setting to change."""
    with pytest.raises(RecipeError, match=f"images are {size} x {size}.*set data.size = {size + 1} or more"):
        build.fit_check(NetworkSpec(name=name), (1, size, size), 10)


def test_a_network_without_a_linear_classifier_is_refused():
    """DLA ends in a convolution: there is no penultimate layer to read."""
    with pytest.raises(RecipeError, match="no penultimate layer"):
        build.fit_check(NetworkSpec(name="dla34"), (3, 64, 64), 10)


def test_the_fit_check_builds_no_weights():
    """ViT-L has 300 M of them; a check of timm's networks takes no memory for them."""
    build.fit_check(NetworkSpec(name="vit_large_patch16_224"), (3, 224, 224), 10)


@pytest.mark.parametrize(
    ("model", "random"),
    [
        (NetworkSpec(), False),
        (NetworkSpec(name="mlp", settings={"dropout": 0.0}), False),
        (NetworkSpec(name="mlp", settings={"dropout": 0.5}), True),
        (NetworkSpec(name="resnet8"), False),
        (NetworkSpec(name="speednet"), False),
        (NetworkSpec(name="resnet18", settings={"drop_rate": 0.1}), True),
        (NetworkSpec(name="resnet18", settings={"drop_path_rate": 0.1}), True),
    ],
    ids=["mlp", "no dropout", "dropout", "resnet8", "speednet", "timm's dropout", "stochastic depth"],
)
def test_networks_that_draw_random_numbers_are_known(model, random):
    """They draw from torch's one generator: side by side their draws would mix, and a resume would differ."""
    assert build.draws_random_numbers(model, (3, 32, 32), 10) is random


def test_flops_of_an_mlp_by_hand():
    """Two operations per weight; plans stand on it."""
    assert build.flops(SMALL, (1, 4, 4), 3) == 2 * (16 * 7 + 7 * 5 + 5 * 3)


def test_flops_of_the_small_resnet_are_the_known_ones():
    """0.56 G multiply-adds on 32 x 32, twice the operations."""
    assert build.flops(NetworkSpec(name="resnet18_small"), (3, 32, 32), 10) == pytest.approx(2 * 0.556e9, rel=0.01)


def test_flops_are_those_of_a_training_pass():
    """Plans count three forward passes per training example; mirror images are looked at in evaluation alone."""
    plain, mirrored = (NetworkSpec(name="speednet", settings={"flip": flip}) for flip in (False, True))
    assert build.flops(mirrored, (3, 32, 32), 10) == build.flops(plain, (3, 32, 32), 10)
