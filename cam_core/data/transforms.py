"""Views: how an image is prepared for the network when a number is measured; boxes, mask and points are transformed with it."""

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

VIEWS = ("crop", "squash", "original")


def view(name: str, size: int = 224, resize: int | None = None, interpolation: str = "bilinear") -> v2.Transform:
    """The transform of a view; it ends in a float image [3,H,W] in [0, 1].

    "crop": short side to ``resize`` (default: 256/224 of ``size``), centre crop (torchvision's evaluation, L-CAM). "squash": to size x
    size, without keeping the aspect (the WSOL benchmark). "original": only the conversion. ``interpolation``: "bilinear" or "bicubic";
    `Classifier.interpolation` is that of its weights.
    """
    by = {"interpolation": v2.InterpolationMode(interpolation), "antialias": True}
    if name == "crop":
        geometry: list[v2.Transform] = [v2.Resize(resize or round(size * 256 / 224), **by), v2.CenterCrop(size)]
    elif name == "squash":
        geometry = [v2.Resize((size, size), **by)]
    elif name == "original":
        geometry = []
    else:
        raise ValueError(f"unknown view {name!r}: expected one of {', '.join(VIEWS)}")
    return v2.Compose([*geometry, *_to_float()])


def short_side(size: int = 256) -> v2.Transform:
    """The whole image, its short side scaled to ``size``; a float image [3,H,W] in [0, 1]."""
    return v2.Compose([v2.Resize(size, antialias=True), *_to_float()])


def _to_float() -> list[v2.Transform]:
    kinds = {tv_tensors.Image: torch.float32, "others": None}  # a mask must stay what it is
    return [v2.ToImage(), v2.ToDtype(kinds, scale=True)]
