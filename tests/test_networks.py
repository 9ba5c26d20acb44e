from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from cam_core.cutting import cut, cuts
from cam_core.networks import CIFAR, densenet_cifar, resnet_cifar, resnext_cifar


def multiply_adds(network: nn.Module, side: int) -> int:
    total = 0

    def count(module: nn.Module, _given: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, side, side))
    return total


@pytest.mark.parametrize(("depth", "published"), [(20, 0.27e6), (32, 0.46e6), (56, 0.85e6), (110, 1.7e6)])
def test_parameters_are_those_of_table_6(depth, published):
    """He et al. (2016), table 6; the projection shortcuts add 2.8 thousand."""
    count = sum(p.numel() for p in resnet_cifar(depth).parameters())
    assert count == pytest.approx(published, rel=0.03)


def test_cost_and_map_on_drawn_images():
    network = resnet_cifar(8)
    trunk, head = cut(network, "layer3")
    x = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    activations = trunk.eval()(x)
    assert activations.shape == (2, 64, 14, 14)
    assert activations.min() == 0  # rectified
    assert torch.equal(head.eval()(activations), network.eval()(x))
    assert 35e6 < multiply_adds(network, 112) < 45e6


def test_only_whole_blocks_are_cuts():
    names = cuts(resnet_cifar(14))
    assert "layer2.0.relu_1" in names
    assert "layer2.0.conv2" not in names


def test_depth_must_fit():
    with pytest.raises(ValueError, match="6n \\+ 2"):
        resnet_cifar(10)


@pytest.mark.parametrize(
    ("name", "published", "cut_at", "channels"),
    [
        ("resnet44_bottleneck", 684_058, "layer3", 256),
        ("resnet110_bottleneck", 1.70e6, "layer3", 256),
        ("densenet100_12", 0.77e6, "relu", 342),
        ("resnext29_8x64d", 34.4e6, "layer3", 1024),
    ],
)
def test_larger_cifar_families(name, published, cut_at, channels):
    """Huang et al. (2017), table 2: 0.8 M; Xie et al. (2017), table 7: 34.4 M; seven bottlenecks a stage (depth 44) counted by hand."""
    with torch.device("meta"):
        network = CIFAR[name](num_classes=10, stem_stride=1)
        trunk, head = cut(network, cut_at)
        activations = trunk(torch.zeros(2, 3, 32, 32))
        assert activations.shape == (2, channels, 8, 8)
        assert head(activations).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(published, rel=0.005)


def test_resnext_s_linear_layer_is_drawn_as_released():
    """Normal of variance 2 / inputs: .044 for the 1024 channels of 8x64d; no bias."""
    torch.manual_seed(0)
    layer = resnext_cifar(11, 100, cardinality=2, base=64).fc
    assert layer.in_features == 1024
    assert layer.weight.std().item() == pytest.approx(0.0442, rel=0.02)
    assert not layer.bias.any()


@pytest.mark.parametrize(
    ("make", "magnitudes", "linear", "logits", "gradients"),
    [
        (partial(resnet_cifar, 14, width=8), 3652.87132, -0.1312480867, 2.27923316, 11802.9367),
        (partial(resnet_cifar, 14, block=Bottleneck), 18772.6008, -0.04464773834, -4.88218994, 36103.5602),
        (partial(resnext_cifar, 11, cardinality=2, base=8), 5222.42982, -0.06065481902, -0.611712476, 24191.5114),
        (partial(densenet_cifar, 16, growth=6), 2244.15639, 0.1554086357, -3.09488784, 636.248804),
    ],
    ids=["resnet", "bottleneck", "resnext", "densenet"],
)
def test_a_seed_draws_the_networks_that_were_trained(make, magnitudes, linear, logits, gradients):
    """Taken with blocks of our own, before torchvision's took their place: published trainings start from these draws."""
    torch.manual_seed(3)
    network = make(5).double()
    assert float(sum(p.detach().abs().sum() for p in network.parameters())) == pytest.approx(magnitudes, rel=1e-6)
    assert network.fc.weight[0, 0].item() == pytest.approx(linear, rel=1e-5)
    found = network(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double())
    found.square().sum().backward()
    assert found.sum().item() == pytest.approx(logits, rel=1e-4)
    assert float(sum(p.grad.abs().sum() for p in network.parameters())) == pytest.approx(gradients, rel=1e-4)


def test_bottleneck_has_as_many_blocks():
    assert len(resnet_cifar(14, block=Bottleneck).layer1) == len(resnet_cifar(14).layer1) == 2
    assert resnet_cifar(14, block=Bottleneck).fc.in_features == 4 * resnet_cifar(14).fc.in_features


def test_dense_block_appends():
    network = densenet_cifar(10, growth=4).eval()
    x = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.dense1(x)[:, :8], x)
    assert network.dense1(x).shape == (1, 12, 5, 5)


def test_other_depths_are_refused():
    with pytest.raises(ValueError, match="9n \\+ 2"):
        resnext_cifar(30)
    with pytest.raises(ValueError, match="6n \\+ 4"):
        densenet_cifar(20)
