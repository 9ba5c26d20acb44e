"""Pictures: heat maps laid over images, grids of method x image."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from cam_core.methods.method import written

COLOURS = "inferno"


def blend(image: Tensor, heat: Tensor | None = None) -> NDArray[Any]:
    """An image [C,H,W] in [0, 1] as pixels [H,W,3], grey unless C is 3; with a map [H,W] grey, under its colours, scaled 0..1."""
    picture: NDArray[Any] = image.permute(1, 2, 0).cpu().numpy()
    grey = picture.mean(2, keepdims=True)
    if heat is not None:
        return _blended(grey, heat.detach().cpu().float().numpy())
    return picture if picture.shape[2] == 3 else grey.repeat(3, 2)


def _blended(grey: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """A grey picture [H,W,1] under the colours of a map [H,W]; it stays readable where the map is cold."""
    strength = 0.35 + 0.45 * values[..., None]
    blended: NDArray[Any] = (1 - strength) * grey + strength * plt.get_cmap(COLOURS)(values)[..., :3]
    return blended


# The bar beside a picture: the map's colours as they look on a medium grey.
SCALE = plt.cm.ScalarMappable(cmap=ListedColormap(_blended(np.full((1, 256, 1), 0.5), np.linspace(0, 1, 256)[None])[0]))


def overlay(axes: Axes, image: Tensor, heat: Tensor | None, boxes: Tensor | None = None, outline: Tensor | None = None) -> None:
    """Draw an image [3,H,W], over it a map [H,W] on the fixed scale 0..1, boxes (XYXY) and the outline of a mask [H,W]."""
    axes.imshow(blend(image, heat))
    for x0, y0, x1, y1 in [] if boxes is None else boxes.tolist():
        axes.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor="#39d6ff", linewidth=1.4))
    if outline is not None and outline.any():
        axes.contour(outline.cpu().float().numpy(), levels=[0.5], colors="#39d6ff", linewidths=1.2)
    axes.set_axis_off()


def grid(
    images: Tensor,
    maps: Mapping[str, Tensor],
    *,
    titles: Sequence[str] = (),
    boxes: Sequence[Tensor | None] = (),
    outlines: Sequence[Tensor | None] = (),
    side: float = 1.5,
) -> Figure:
    """Rows: images [B,3,H,W]. Columns: the image and each method's maps [B,H,W] in [0, 1]. One colour scale, ground truth drawn in.

    A key of ``maps`` is a method's name, which is written as people write it; further lines of a key stand below it.
    """
    rows, columns = len(images), len(maps) + 1
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns, side * rows + 0.5), squeeze=False, layout="constrained")
    for row, image in enumerate(images):
        box = boxes[row] if boxes else None
        outline = outlines[row] if outlines else None
        overlay(axes[row, 0], image, None, box, outline)
        if titles:
            axes[row, 0].set_title(titles[row], fontsize=7, loc="left")
        for column, heat in enumerate(maps.values(), start=1):
            overlay(axes[row, column], image, heat[row], box, outline)
    for column, name in enumerate(["", *maps]):
        if name:
            method, *below = name.split("\n")  # below: for example the network that the map is of
            axes[0, column].set_title("\n".join([written(method).replace(" (", "\n("), *below]), fontsize=8)
    figure.colorbar(
        SCALE,
        ax=axes,
        location="bottom",
        fraction=0.03,
        aspect=60,
        shrink=0.5,
        pad=0.01,
        label="map, 0 to 1, same scale everywhere",
    )
    return figure


def explained(picture: Tensor, heat: Tensor, title: Sequence[str]) -> Figure:
    """A picture [3,H,W] under its map [H,W] in its own shape, the lines of ``title`` above it and the colour bar beside it."""
    height, width = (6 * side / max(picture.shape) for side in picture.shape[-2:])  # inches
    whole = max(width + 0.75, 3.6)
    lines = [part for line in title for part in textwrap.wrap(line, int(12 * whole))]
    top = 0.1 + 0.19 * len(lines)
    left, total = 0.1, height + top + 0.1
    figure = Figure(figsize=(whole, total), dpi=150)
    overlay(figure.add_axes((left / whole, 0.1 / total, width / whole, height / total)), picture, heat)
    figure.text(left / whole, 1 - 0.05 / total, "\n".join(lines), fontsize=9, va="top", parse_math=False)
    bar = figure.add_axes(((left + width + 0.1) / whole, 0.1 / total, 0.12 / whole, height / total))
    figure.colorbar(SCALE, cax=bar, ticks=[0, 0.5, 1]).ax.tick_params(labelsize=7)
    return figure
