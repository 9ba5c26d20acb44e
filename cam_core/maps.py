"""What is done to a raw map after a method has made it: rescaling, resizing, masking out low values.

Maps are ``[..., h, w]`` floating tensors; every function treats the leading dimensions as a batch and keeps dtype and device.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def min_max(maps: Tensor) -> Tensor:
    """Rescale every map [..., h, w] to [0, 1]: ``(m - min m) / (max m - min m)``; constant or non-finite maps become zeros."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    usable = torch.isfinite(high - low) & (high > low)
    return torch.where(usable, (maps - low) / torch.where(usable, high - low, 1.0), 0.0)


def is_empty(maps: Tensor) -> Tensor:
    """Which maps [..., h, w] are empty: constant, or with values that are not finite. Bool [...]. Results report their number."""
    low, high = maps.amin((-2, -1)), maps.amax((-2, -1))
    return ~torch.isfinite(high - low) | (high <= low)


def upsample(maps: Tensor, size: tuple[int, int] | torch.Size, mode: str = "bilinear") -> Tensor:
    """Resize maps [..., h, w] to ``size`` (H, W) with half-pixel centres and no antialias, as OpenCV's INTER_LINEAR / INTER_CUBIC.

    A map that already has the size is returned as it is. ``mode`` is "bilinear" or "bicubic" (a = -0.75, may overshoot).
    """
    if maps.shape[-2:] == tuple(size):
        return maps
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(flat, tuple(size), mode=mode, align_corners=False).reshape(*maps.shape[:-2], *size)


def top_fraction(maps: Tensor, fraction: float) -> Tensor:
    """Set all but the highest ``fraction`` of each map's pixels to 0; the others keep their values.

    L-CAM's form (released evaluation, section "masking"): with n pixels, values below the int(n·(1-fraction))-th smallest become 0;
    if more than ceil(n·(1-(1-fraction))) positive values remain, the first surplus ones equal to that value, in scan order, become 0 too.
    A 224 x 224 map keeps 25088 pixels at 0.5 and 7527 at 0.15, fewer where the map is mostly zero. In floating point 1 - 0.85 is a little
    more than 0.15, so that 160 x 160 pixels keep 3841 instead of 3840, as released. Maps [..., h, w] must be >= 0.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}: 0.15 keeps the highest 15 % of the pixels")
    values = maps.flatten(-2)
    n = values.shape[-1]
    dropped = 1.0 - fraction
    rank = int(n * dropped)
    if rank == 0:
        return maps
    threshold = values.kthvalue(rank, dim=-1, keepdim=True).values
    values = torch.where(values < threshold, 0.0, values)
    surplus = (values > 0).sum(-1, keepdim=True) - math.ceil(n * (1.0 - dropped))
    tied = values == threshold
    values = torch.where(tied & (tied.cumsum(-1) <= surplus), 0.0, values)
    return values.reshape(maps.shape)


def at_mean(heat: Tensor, mean: float) -> Tensor:
    """Maps [B,H,W] in [0, 1] to the power, found by bisection between 2^-10 and 2^10, at which each one's mean is ``mean``."""
    if not 0 < mean < 1:
        raise ValueError(f"a map in [0, 1] is brought to a mean between 0 and 1, got {mean}")
    low, high = (torch.full((len(heat), 1, 1), end, dtype=torch.float64, device=heat.device) for end in (-10.0, 10.0))
    exact = heat.double()
    for _ in range(40):
        middle = (low + high) / 2
        too_bright = (exact**2**middle).mean((1, 2), keepdim=True) > mean
        low, high = torch.where(too_bright, middle, low), torch.where(too_bright, high, middle)
    return (exact**2 ** ((low + high) / 2)).to(heat.dtype)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation [B] of maps [B,...], float64 in [-1, 1]; NaN where one is constant up to rounding."""
    pair = torch.stack([a.double(), b.double()], 1).flatten(2)
    centred = pair - pair.mean(2, keepdim=True)
    norm = centred.norm(dim=2)
    constant = (norm <= 1e-10 * pair.norm(dim=2)).any(1)
    return torch.where(constant, torch.nan, (centred[:, 0] * centred[:, 1]).sum(1) / norm.prod(1)).clamp(-1, 1)
