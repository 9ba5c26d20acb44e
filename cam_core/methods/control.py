"""Controls: maps that explain nothing. A metric that they win is no evidence for a method."""

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core.probe import Probe


def image_seeds(probe: Probe, seed: int) -> list[int]:
    """A seed for every image [B], from ``seed`` and the image's content, so that draws differ between images but not with the batches."""
    return [zlib.crc32(image.cpu().numpy().tobytes(), seed) for image in probe.images]


def random_map(probe: Probe, seed: int = 0) -> Tensor:
    """Uniform noise [B,h,w] at the activations' resolution, drawn from ``seed`` and the image, independent of the batches."""
    size = probe.activations.shape[-2:]
    noise = [torch.rand(size, generator=torch.Generator().manual_seed(s)) for s in image_seeds(probe, seed)]
    return torch.stack(noise).to(probe.activations, non_blocking=True)


def center_gaussian(probe: Probe) -> Tensor:
    """A Gaussian [B,H,W] at the centre with a quarter of each side as standard deviation, maximum 1: the photographer's bias."""
    height, width = probe.images.shape[-2:]
    y, x = (torch.linspace(-2, 2, side + 1).unfold(0, 2, 1).mean(-1) for side in (height, width))
    bump = torch.exp(-(y[:, None] ** 2 + x**2) / 2)
    return (bump / bump.max()).to(probe.images, non_blocking=True).expand(len(probe.images), -1, -1)


def all_ones(probe: Probe) -> Tensor:
    """Ones everywhere [B,H,W]: nothing of the image is hidden."""
    return torch.ones_like(probe.images[:, 0])


def fake_cam(probe: Probe) -> Tensor:
    """Fake-CAM (Poppi et al., CVPR Workshops 2021): ones everywhere but for the top left pixel [B,H,W]. It wins Average Drop."""
    fake = all_ones(probe)
    fake[:, 0, 0] = 0.0
    return fake


def edges(probe: Probe) -> Tensor:
    """Sobel gradient magnitude of the grey image [B,H,W], borders replicated (Adebayo et al., NeurIPS 2018, compare with edges)."""
    grey = F.pad(probe.images.mean(1, keepdim=True), [1] * 4, mode="replicate")
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(grey, non_blocking=True) / 8
    return F.conv2d(grey, torch.stack([sobel, sobel.T])[:, None]).square().sum(1).sqrt()
