"""Controls: maps that explain nothing. A metric that they win is no evidence for a method."""

import zlib

import torch
from torch import Tensor

from cam_core.probe import Probe


def random_map(probe: Probe, seed: int = 0) -> Tensor:
    """Uniform noise [B,h,w] at the activations' resolution, drawn from ``seed`` and the image, so that batches do not matter."""
    size = probe.activations.shape[-2:]
    seeds = [zlib.crc32(image.cpu().numpy().tobytes(), seed) for image in probe.images]
    noise = [torch.rand(size, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(noise).to(probe.activations)


def center_gaussian(probe: Probe) -> Tensor:
    """A Gaussian [B,H,W] at the centre with a quarter of each side as standard deviation, maximum 1: the photographer's bias."""
    height, width = probe.images.shape[-2:]
    y, x = (torch.linspace(-2, 2, side + 1).unfold(0, 2, 1).mean(-1) for side in (height, width))
    bump = torch.exp(-(y[:, None] ** 2 + x**2) / 2)
    return (bump / bump.max()).to(probe.images).expand(len(probe.images), -1, -1)
