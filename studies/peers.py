"""How other packages (peers) differ from us, on purpose or by mistake: our method with that one change, as a function of a probe.

tests/oracles compares each with the peer itself, so that a change upstream is noticed; studies/forms.py measures the effect of the
difference; the benchmark uses them to tell a known difference from an error.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core import Probe, maps


def score_cam_aligned(probe: Probe) -> Tensor:
    """`score_cam[softmax]` with masks enlarged to aligned corners, before they are rescaled."""
    size = probe.images.shape[-2:]

    def enlarged(masks: Tensor) -> Tensor:
        return maps.min_max(F.interpolate(masks[:, None], size, mode="bilinear", align_corners=True)[:, 0])

    return _weighed(probe, probe.score_masked(probe.activations, "mean", enlarged))


def score_cam_rescaled_first(probe: Probe) -> Tensor:
    """`score_cam[softmax]` with masks rescaled before they are enlarged."""
    return _weighed(probe, probe.score_masked(maps.min_max(probe.activations), "mean"))


def _weighed(probe: Probe, logits: Tensor) -> Tensor:
    return _sum(_target(probe, logits).softmax(1), probe.activations)


def grad_cam_pp_epsilon(probe: Probe) -> Tensor:
    """`grad_cam_pp` with 1e-6 added to a denominator of that size."""
    g, a = probe.gradients().double(), probe.activations.double()
    alpha = torch.where(g != 0, g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + 1e-6), 0.0)
    return _sum((alpha * g.relu()).sum((2, 3)), a).relu()


def grad_cam_pp_without_denominator(probe: Probe) -> Tensor:
    """`grad_cam_pp` without the denominator, because there the division changes a copy."""
    g, a = probe.gradients().double(), probe.activations.double()
    return _sum((g**2 * g.relu()).sum((2, 3)), a).relu()


def hires_cam_rectified(probe: Probe) -> Tensor:
    """`hires_cam` with a ReLU, as every method has there."""
    return (probe.gradients() * probe.activations).sum(1).relu()


def grad_cam_signed(probe: Probe) -> Tensor:
    """`grad_cam` with no ReLU."""
    return _sum(probe.gradients().mean((2, 3)), probe.activations)


def ablation_cam_over_y(probe: Probe) -> Tensor:
    """`ablation_cam` with the drop divided by the logit, not by its magnitude: this flips the sign of the map of a negative logit."""
    channels = probe.activations.shape[1]
    keep = (1 - torch.eye(channels, device=probe.images.device)).expand(len(probe.images), -1, -1).to(probe.images.dtype)
    y = probe.logits.gather(1, probe.targets[:, None])
    return _sum((y - _target(probe, probe.score_channels(keep))) / y, probe.activations).relu()


OTHERWISE = {  # package: class -> our method with its change
    "grad-cam: ScoreCAM": score_cam_aligned,
    "torchcam: ScoreCAM": score_cam_rescaled_first,
    "grad-cam: GradCAMPlusPlus": grad_cam_pp_epsilon,
    "torchcam: GradCAMpp": grad_cam_pp_without_denominator,
    "grad-cam: HiResCAM": hires_cam_rectified,
    "captum: LayerGradCam": grad_cam_signed,
    "grad-cam: AblationCAM": ablation_cam_over_y,
}


def changed(peer: str) -> str:
    """The name of our method that the peer's differs from."""
    return str(OTHERWISE[peer].__doc__).split("`")[1]


def otherwise(peer: str) -> str:
    """How the peer differs, in the words after "with" above."""
    return str(OTHERWISE[peer].__doc__).partition(" with ")[2].rstrip(".")


def _target(probe: Probe, logits: Tensor) -> Tensor:
    return logits.gather(2, probe.targets[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]


def _sum(weights: Tensor, activations: Tensor) -> Tensor:
    return torch.einsum("bk,bkhw->bhw", weights, activations)
