"""Does the map point at the object: energy in the box, and where the maximum lies."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cam_core.data import VOC2007, Example, inclusive_boxes
from cam_core.metrics.metric import CLASSES, Annotated, Metric
from cam_core.metrics.statistics import Array, ratio, total
from cam_core.protocol import PROTOCOLS, Explained


def inside(boxes: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Bool [H,W]: pixels in the union of ``boxes`` [n,4], inclusive x0, y0, x1, y1."""
    mask = torch.zeros(tuple(size), dtype=torch.bool)
    for x0, y0, x1, y1 in boxes.tolist():
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def checked_boxes(boxes: Sequence[Tensor], count: int, size: Sequence[int], name: str) -> list[Tensor]:
    """Boxes as int64 [n,4]; ValueError unless there is one non-empty set per map, inside it."""
    if len(boxes) != count:
        raise ValueError(f"{name}: got {count} maps and {len(boxes)} sets of boxes; pass one [n,4] tensor for each map")
    whole = [torch.as_tensor(box).cpu().long().reshape(-1, 4) for box in boxes]
    for number, box in enumerate(whole):
        if not len(box):
            raise ValueError(f"{name}: map {number} has no box; leave such images out")
        if bool((box < 0).any() | (box[:, :2] > box[:, 2:]).any() | (box[:, 2:] >= torch.tensor([size[1], size[0]])).any()):
            raise ValueError(
                f"{name}: boxes of map {number} are not inclusive x0, y0, x1, y1 in pixels of a {size[0]} x {size[1]} map: {box.tolist()}"
            )
    return whole


class Boxed(Annotated):
    """Maps [B,H,W] against boxes [n,4], inclusive x0, y0, x1, y1 in map pixels: those of the protocol."""

    needs = "boxes"

    def truth(self, example: Example, target: int) -> Tensor | None:
        """The boxes; None if the crop contains none."""
        boxes = PROTOCOLS[self.protocol].boxes(example, target)
        return boxes if len(boxes) else None

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        whole = checked_boxes(boxes, len(maps), maps.shape[-2:], self.name)
        rows = [self._row(heat, box) for heat, box in zip(maps.detach().cpu(), whole, strict=True)]
        return torch.from_numpy(np.array(rows, np.float64))

    def _row(self, heat: Tensor, boxes: Tensor) -> ArrayLike:
        raise NotImplementedError


class InBoxes(Boxed):
    """Compares pixels with the union of the boxes; under "energy_present" every class with a box has its own row."""

    protocol = "energy"

    def _row(self, heat: Tensor, boxes: Tensor) -> ArrayLike:
        return self._pixels(heat.numpy(), inside(boxes, heat.shape).numpy())

    def _pixels(self, heat: NDArray[np.floating], truth: NDArray[np.bool_]) -> ArrayLike:
        raise NotImplementedError


class EnergyPointingGame(InBoxes):
    """Share of the map's energy that lies inside the union of the boxes, in percent (Score-CAM; higher is better).

    Maps [B,H,W] must be >= 0; boxes [n,4] are inclusive x0, y0, x1, y1 in map pixels. Rows [B,2]: energy inside, energy in all. A map
    without energy counts 0. Under ``protocol`` "energy_present" every class with a box has its own row, with the boxes of that class.
    """

    name = "energy_pointing_game"
    higher_is_better = True

    def _measure(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        if maps.numel() and float(maps.amin()) < 0:
            raise ValueError(f"{self.name}: maps must be >= 0, got {float(maps.amin()):.4g}; rescale them with maps.min_max")
        return super()._measure(maps.double(), boxes)

    def _row(self, heat: Tensor, boxes: Tensor) -> ArrayLike:
        return float((heat * inside(boxes, heat.shape)).sum()), float(heat.sum())

    def each(self, rows: Array) -> Array:
        """Energy inside / energy."""
        return ratio(rows[:, 0], rows[:, 1])


class Present(NamedTuple):
    """A class present in an image: index, all its boxes [n,4] (inclusive, 0-based, original pixels), whether the pair counts as hard."""

    label: int
    boxes: Tensor
    hard: bool = False


def points_at(point: tuple[float, float], boxes: ArrayLike, tolerance: float = 15) -> bool:
    """Whether some pixel of the boxes [n,4] (inclusive) lies strictly nearer than ``tolerance`` pixels to ``point`` (x, y)."""
    x, y = point
    x0, y0, x1, y1 = np.asarray(boxes).reshape(-1, 4).T
    dx, dy = np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0)
    return bool((dx**2 + dy**2 < tolerance**2).any())


class PointingGame(Metric):
    """How often the map's maximum falls on the class, mean over classes in percent (Zhang et al. 2016, TorchRay's protocol).

    One trial per (image, class present); pairs whose objects are all `difficult` are not trials: do not pass them. Maps come at the size of
    the original image: a tensor or a list of [H,W], one for each `Present` in ``points``. The first maximum in scan order hits if it is
    strictly nearer than ``tolerance`` pixels to a pixel of the class's boxes. Rows [n,3]: class, hit, hard. ``hard_only``: only hard pairs.
    The mean is over the classes that have a trial (TorchRay counts a class without any as 0; on all of VOC2007 there is none). Ids are
    those of the images; the classes of an image have separate rows, which the bootstrap draws together. Higher is better.
    """

    name = "pointing_game"
    protocol = "pointing"
    needs = "points"
    higher_is_better = True
    stride = CLASSES

    def __init__(self, tolerance: float = 15, hard_only: bool = False) -> None:
        super().__init__()
        self.tolerance, self.hard_only = tolerance, hard_only
        self.setting = f"{tolerance:g}px" + (" difficult" if hard_only else "")

    @property
    def shares(self) -> Hashable:
        """The metric of all pairs and that of the hard ones use the same trials."""
        return self.name, self.tolerance

    def measured(self, maps: Sequence[Tensor], explained: Explained) -> tuple[Sequence[int], Tensor]:
        """`measure` with all boxes of each class in pixels of the original image, difficult objects included."""
        dataset, points = explained.dataset, []
        assert isinstance(dataset, VOC2007)
        for i, label in zip(explained.ids, explained.probe.targets.tolist(), strict=True):
            item = dataset.annotations[i]
            assert item.boxes is not None
            points.append(Present(label, inclusive_boxes(item.boxes[item.box_labels == label]), label in dataset.hard(i)))
        return explained.ids, self.measure(maps, points)

    def _measure(self, maps: Tensor | Sequence[Tensor], points: Sequence[Present]) -> Tensor:
        if len(maps) != len(points):
            raise ValueError(f"{self.name}: got {len(maps)} maps for {len(points)} (image, class) pairs; pass one map for each")
        rows = []
        for one, present in zip(maps, points, strict=True):
            heat = one.detach().cpu().numpy()
            [boxes] = checked_boxes([present.boxes], 1, heat.shape, self.name)
            y, x = divmod(int(heat.argmax()), heat.shape[1])
            rows.append([present.label, points_at((x, y), boxes, self.tolerance), present.hard])
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)

    def _keep(self, keys: Tensor, rows: Tensor) -> None:
        super()._keep(torch.where(keys < 0, keys, keys * self.stride + rows[:, 0].long().cpu()), rows)

    def value(self, rows: Array, weights: Array | None = None) -> Array:
        """100 · mean over classes of hits / trials."""
        trial = rows[:, :1] == np.unique(rows[:, 0])  # [n, classes]
        if self.hard_only:
            trial = trial & (rows[:, 2:] > 0)
        trials = total(trial, weights)
        share = ratio(total(trial * rows[:, 1:2], weights), trials)
        return 100 * ratio(share.sum(-1), (trials > 0).sum(-1))
