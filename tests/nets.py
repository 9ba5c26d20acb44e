"""Tiny float64 networks whose maps can be checked by hand or by brute force."""

import torch
from torch import Tensor, nn

from cam_core.classifier import Classifier


class Gap(nn.Module):
    """Conv trunk, global average pooling, linear head: the family where CAM, Grad-CAM, HiResCAM agree."""

    def __init__(self, channels: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True)
        self.conv2, self.relu2 = nn.Conv2d(8, channels, 3, padding=1), nn.ReLU(inplace=True)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        return self.fc(self.pool(x).flatten(1))


class Dense(nn.Module):
    """A head that reads positions: its gradients vary in space."""

    def __init__(self, channels: int = 6, classes: int = 5, side: int = 4) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, channels, 3, stride=2, padding=1), nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.fc1, self.act, self.fc2 = nn.Linear(channels * side * side, 16), nn.Tanh(), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(x)))
        return self.fc2(self.act(self.fc1(x.flatten(1))))


def gap(seed: int = 0, **sizes: int) -> Classifier:
    """`Gap` in float64, cut at its last ReLU."""
    return _cut(Gap(**sizes), "relu2", seed)


def dense(seed: int = 0, **sizes: int) -> Classifier:
    """`Dense` in float64, cut at its ReLU."""
    return _cut(Dense(**sizes), "relu", seed)


def _cut(network: nn.Module, layer: str, seed: int) -> Classifier:
    from cam_core.cutting import cut

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    network.double().eval()
    trunk, head = cut(network, layer)
    return Classifier(trunk, head, name="tiny", layer=layer, network=network).double().eval()


def images(count: int = 3, height: int = 16, width: int = 16, seed: int = 1) -> Tensor:
    """Uniform noise images [count,3,height,width] in [0, 1], float64."""
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
