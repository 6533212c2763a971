"""What the own networks are made of, worked out another way: by hand, by scipy, by a loop."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from study.models import build
from study.models.densenet import DenseLayer, Transition
from study.models.inception import Block
from study.models.layers import StandardizedConv2d
from study.models.resnet import ResidualBlock
from study.models.spec import NetworkSpec
from study.models.speednet import patch_covariance


def built(name: str, shape: tuple[int, int, int] = (3, 16, 16), **settings: object) -> nn.Module:
    """A network with its initial weights, in evaluation mode."""
    return build.create(NetworkSpec(name=name, settings=settings), shape, 10, seed=1).eval()


def images(b: int, *shape: int, seed: int = 0) -> torch.Tensor:
    """Gaussian noise."""
    return torch.randn(b, *shape, generator=torch.Generator().manual_seed(seed))


def test_weight_standardization_standardizes():
    """Each filter that is used has mean 0 and deviation 1, whatever the parameter is (B-models)."""
    conv = StandardizedConv2d(5, 7, 3)
    nn.init.normal_(conv.weight, mean=3, std=0.2)
    rows = conv.standardized().detach().flatten(1).numpy()
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(axis=1), 1, rtol=1e-5)


def test_a_standardized_convolution_uses_standardized_filters():
    """By torch's convolution with numpy's standardization; a class that only had the method would change nothing."""
    conv = StandardizedConv2d(2, 3, 3, padding=1)
    weight = conv.weight.detach().numpy()
    spread = weight.std(axis=(1, 2, 3), keepdims=True)
    expected = torch.from_numpy((weight - weight.mean(axis=(1, 2, 3), keepdims=True)) / spread)
    seen = images(4, 2, 6, 6)
    torch.testing.assert_close(conv(seen), functional.conv2d(seen, expected, conv.bias, padding=1))


def test_shifting_and_scaling_a_standardized_filter_changes_nothing():
    """Gradients then have no part along these directions: the parametrization, not a projection afterwards."""
    conv = StandardizedConv2d(2, 3, 3).double()
    seen = images(4, 2, 6, 6).double()
    (conv(seen) ** 3).sum().backward()
    for gradient, weight in zip(conv.weight.grad, conv.weight.detach(), strict=True):
        assert abs(float(gradient.sum())) < 1e-6 * float(gradient.abs().sum())
        assert abs(float((gradient * weight).sum())) < 1e-6 * float((gradient * weight).abs().sum())


def test_the_groupnorm_resnet_standardizes_every_convolution_and_has_no_batchnorm():
    """B-models replaces all of them; 20 convolutions, one normalization after each."""
    modules = list(built("resnet18_groupnorm").modules())
    convs = [module for module in modules if isinstance(module, nn.Conv2d)]
    assert len(convs) == 20
    assert all(isinstance(conv, StandardizedConv2d) for conv in convs)
    assert sum(isinstance(module, nn.GroupNorm) and module.num_groups == 32 for module in modules) == 20
    assert not any(isinstance(module, nn.BatchNorm2d) for module in modules)


@pytest.mark.parametrize(("name", "independent"), [("resnet18_groupnorm", True), ("resnet18_small", False)])
def test_groupnorm_does_not_look_at_the_batch(name, independent):
    """In training an image's logits are the same beside any other images; with BatchNorm they are not."""
    network = built(name).train()
    first, second = images(4, 3, 16, 16), images(4, 3, 16, 16, seed=1)
    second[0] = first[0]
    with torch.no_grad():
        a, b = network(first)[0], network(second)[0]
    assert torch.allclose(a, b, atol=1e-4) is independent


def test_a_residual_block_by_hand():
    """Two convolutions and the shortcut: relu(norm(conv(relu(norm(conv(x))))) + x)."""
    block = ResidualBlock(4, 4, 1, nn.BatchNorm2d, nn.Conv2d, projection=False).eval()
    x = images(2, 4, 5, 5)
    scale = 1 / math.sqrt(1 + block.norm1.eps)  # fresh BatchNorm: mean 0, variance 1
    hidden = functional.conv2d(x, block.conv1.weight, padding=1).mul(scale).clamp(min=0)
    expected = (functional.conv2d(hidden, block.conv2.weight, padding=1).mul(scale) + x).clamp(min=0)
    torch.testing.assert_close(block(x), expected)


def test_a_padded_shortcut_takes_every_second_pixel_and_adds_zeros():
    """Option A of He et al. has no parameters; on an odd size it must meet the convolutions' size."""
    block = ResidualBlock(2, 5, 2, nn.BatchNorm2d, nn.Conv2d, projection=False)
    x = images(1, 2, 7, 7)
    result = block.shortcut(x)
    assert result.shape == block(x).shape == (1, 5, 4, 4)
    for row, column in np.ndindex(4, 4):
        assert torch.equal(result[0, :2, row, column], x[0, :, 2 * row, 2 * column])
    assert not result[:, 2:].any()


@pytest.mark.parametrize(
    ("name", "depth"), [("resnet8", 8), ("resnet20", 20), ("resnet32", 32), ("resnet110", 110), ("resnet18_small", 18)]
)
def test_a_resnets_name_is_its_depth(name, depth):
    """Convolutions outside of shortcuts, and the linear layer."""
    names = dict(build.create(NetworkSpec(name=name), (3, 32, 32), 10, device="meta").named_modules())
    convs = [key for key, module in names.items() if isinstance(module, nn.Conv2d) and "shortcut" not in key]
    assert len(convs) + 1 == depth


@pytest.mark.parametrize(("name", "depth"), [("densenet100", 100), ("densenet160", 160), ("vgg16_small", 14)])
def test_a_name_is_the_number_of_layers(name, depth):
    """All convolutions and one linear layer; VGG16 has lost two of its three (B-models)."""
    modules = build.create(NetworkSpec(name=name), (3, 32, 32), 10, device="meta").modules()
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in modules) == depth


def test_inception_has_the_blocks_of_the_papers_table():
    """J-tab2 as it is printed, block by block; the sum by hand."""
    width, total = 96, 3 * 96 * 9 + 2 * 96
    for part in "32,32 32,48 | 160 | 112,48 96,64 80,80 48,96 | 240 | 176,160 176,160".replace("|", "").split():
        if "," in part:
            c_1, c_2 = map(int, part.split(","))
            total += width * (c_1 + 9 * c_2) + 2 * (c_1 + c_2)
            width = c_1 + c_2
        else:
            total += 9 * width * int(part) + 2 * int(part)
            width = int(part)
    network = build.create(NetworkSpec(name="inception_small"), (3, 32, 32), 10, device="meta")
    assert build.parameters(network) == total + 10 * width + 10
    assert network.forward_features(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 336, 8, 8)


def test_an_inception_block_concatenates():
    """Concat(Conv(1 x 1, C_1), Conv(3 x 3, C_2)) with the ReLU after: the same as a ReLU in either."""
    block = Block(3, 2, 4).eval()
    x = images(2, 3, 5, 5)
    narrow, wide = torch.relu(block.narrow(x)), torch.relu(block.wide(x))
    assert torch.equal(torch.relu(block(x)), torch.cat([narrow, wide], dim=1))
    assert (narrow.shape[1], wide.shape[1]) == (2, 4)


def test_inception_ends_in_a_maximum():
    """GlobalMaxPool, where the other networks take the mean."""
    network = built("inception_small")
    x = images(2, 3, 16, 16)
    with torch.no_grad():
        features = network.forward_features(x).flatten(2).max(dim=2).values
        torch.testing.assert_close(network(x), network.classifier(features))


def test_a_dense_layer_keeps_its_input():
    """Its k channels come after those that it was given, and all later layers see both."""
    layer, x = DenseLayer(6, 4).eval(), images(2, 6, 5, 5)
    result = layer(x)
    assert result.shape == (2, 10, 5, 5)
    assert torch.equal(result[:, :6], x)
    assert layer.conv1.out_channels == 16


def test_a_transition_halves_channels_and_image():
    """Compression .5 and the mean of 2 x 2 pixels (DenseNet-BC)."""
    assert Transition(6)(images(2, 6, 8, 8)).shape == (2, 3, 4, 4)


def test_densenet160_is_the_one_of_zhang_as_public_code_counts():
    """Z-tab2: 7.03 M more than ResNet-32, that is 7.5 M: with a third transition and with running statistics."""
    network = build.create(NetworkSpec(name="densenet160"), (3, 32, 32), 10, device="meta")
    norms = [module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    counted = build.parameters(network) + 2 * sum(norms)
    counted += 4 * 1104 + 1104 * 552  # the transition's BatchNorm and convolution
    counted -= (4 + 10) * 552  # the BatchNorm and the linear layer after it are half as wide
    assert counted / 1e6 == pytest.approx(7.03 + 0.47, abs=0.06)


def test_vgg_pools_what_is_there():
    """28 x 28 halves to 14, 7, 4, 2, 1: a pool that drops the odd edge would leave nothing."""
    network = build.create(NetworkSpec(name="vgg16_small"), (1, 28, 28), 10, device="meta")
    assert network.forward_features(torch.empty(1, 1, 28, 28, device="meta")).shape == (1, 512, 1, 1)


def test_vgg_starts_with_a_signal():
    """Without normalization and with torch's own start, 13 layers leave less than a hundredth of it."""
    network, x = built("vgg16_small", (3, 32, 32)), images(16, 3, 32, 32)
    with torch.no_grad():
        started = float(network.forward_features(x).std())
        for conv in network.convs:
            conv.reset_parameters()
            nn.init.zeros_(conv.bias)
        assert 0.03 < started < 3
        assert started > 100 * float(network.forward_features(x).std())


def test_dropout_drops_in_training_alone():
    """Evaluation uses every unit, the same each time; training does not."""
    network = built("mlp", (1, 8, 8), widths=(64,), dropout=0.5)
    x = images(3, 1, 8, 8)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_dropout_drops_the_share_that_it_is_told():
    """Counted over 64,000 units that the ReLU lets through, which are then scaled up."""
    network, x = built("mlp", (1, 8, 8), widths=(64,), dropout=0.25), images(1000, 1, 8, 8)
    plain = network.forward_features(x)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dropped = network.train().forward_features(x)
    alive = plain > 0
    gone = (dropped == 0) & alive
    assert int(gone.sum()) / int(alive.sum()) == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(dropped[alive & ~gone], plain[alive & ~gone] / 0.75)


def test_dropout_starts_from_the_same_weights():
    """A comparison with and without dropout is about dropout (A-reg)."""
    with_dropout, without = built("mlp", dropout=0.5), built("mlp")
    torch.testing.assert_close(with_dropout.state_dict(), without.state_dict(), rtol=0, atol=0)


def test_patch_covariance_is_numpys():
    """By a loop over all patches of some images."""
    seen = images(3, 2, 5, 4).numpy()
    patches = [seen[i, :, r : r + 2, c : c + 2].ravel() for i in range(3) for r in range(4) for c in range(3)]
    expected = np.cov(np.array(patches, np.float64).T, bias=True)
    np.testing.assert_allclose(patch_covariance(torch.from_numpy(seen)).numpy(), expected, rtol=1e-6, atol=1e-9)


def test_whitened_patches_are_white():
    """Uncorrelated directions of variance 1, of images whose neighbouring pixels are alike."""
    smooth = functional.avg_pool2d(images(200, 3, 18, 18), 3, stride=1)
    network = built("speednet")
    network.prepare(smooth)
    rows = network.whitening(smooth).detach().transpose(0, 1).flatten(1)
    assert torch.equal(rows[:12], -rows[12:])
    torch.testing.assert_close(torch.cov(rows[:12]), torch.eye(12), atol=0.1, rtol=0)


def test_the_whitening_is_not_trained():
    """No parameter: neither an optimizer's step nor its weight decay reaches it."""
    network = built("speednet")
    assert "whitening.weight" not in dict(network.named_parameters())
    assert "whitening.weight" in network.state_dict()


def test_mirror_images_count_half():
    """In evaluation the logits are the mean of those of the image and its mirror image."""
    plain, mirrored = built("speednet"), built("speednet", flip=True)
    x = images(4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(mirrored(x), (plain(x) + plain(x.flip(3))) / 2)
        torch.testing.assert_close(mirrored(x), mirrored(x.flip(3)))


def test_mirror_images_are_left_out_of_training():
    """Twice the work for nothing: there augmentation mirrors."""
    plain, mirrored = built("speednet").train(), built("speednet", flip=True).train()
    x = images(4, 3, 16, 16)
    assert torch.equal(plain(x), mirrored(x))


def test_the_first_filters_pass_their_input_on():
    """A deep signal at the first step: the known start of the speed records."""
    conv = built("speednet").pairs[1].conv1
    x = images(2, 64, 5, 5)
    torch.testing.assert_close(functional.conv2d(x, conv.weight[:64], padding=1), x)
    assert conv.weight[64:].std() > 0
