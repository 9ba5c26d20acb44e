"""The conditions of a measurement: view of the image, explained class, boxes, finishing of the map, fill of masked pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core import maps
from cam_core.data import VOC2007, Dataset, Example, inclusive_boxes, wsol_boxes
from cam_core.methods import Method
from cam_core.probe import Probe

Size = tuple[int, int] | torch.Size


@dataclass(frozen=True)
class Explained:
    """Images that a method explains: their probe and, of each map, the example and its place in the data set."""

    method: Method
    probe: Probe
    examples: Sequence[Example]
    ids: Sequence[int]
    dataset: Dataset


@dataclass(frozen=True)
class Protocol:
    """``view``: crop (Resize 256, CenterCrop 224) · squash (to 224 x 224) · original size of the boxes, squashed input.

    ``target``: prediction · label · present (every class with a box). ``finishing``: how a raw map becomes one of image size; the order of
    rescaling and resizing alone changes pixels by 0.03 to 0.07. ``fill``: what replaces a masked pixel.
    """

    name: str
    view: str
    target: str
    finishing: str
    fill: str | None = None

    def targets(self, probe: Probe, dataset: Dataset, examples: Sequence[Example], start: int) -> tuple[Tensor, Tensor]:
        """Which images of a batch are explained, one entry a map, and for which classes; ``start``: the first one's place in the data set.

        ValueError where every present class is asked for and the data set does not state them.
        """
        everyone = torch.arange(len(examples))
        if self.target == "prediction":
            return everyone, probe.targets.cpu()
        if self.target == "label":
            return everyone, torch.tensor([example.label for example in examples])
        if not isinstance(dataset, VOC2007):
            raise ValueError(f"this protocol explains every present class, and {type(dataset).__name__} does not list them: take VOC2007")
        pairs = [(i, c) for i in range(len(examples)) for c in dataset.present(start + i)]
        index, targets = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)  # none where every object is difficult
        return index, targets

    def lacking(self, dataset: Dataset) -> str:
        """What this protocol needs and the data set does not have, and what to do; empty if nothing is missing."""
        trials = self.target != "present" or not isinstance(dataset, VOC2007) or any(map(dataset.present, range(len(dataset))))
        return "" if trials else "object that is not flagged difficult; take other images"

    def boxes(self, example: Example, target: int) -> Tensor:
        """Inclusive boxes [n,4] in pixels of the view: of all objects or, where every present class is explained, of ``target``."""
        if example.boxes is None:
            return torch.empty(0, 4, dtype=torch.int64)
        boxes = inclusive_boxes(example.boxes)
        return boxes[example.box_labels == target] if self.target == "present" and example.box_labels is not None else boxes

    def finish(self, raw: Tensor, explained: Explained) -> Any:
        """Raw maps [B,h,w] -> the maps that metrics get, [B,H,W] of the images' size. Maps that the method has finished are not changed."""
        return raw if explained.method.finished else finish(raw, explained.probe.images.shape[-2:], self.finishing)

    def again(self, explained: Explained, probe: Probe) -> Any:
        """Finished maps of other images by the same method, for metrics that explain a second time."""
        return self.finish(explained.method(probe), replace(explained, probe=probe))


class _Wsol(Protocol):
    """The benchmark's boxes start from the official integers."""

    def boxes(self, example: Example, target: int) -> Tensor:
        return wsol_boxes(example, example.image.shape[-1])


class _Pointing(Protocol):
    """A list of maps, each of its original image's size."""

    def finish(self, raw: Tensor, explained: Explained) -> list[Tensor]:
        return [maps.upsample(one, example.size) for one, example in zip(raw, explained.examples, strict=True)]


class _Cells(Protocol):
    """Maps at the resolution of the activations, from every method."""

    def finish(self, raw: Tensor, explained: Explained) -> Tensor:
        return finish(raw, explained.probe.activations.shape[-2:], self.finishing)


class _Cue(Protocol):
    """Raw maps [B,C,h,w] of all classes."""

    def finish(self, raw: Tensor, explained: Explained) -> Tensor:
        return explained.method.class_maps(explained.probe)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("l_cam", "crop", "prediction", "min_max_bilinear", "black"),  # L-CAM's released evaluation
        Protocol("energy", "squash", "prediction", "min_max_bilinear"),
        Protocol("energy_present", "squash", "present", "min_max_bilinear"),  # the same, for every class with a box
        _Wsol("wsol", "squash", "label", "bicubic_min_max"),  # wsolevaluation, GT-known
        _Pointing("pointing", "squash", "present", "none_bilinear"),  # TorchRay: maximum in pixels of the original image
        Protocol("score_cam", "squash", "prediction", "bilinear_min_max", "mean"),  # Score-CAM: normalised tensors are multiplied
        Protocol("adcc", "crop", "prediction", "min_max_bilinear", "mean"),
        Protocol("rise", "squash", "prediction", "min_max_bilinear", "mean"),  # RISE's evaluation; insertion starts from a blur instead
        Protocol("calm", "squash", "label", "none_bilinear", "mean"),  # CALM's remove-and-classify
        Protocol("road", "squash", "label", "min_max_bilinear", "imputed"),
        _Cells("cells", "crop", "prediction", "cells", "mean"),  # compares a map's values with scores, cell by cell
        _Cue("cue", "squash", "label", "none_bilinear"),  # CALM: difference of two classes' maps, rescaled afterwards
        Protocol("parts", "squash", "label", "none_bilinear"),  # FunnyBirds: a map's sums over parts keep their sign
        _Cue("part_classes", "squash", "label", "none_bilinear"),  # the same for the maps of all classes
        Protocol("grid", "squash", "label", "none_bilinear"),  # GridPG, DiFull, DiPart: the positive part of a map
    )
}


def _cells(raw: Tensor, size: Size) -> Tensor:
    return raw if raw.shape[-2:] == tuple(size) else F.adaptive_avg_pool2d(raw, (size[0], size[1]))


_FINISHINGS: dict[str, Callable[[Tensor, Size], Tensor]] = {
    "min_max_bilinear": lambda raw, size: maps.upsample(maps.min_max(raw), size),
    "bilinear_min_max": lambda raw, size: maps.min_max(maps.upsample(raw, size)),
    "bicubic_min_max": lambda raw, size: maps.min_max(maps.upsample(raw.double(), size, "bicubic")),
    "none_bilinear": maps.upsample,
    "cells": _cells,
}


def finish(raw: Tensor, size: Size, finishing: str) -> Tensor:
    """Raw maps [B,h,w] -> maps [B,H,W] of ``size``, in float32 or better.

    "min_max_bilinear" (L-CAM), "bilinear_min_max" (Score-CAM) and "bicubic_min_max" (the WSOL benchmark, in float64) end in [0, 1];
    "none_bilinear" keeps the values. "cells" keeps them too, and its ``size`` is the activations' (h, w), to which finer maps are averaged.
    """
    if finishing not in _FINISHINGS:
        raise ValueError(f"unknown finishing {finishing!r}: expected one of {', '.join(_FINISHINGS)}")
    return _FINISHINGS[finishing](raw, size)
