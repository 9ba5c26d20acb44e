"""Grids of images, where the truth is by construction: GridPG, DiFull and DiPart (Rao, Böhle & Schiele, CVPR 2022; arXiv 2303.11884).

Images of one size are put side by side, n x n, and a network is asked about the class of one of them. Read in the authors' repository
(sukrutrao/Attribution-Evaluation): the three settings and the localization score. GridPG is from Böhle et al., "Convolutional Dynamic
Alignment Networks" (CVPR 2021).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cam_core.classifier import Classifier
from cam_core.metrics.metric import Metric
from cam_core.metrics.statistics import Array, ratio
from cam_core.options import one_of

SETTINGS = ("GridPG", "DiFull", "DiPart")


def grid(images: Tensor) -> Tensor:
    """Images [n²,3,H,W], row by row, as one of [3,nH,nW]."""
    side = round(len(images) ** 0.5)
    if side * side != len(images):
        raise ValueError(f"a grid has n x n images, got {len(images)}: take 4 or 9")
    return torch.cat([torch.cat(list(row), 2) for row in images.split(side)], 1)


def cells(whole: Tensor, side: int) -> Tensor:
    """The cells [B,n²,...,h,w] of what lies on grids [B,...,nh,nw], row by row; ValueError if it cannot be divided."""
    height, width = whole.shape[-2:]
    if height % side or width % side:
        raise ValueError(f"{height} x {width} cannot be divided into {side} x {side} equal cells")
    rows = whole.unflatten(-1, (side, width // side)).unflatten(-3, (side, height // side))  # [B,...,n,h,n,w]
    apart: Tensor = rows.movedim(-2, 1).movedim(-3, 1).flatten(1, 2)
    return apart


class _Apart(nn.Module):
    """The trunk on every cell alone, its maps put side by side: nothing in one cell can reach another."""

    def __init__(self, trunk: nn.Module, side: int) -> None:
        super().__init__()
        self.trunk, self.side = trunk, side

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.trunk(cells(inputs, self.side).flatten(0, 1)).unflatten(0, (len(inputs), -1))
        rows = maps.unflatten(1, (self.side, self.side))  # [B,n,n,K,h,w]
        together: Tensor = rows.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return together


class _OneCell(nn.Module):
    """The head on the activations of one cell."""

    def __init__(self, head: nn.Module, side: int, cell: int) -> None:
        super().__init__()
        self.head, self.side, self.cell = head, side, cell

    def forward(self, activations: Tensor) -> Tensor:
        logits: Tensor = self.head(cells(activations, self.side)[:, self.cell].contiguous())
        return logits


def on_grid(classifier: Classifier, setting: str, side: int, cell: int) -> Classifier:
    """The classifier as it answers for one cell (0 to n² - 1) of grids of n = ``side``.

    "GridPG": as it is; its head must pool. "DiFull": every cell passes the trunk alone and the head reads ``cell``'s activations, so that
    nothing outside can matter. "DiPart": the trunk sees the whole grid and the head reads ``cell``, so that only what lies within a
    receptive field of it can matter.
    """
    one_of("setting", setting, SETTINGS)
    if setting == "GridPG":
        return classifier
    trunk = _Apart(classifier.trunk, side) if setting == "DiFull" else classifier.trunk
    other = classifier.with_parts(trunk, _OneCell(classifier.head, side, cell), name=f"{classifier.name} {setting}")
    return other.train(classifier.training)


class GridLocalization(Metric):
    """Share of the map's positive part that lies in the cell of the class, in percent (higher is better); chance is 100 / n².

    ``update(maps, places)``: signed maps [B,H,W] of grids, and the cell of the class of each. Rows [B,2]: in the cell, and in all. A map
    without a positive part counts 0.
    """

    name = "grid_localization"
    protocol = "grid"
    needs = "the cell of the class"
    higher_is_better = True

    def __init__(self, side: int = 2) -> None:
        super().__init__()
        self.side, self.setting = side, f"{side} x {side}"

    def _measure(self, maps: Tensor, places: Sequence[int] | Tensor) -> Tensor:
        each = cells(maps.double().relu(), self.side).sum((-2, -1))
        return torch.stack([each.gather(1, torch.as_tensor(places, device=each.device)[:, None])[:, 0], each.sum(1)], 1)

    def each(self, rows: Array) -> Array:
        """In the cell / in all."""
        return ratio(rows[:, 0], rows[:, 1])
