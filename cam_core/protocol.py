"""Under which conditions a number is taken: view of the image, explained class, finishing of the map, fill of what is masked."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core import maps


@dataclass(frozen=True)
class Protocol:
    """``view``: crop (Resize 256, CenterCrop 224) · squash (to 224 x 224) · original size of the boxes, squashed input.

    ``target``: prediction · label · present (every class with a box). ``finishing``: what turns a raw map into an image-size one;
    the order of rescaling and resizing alone moves pixels by 0.03 to 0.07. ``fill``: what replaces a masked pixel.
    """

    name: str
    view: str
    target: str
    finishing: str
    fill: str | None = None


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("l_cam", "crop", "prediction", "min_max_bilinear", "black"),  # L-CAM's released evaluation
        Protocol("energy", "squash", "prediction", "min_max_bilinear"),
        Protocol("energy_present", "squash", "present", "min_max_bilinear"),  # the same, for every class with a box
        Protocol("wsol", "squash", "label", "bicubic_min_max"),  # wsolevaluation, GT-known
        Protocol("pointing", "squash", "present", "none_bilinear"),  # TorchRay: maximum in pixels of the original image
        Protocol("score_cam", "squash", "prediction", "bilinear_min_max", "mean"),  # Score-CAM: normalised tensors are multiplied
        Protocol("adcc", "crop", "prediction", "min_max_bilinear", "mean"),
        Protocol("rise", "squash", "prediction", "min_max_bilinear", "mean"),  # RISE's evaluation; insertion starts from a blur instead
        Protocol("calm", "squash", "label", "none_bilinear", "mean"),  # CALM's remove-and-classify
        Protocol("road", "squash", "label", "min_max_bilinear", "imputed"),
        Protocol("cells", "crop", "prediction", "cells", "mean"),  # what compares a map's values with scores, cell by cell
        Protocol("cue", "squash", "label", "none_bilinear"),  # CALM: difference of two classes' maps, rescaled afterwards
    )
}


def finish(raw: Tensor, size: tuple[int, int] | torch.Size, finishing: str) -> Tensor:
    """Raw maps [B,h,w] -> maps [B,H,W] of ``size``, in float32 or better.

    "min_max_bilinear" (L-CAM), "bilinear_min_max" (Score-CAM) and "bicubic_min_max" (the WSOL benchmark, in float64) end in [0, 1];
    "none_bilinear" keeps the values. "cells" keeps them too, and its ``size`` is the activations' (h, w), to which finer maps are averaged.
    """
    if finishing == "cells":
        return raw if raw.shape[-2:] == tuple(size) else F.adaptive_avg_pool2d(raw, (size[0], size[1]))
    if finishing == "min_max_bilinear":
        return maps.upsample(maps.min_max(raw), size)
    if finishing == "bilinear_min_max":
        return maps.min_max(maps.upsample(raw, size))
    if finishing == "bicubic_min_max":
        return maps.min_max(maps.upsample(raw.double(), size, "bicubic"))
    if finishing == "none_bilinear":
        return maps.upsample(raw, size)
    known = "min_max_bilinear, bilinear_min_max, bicubic_min_max, none_bilinear or cells"
    raise ValueError(f"unknown finishing {finishing!r}: expected {known}")
