"""Pictures: heat maps laid over images, grids of method x image, intervals side by side."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from cam_core import maps as map_ops
from cam_core.methods import Method, is_control
from cam_core.probe import Probe

COLOURS = "inferno"


def blend(image: Tensor, heat: Tensor | None = None) -> NDArray[Any]:
    """An image [3,H,W] in [0, 1] as pixels [H,W,3]; grey under the colours of a map [H,W] on the fixed scale 0..1, if there is one."""
    picture: NDArray[Any] = image.permute(1, 2, 0).cpu().numpy()
    return picture if heat is None else _blended(picture.mean(2, keepdims=True), heat.detach().cpu().float().numpy())


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
    """Rows: images [B,3,H,W]. Columns: the image and each method's maps [B,H,W] in [0, 1]. One colour scale, ground truth drawn in."""
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
            axes[0, column].set_title(name.replace("[", "\n["), fontsize=8)
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


def mistakes(probe: Probe, labels: Tensor, count: int | None = None) -> Tensor:
    """The images [n] of a probe whose prediction is not their label [B], the surest mistakes first."""
    said = probe.logits.argmax(1)
    wrong = (said != labels.to(said)).nonzero()[:, 0]
    sure = probe.probabilities[wrong, said[wrong]]
    return wrong[sure.argsort(descending=True, stable=True)][:count]


def errors(
    probe: Probe,
    labels: Tensor,
    methods: Sequence[Method],
    names: Sequence[str],
    *,
    count: int = 6,
    boxes: Sequence[Tensor | None] = (),
    outlines: Sequence[Tensor | None] = (),
) -> Figure:
    """Error analysis: the surest mistakes of a probe, and what each method says of the predicted and of the true class, side by side.

    ``labels`` [B] are the true classes, ``names`` those of all classes. ``boxes`` and ``outlines``, one an image of the probe, are the
    ground truth drawn in. ValueError if nothing was mistaken.
    """
    index = mistakes(probe, labels, count)
    if not len(index):
        raise ValueError(f"all {len(labels)} images were classified right: there is no error to look at, show more images")
    said, true = probe.logits.argmax(1)[index], labels.to(probe.logits.device)[index]
    shown = {}
    for one in methods:
        for what, classes in (("predicted", said), ("true", true)):
            heat = one(probe.pairs(index, classes))
            shown[f"{one.name}\n{what} class"] = heat if one.finished else map_ops.upsample(map_ops.min_max(heat), probe.images.shape[-2:])
    sure = 100 * probe.probabilities[index, said]
    titles = [f"{names[s]}, {p:.0f} %\nis {names[t]}" for s, t, p in zip(said.tolist(), true.tolist(), sure.tolist(), strict=True)]
    chosen = [[of[i] for i in index.tolist()] if of else [] for of in (boxes, outlines)]
    return grid(probe.images[index], shown, titles=titles, boxes=chosen[0], outlines=chosen[1])


def table(records: pd.DataFrame, metrics: Sequence[str], first: int | None = None) -> pd.DataFrame:
    """Method x (metric, setting) with "value [low, high]" in the cells, explanations first and controls after them; n is the last column.

    ``first`` picks the rows on the first so many images of the list, which every method has.
    """
    ending = "" if first is None else f"first {first}"
    rows = records[records["metric"].isin(metrics) & (records["setting"].str.contains("first ") == bool(ending))]
    rows = rows[rows["setting"].str.endswith(ending)]
    settings = rows["setting"].str.removesuffix(ending).str.strip()
    cells = [
        f"{v:.1f}" + (f" [{lo:.1f}, {hi:.1f}]" if np.isfinite(lo) else "")
        for v, lo, hi in zip(rows["value"], rows["ci_low"], rows["ci_high"], strict=True)
    ]
    wide = rows.assign(cell=cells, column=(rows["metric"].str.replace("_", " ") + " " + settings).str.strip())
    order = sorted(dict.fromkeys(rows["method"]), key=lambda name: (is_control(name), list(rows["method"]).index(name)))
    columns = list(dict.fromkeys(wide.sort_values("metric", key=lambda m: m.map(list(metrics).index), kind="stable")["column"]))
    out = wide.set_index(["method", "column"])["cell"].unstack().loc[order, columns].fillna("not run")  # noqa: PD010
    return out.assign(n=rows.groupby("method")["n"].max()).rename_axis(columns=None)


def card(facts: Mapping[str, object]) -> pd.DataFrame:
    """A run's facts as a table of two columns."""
    return pd.DataFrame({"": [str(value) for value in facts.values()]}, index=pd.Index(list(facts), name="run card"))


def intervals(records: pd.DataFrame, metric: str, *, setting: str = "", published: Mapping[str, float] | None = None) -> Figure:
    """One line a method: value, 95 % interval, and the published number where there is one. Controls are drawn hollow and grey."""
    chosen = records[(records["metric"] == metric) & (records["setting"] == setting)].sort_values("value", ascending=False)
    figure, axes = plt.subplots(figsize=(6.4, 0.28 * len(chosen) + 0.9), layout="constrained")
    colour = sns.color_palette("colorblind")[0]
    columns = (chosen[name].tolist() for name in ("method", "value", "ci_low", "ci_high"))
    for y, (method, value, low, high) in enumerate(zip(*columns, strict=True)):
        tint: str | tuple[float, float, float] = "0.55" if is_control(method) else colour
        axes.plot([low, high], [y, y], color=tint, linewidth=2, solid_capstyle="round")
        axes.plot([value], [y], "o", color=tint, markerfacecolor="white" if is_control(method) else tint, zorder=3)
        if published and method in published:
            axes.plot([published[method]], [y], "|", color="black", markersize=12, markeredgewidth=1.6)
    axes.set_yticks(range(len(chosen)), chosen["method"])
    axes.set_xlabel(f"{metric.replace('_', ' ')} {setting}".strip())
    sns.despine(figure)
    return figure


def curves(histories: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Training curves: one line a model, a point an epoch."""
    figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    for name, values in histories.items():
        axes.plot(np.arange(1, len(values) + 1), values, marker="o", markersize=3, label=name)
    axes.set(xlabel="epoch", ylabel=label)
    axes.legend(frameon=False, fontsize=8)
    sns.despine(figure)
    return figure
