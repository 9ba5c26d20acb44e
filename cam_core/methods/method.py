"""The record of a method, and variants of it: its map raised to a power or brought to a given mean."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cam_core import maps
from cam_core.probe import Probe

# Names as people write them; others are written with spaces instead of underscores.
WRITTEN = {
    "cam": "CAM", "eigen_cam": "Eigen-CAM", "grad_cam": "Grad-CAM", "grad_cam_pp": "Grad-CAM++", "xgrad_cam": "XGrad-CAM",
    "hires_cam": "HiResCAM", "layer_cam": "LayerCAM", "score_cam": "Score-CAM", "ss_cam": "SS-CAM", "is_cam": "IS-CAM",
    "ablation_cam": "Ablation-CAM", "fd_cam": "FD-CAM", "group_cam": "Group-CAM", "rise": "RISE", "opti_cam": "Opti-CAM",
    "smooth_grad": "SmoothGrad", "var_grad": "VarGrad", "guided_backprop": "guided backprop", "increment_cam": "Increment-CAM",
    "kpca_cam": "KPCA-CAM", "fem": "FEM", "eigen_grad_cam": "EigenGrad-CAM", "seg_eigen_cam": "Seg-Eigen-CAM", "finer_cam": "Finer-CAM",
    "shapley_cam": "ShapleyCAM", "expected_grad_cam": "Expected Grad-CAM", "refine_cam": "RefineCAM", "recipro_cam": "Recipro-CAM",
    "grad_pp_score_cam": "Grad++ScoreCAM", "fusion_cam": "Fusion-CAM", "guided_grad_cam": "guided Grad-CAM", "legrad": "LeGrad",
    "grad_cam_elementwise": "element-wise Grad-CAM", "poly_cam": "Poly-CAM", "l_cam_fm": "L-CAM-Fm", "l_cam_img": "L-CAM-Img",
    "center_gaussian": "centre Gaussian", "fake_cam": "Fake-CAM", "lfi_cam": "LFI-CAM", "abn": "ABN", "calm_em": "CALM-EM",
    "calm_ml": "CALM-ML",
}  # fmt: skip


def written(name: str) -> str:
    """An identifier as people write it, options in parentheses."""
    base, _, options = name.partition("[")
    return WRITTEN.get(base, base.replace("_", " ")) + (f" ({options.rstrip(']').replace('][', ', ')})" if options else "")


@dataclass(frozen=True)
class Method:
    """A named function Probe -> raw maps [B,h,w] (signed, native resolution unless ``finished``).

    ``passes``: the cost of one explanation in forward passes of the whole network, as text, since it may depend on the layer ("K" =
    channels). ``finished``: the map has image size and lies in [0, 1], so it is not finished again. ``all_classes``: a faster way to the
    maps of all classes.
    """

    name: str
    function: Callable[[Probe], Tensor]
    paper: str
    year: int
    passes: str
    target_dependent: bool = True
    finished: bool = False
    control: bool = False
    all_classes: Callable[[Probe], Tensor] | None = None

    def __call__(self, probe: Probe) -> Tensor:
        """Raw maps [B,h,w] of the probe's targets."""
        return self.function(probe)

    @property
    def title(self) -> str:
        """The name as people write it, options in parentheses."""
        return written(self.name)

    def cost(self, channels: int) -> int:
        """About how many forward passes of the whole network one map takes where the layer has ``channels``: ``passes`` as a number.

        Passes of the head alone are not counted, and one with a gradient (about three times as long) counts as one.
        """
        total = 0
        for term in self.passes.split(" + "):
            if "head" in term:
                continue
            if times := re.search(r"(\d*) ?K(/2)?", term):  # "35 K", "about K/2 at ...", "32, 64, ... or K"
                total += int(times[1] or 1) * channels // (2 if times[2] else 1)
            elif number := re.match(r"\d+", term):
                total += int(number[0])
        return total

    def class_maps(self, probe: Probe) -> Tensor:
        """Raw maps [B,C,h,w] of all classes, whatever the probe's targets; for metrics that compare the maps of two classes."""
        if self.all_classes is not None:
            return self.all_classes(probe)
        batch, classes = probe.logits.shape
        device = probe.logits.device
        index = torch.arange(batch, device=device).repeat_interleave(classes)
        heat = self(probe.pairs(index, torch.arange(classes, device=device).repeat(batch)))
        return heat.reshape(batch, classes, *heat.shape[1:])

    def power(self, exponent: float) -> "Method":
        """The control that keeps the order of the pixels: the min-maxed map raised to ``exponent``."""
        return replace(
            self,
            name=f"{self.name}[power={exponent:g}]",
            function=lambda probe: maps.min_max(self.function(probe)) ** exponent,
            all_classes=None,
            control=True,
        )

    def at_mean(self, mean: float) -> "Method":
        """The finished map (min-max, bilinear to image size) raised, image by image, to the power that gives it this ``mean``.

        In AD and IC a map then gains nothing by hiding little. If no power gives this mean, the nearest is taken.
        """
        return replace(
            self,
            name=f"{self.name}[mean={mean:g}]",
            function=lambda probe: maps.at_mean(maps.upsample(maps.min_max(self.function(probe)), probe.images.shape[-2:]), mean),
            finished=True,
            all_classes=None,
        )
