"""Where probes sit: each placement fires once in a pass, in order, with the batch; own networks' as in the paper."""

import pytest
import torch
from torch import nn

from study.errors import RecipeError
from study.models import build
from study.models.catalog import networks_markdown, table
from study.models.probe_points import placements
from study.models.spec import NetworkSpec

TIMMS = {  # name: (image size, number of placements, one that must be among them)
    "resnet18": (64, 1 + 8, "layer2.1"),
    "resnetv2_50": (64, 1 + 16, "stages.3.blocks.2"),
    "vgg11": (64, 8 + 2, "features.18"),
    "vgg16_bn": (64, 13 + 2, "features.40"),
    "convnext_atto": (64, 1 + 12, "stages.2.blocks.5"),
    "vit_tiny_patch16_224": (224, 1 + 12, "blocks.11"),
    "swin_tiny_patch4_window7_224": (224, 1 + 12, "layers.2.blocks.5"),
    "mixer_s32_224": (224, 1 + 8, "blocks.7"),
    "mobilenetv3_small_050": (64, 1 + 11, "blocks.4.2"),
    "densenet121": (64, 1 + 4, "features.denseblock2"),
    "efficientnet_b0": (64, 1 + 16, "blocks.5.3"),
    "inception_v3": (299, 1 + 11, "Mixed_6e"),
}
CASES = [(name, (3, size, size)) for name, (size, _, _) in TIMMS.items()] + [
    (name, shape) for name in build.names() for shape in ((3, 32, 32), (1, 16, 16))
]


def fired(network: nn.Module, names: tuple[str, ...], images: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    """What hooks on these submodules hear in one pass, in order."""
    heard: list[tuple[str, torch.Tensor]] = []
    modules = dict(network.named_modules())
    for name in names:
        modules[name].register_forward_hook(lambda module, inputs, output, name=name: heard.append((name, output)))
    with torch.no_grad():
        network(images)
    return heard


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_every_placement_fires_once_and_in_order(name, shape):
    """A probe that hears nothing, or twice, or another batch would give depths that mean nothing."""
    names = placements(NetworkSpec(name=name), shape, 10)
    network = build.create(NetworkSpec(name=name), shape, 10, device="meta").eval()
    heard = fired(network, names, torch.empty(5, *shape, device="meta"))
    assert tuple(each for each, _ in heard) == names
    assert all(output.shape[0] == 5 and output.ndim >= 2 for _, output in heard)


@pytest.mark.parametrize("name", TIMMS)
def test_a_timm_network_has_a_probe_per_block(name):
    """The stem's normalization and each block, or each convolution where there are no blocks."""
    size, count, one_of_them = TIMMS[name]
    names = placements(NetworkSpec(name=name), (3, size, size), 10)
    assert len(names) == count
    assert one_of_them in names


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("densenet100", 6),
        ("inception_small", 11),
        ("mlp", 2),
        ("resnet110", 55),
        ("resnet18_groupnorm", 9),
        ("resnet18_small", 9),
        ("resnet8", 4),
        ("speednet", 7),
        ("vgg16_small", 13),
    ],
)
def test_own_networks_have_the_papers_number_of_probes(name, count):
    """A.5: VGG16's 13 convolutions, ResNet-18's initial normalization and 8 sums; input and softmax come on top."""
    assert len(placements(NetworkSpec(name=name), (3, 32, 32), 10)) == count


def test_the_papers_mlp_has_seven_probes():
    """After its seven dense operations."""
    model = NetworkSpec(name="mlp", settings={"widths": (20,) * 7})
    assert placements(model, (1, 8, 8), 10) == tuple(f"blocks.{index}" for index in range(7))
    dropped = NetworkSpec(model.name, {**model.settings, "dropout": 0.5})
    assert placements(dropped, (1, 8, 8), 10) == placements(model, (1, 8, 8), 10)


@pytest.mark.parametrize("name", ["mlp", "vgg16_small", "resnet18_groupnorm", "resnet20", "inception_small"])
def test_probes_sit_before_the_relu(name):
    """A.5 chose the operations immediately preceding the ReLUs: negative numbers are there, and stay there."""
    network = build.create(NetworkSpec(name=name), (1, 16, 16), 10).eval()
    names = placements(NetworkSpec(name=name), (1, 16, 16), 10)
    heard = fired(network, names, torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert all((output < 0).any() for _, output in heard)


def test_a_residual_blocks_probe_sees_the_sum():
    """What the next block takes is the ReLU of it."""
    network = build.create(NetworkSpec(name="resnet8"), (1, 8, 8), 10).eval()
    taken: list[torch.Tensor] = []
    network.blocks[1].register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
    (_, total), *_ = fired(network, ("blocks.0.sum",), torch.randn(4, 1, 8, 8))
    assert torch.equal(taken[0], total.clamp(min=0))


def test_probes_of_speednet_see_the_image_as_it_is():
    """With mirror images in evaluation the batch inside is twice as long; probes get its first half."""
    shape, images = (3, 16, 16), torch.randn(5, 3, 16, 16)
    names = placements(NetworkSpec(name="speednet"), shape, 10)
    plain, mirrored = (
        fired(build.create(NetworkSpec(name="speednet", settings={"flip": flip}), shape, 10).eval(), names, images)
        for flip in (False, True)
    )
    for (_, a), (_, b) in zip(plain, mirrored, strict=True):
        torch.testing.assert_close(a, b)


def test_a_network_without_blocks_and_convolutions_is_refused(monkeypatch):
    """One line, not an empty list of probes."""
    monkeypatch.setattr("study.models.probe_points.without_weights", lambda *spec: (nn.Sequential(nn.Flatten()), "cpu"))
    with pytest.raises(RecipeError, match="neither blocks nor convolutions"):
        placements(NetworkSpec(), (1, 8, 8), 10)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mlp", "none"),
        ("vgg16_small", "none"),
        ("resnet20", "batch"),
        ("resnet18_groupnorm", "group"),
        ("vit_tiny_patch16_224", "layer"),
        ("resnetv2_50", "batch"),
        ("convnext_atto", "layer"),
    ],
)
def test_the_normalization_is_named(name, kind):
    """What decides whether an image's logits depend on the batch in training."""
    assert build.normalization(build.create(NetworkSpec(name=name), (3, 224, 224), 10, device="meta")) == kind


def test_the_table_has_every_own_network():
    """README and `study networks` show what is registered, and the paper's network of timm."""
    rows = table()
    assert [row.name for row in rows] == [*build.names(), "resnetv2_50"]
    assert all(row.what and row.source and row.parameters and row.flops for row in rows)
    assert [row.name for row in rows if not row.placements] == ["linear"]  # it has no layer between input and output


def test_the_table_is_markdown():
    """One line per network under two of heading, with equally many cells."""
    lines = networks_markdown().splitlines()
    assert len(lines) == len(build.names()) + 3
    assert {line.count("|") for line in lines} == {9}
    assert "| `resnetv2_50` |" in lines[-1]
    assert "25,549,352 (3 x 224 x 224, 1000)" in lines[-1]  # published: 25.5 M
