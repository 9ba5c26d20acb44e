"""LFI-CAM with parts changed, and the models it is compared with: `LEARNS`, by their names in results."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from cam_core.classifier import Classifier
from cam_core.learned import LfiCam
from cam_core.learned.lfi import RECTIFIED, FeatureImportance
from cam_core.networks import CIFAR
from reproduce import jobs, sources


class FixedImportance(nn.Module):
    """Replaces FIN by equal weights for every image (ours): 1/C or, with ``learned``, C trained numbers that start at 1/C.

    Step 6 then takes the mean activation, or a 1x1 convolution of F without bias.
    """

    weights: Tensor

    def __init__(self, channels: int, *, learned: bool) -> None:
        super().__init__()
        start = torch.full((channels,), 1 / channels)
        if learned:
            self.weights = nn.Parameter(start)
        else:
            self.register_buffer("weights", start)

    def extra_repr(self) -> str:
        """Which of the two; it is part of the digest of a trained model."""
        return f"{len(self.weights)}, learned={isinstance(self.weights, nn.Parameter)}"

    def forward(self, masked: Tensor) -> Tensor:
        """Guided features [B,C,h,w], of which only B counts -> weights [B,C]."""
        return self.weights.expand(len(masked), -1)


class Uniform(LfiCam):
    """Equal weights: the map is the mean activation."""

    name = "lfi_cam[uniform]"

    def importance(self, channels: int, *, drawn: bool) -> nn.Module:
        """1/C each."""
        return FixedImportance(channels, learned=False)


class Learned(LfiCam):
    """Learned weights: the map is a 1x1 convolution, the same for every image."""

    name = "lfi_cam[learned]"

    def importance(self, channels: int, *, drawn: bool) -> nn.Module:
        """C numbers that learn."""
        return FixedImportance(channels, learned=True)


class OneByOne(LfiCam):
    """An importance network of 1x1 convolutions, with a ninth of the parameters; the authors' code had one before its release."""

    name = "lfi_cam[kernel=1]"

    def importance(self, channels: int, *, drawn: bool) -> nn.Module:
        """FIN with a kernel of 1."""
        return FeatureImportance(channels, 1, RECTIFIED[self.family], drawn=drawn)


def equal_width(name: str, parameters: int, classes: int = 10) -> int:
    """The ``width`` at which a CIFAR ResNet is closest to a number of parameters; ValueError if ``name`` is not one."""
    resnets = [key for key in CIFAR if key.startswith("resnet")]
    if name not in resnets:
        raise ValueError(f"{name} cannot be widened: take one of {', '.join(resnets)}")
    with torch.device("meta"):
        sizes = {w: sum(p.numel() for p in CIFAR[name](classes, width=w).parameters()) for w in range(4, 65)}
    return min(sizes, key=lambda width: abs(sizes[width] - parameters))


def widened(dataset: str, name: str, root: Path | str, **options: Unpack[jobs.Options]) -> tuple[Classifier, jobs.Summary]:
    """The plain network with as many parameters as LFI-CAM has on the network of that name, and no attention."""
    classes = len(sources.images(dataset, root, limit=1)("squash").classes)
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in LfiCam(name, classes).parameters())
    return jobs.plain(dataset, name, root, width=equal_width(name, wanted, classes), **options)


LEARNS: dict[str, Callable[..., tuple[Any, jobs.Summary]]] = {
    "plain": jobs.plain,
    "lfi_cam": jobs.lfi_cam,
    "abn": jobs.abn,
    **{kind.name: partial(jobs.lfi_cam, model=kind) for kind in (Uniform, Learned, OneByOne)},
    "plain[widened]": widened,
}
