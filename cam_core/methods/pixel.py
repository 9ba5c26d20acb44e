"""Maps [B,H,W] from gradients with respect to pixels: d(logit of the target) / d(normalised image), [B,3,H,W].

If a paper gives one map per colour, ours is the largest magnitude over the colours (Simonyan et al.); integrated gradients are summed over
them, so that the map adds up to the score. CALM's forms average magnitudes and have names of their own.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cam_core.methods.control import image_seeds
from cam_core.probe import Probe


def saliency(probe: Probe) -> Tensor:
    """``max_c |g|`` (Simonyan et al. 2014), which is also CALM's vanilla gradient."""
    return probe.pixel_gradients(probe.inputs).abs().amax(1)


def smooth_grad(probe: Probe, samples: int = 25, spread: float = 0.15, seed: int = 0) -> Tensor:
    """SmoothGrad (Smilkov et al. 2017): the mean gradient under Gaussian noise of ``spread`` times the image's range."""
    total = torch.zeros_like(probe.inputs)
    for noisy in _noisy(probe, samples, spread, seed):
        total += probe.pixel_gradients(noisy)
    return (total / samples).abs().amax(1)


def var_grad(probe: Probe, samples: int = 25, spread: float = 0.15, seed: int = 0) -> Tensor:
    """VarGrad (Adebayo et al. 2018): the variance (divisor ``samples``) of the gradient under SmoothGrad's noise."""
    gradients = torch.stack([probe.pixel_gradients(noisy) for noisy in _noisy(probe, samples, spread, seed)])
    return gradients.var(0, correction=0).amax(1)


def integrated_gradients(probe: Probe, steps: int = 50) -> Tensor:
    """Integrated gradients (Sundararajan et al., ICML 2017) from the mean colour, Gauss-Legendre with ``steps`` points; signed.

    The map's sum is the target's logit minus the logit of the mean-coloured image (completeness), up to the quadrature.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(probe.inputs)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        total += float(weight) * probe.pixel_gradients(float(point) * probe.inputs)
    return (total * probe.inputs).sum(1)


def smooth_grad_calm(probe: Probe, samples: int = 50, spread: float = 0.25, seed: int = 0) -> Tensor:
    """CALM's SmoothGrad: the mean of `saliency` under the noise."""
    return torch.stack(list(_noisy_saliency(probe, samples, spread, seed))).mean(0)


def smooth_grad_squared_calm(probe: Probe, samples: int = 50, spread: float = 0.25, seed: int = 0) -> Tensor:
    """CALM's SmoothGrad²: the mean of `saliency`, squared, under the noise."""
    return torch.stack(list(_noisy_saliency(probe, samples, spread, seed))).square().mean(0)


def var_grad_calm(probe: Probe, samples: int = 50, spread: float = 0.25, seed: int = 0) -> Tensor:
    """CALM's VarGrad: the variance of `saliency` under the noise."""
    return torch.stack(list(_noisy_saliency(probe, samples, spread, seed))).var(0, correction=0)


def integrated_gradients_calm(probe: Probe, steps: int = 50) -> Tensor:
    """CALM's integrated gradient: `saliency` summed over ``steps`` + 1 points of the path, both ends in, over ``steps``; no factor x."""
    total = torch.zeros_like(probe.inputs[:, 0])
    for step in range(steps + 1):
        total += probe.pixel_gradients(step / steps * probe.inputs).abs().amax(1)
    return total / steps


def guided_backprop(probe: Probe) -> Tensor:
    """Guided backpropagation (Springenberg et al. 2015): a ReLU lets through only positive gradient of what was positive."""
    with _GuidedReLUs():
        return probe.pixel_gradients(probe.inputs).abs().amax(1)


def _noisy(probe: Probe, samples: int, spread: float, seed: int) -> Iterator[Tensor]:
    """``samples`` versions of the inputs; noise drawn from ``seed`` and the image's content."""
    x = probe.inputs
    sigma = spread * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))[:, None, None, None]
    generators = [torch.Generator().manual_seed(s) for s in image_seeds(probe, seed)]
    for _ in range(samples):
        noise = torch.stack([torch.randn(x.shape[1:], generator=g, dtype=torch.float64) for g in generators])
        yield x + sigma * noise.to(x, non_blocking=True)


def _noisy_saliency(probe: Probe, samples: int, spread: float, seed: int) -> Iterator[Tensor]:
    return (probe.pixel_gradients(noisy).abs().amax(1) for noisy in _noisy(probe, samples, spread, seed))


class _GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, ceiling: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward((x > 0) & (x < ceiling))
        return x.clamp(0, ceiling)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return torch.where(ctx.saved_tensors[0], gradient.clamp_min(0), 0.0), None


class _GuidedReLUs(TorchFunctionMode):
    """While active, every ReLU is guided, module or function, in place or not; the network itself is not changed."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = getattr(func, "__name__", "")
        if name in ("relu", "relu_"):
            return _GuidedReLU.apply(args[0], float("inf"))
        if name in ("relu6", "hardtanh", "hardtanh_") and _bounds(args, kwargs or {})[0] == 0:
            return _GuidedReLU.apply(args[0], float(_bounds(args, kwargs or {})[1]))
        return func(*args, **(kwargs or {}))


def _bounds(args: tuple, kwargs: dict) -> tuple[float, float]:  # type: ignore[type-arg]
    given = [*args[1:3], kwargs.get("min_val"), kwargs.get("max_val")]
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    return (numbers[0], numbers[1]) if len(numbers) > 1 else (0.0, 6.0)
