import pytest
import torch
from torch import nn

from cam_core.classifier import cut, cuts
from cam_core.networks import resnet_cifar


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
