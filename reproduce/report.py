"""What the notebooks show of what they measured: tables, intervals, training curves, mistakes of the network."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from torch import Tensor

from cam_core import figures, maps
from cam_core.methods import Method, is_control
from cam_core.methods.method import written
from cam_core.probe import Probe
from reproduce.results import number


def mistakes(probe: Probe, labels: Tensor, count: int | None = None) -> Tensor:
    """The images [n] of a probe whose prediction is not their label [B], the most confident mistakes first."""
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
    """Error analysis: the most confident mistakes of a probe, with each method's maps of the predicted and of the true class side by side.

    ``labels`` [B] are the true classes, ``names`` those of all classes. ``boxes`` and ``outlines``, one per image of the probe, are the
    ground truth to draw. ValueError if there is no mistake.
    """
    index = mistakes(probe, labels, count)
    if not len(index):
        raise ValueError(f"all {len(labels)} images were classified right: there is no error to look at, show more images")
    said, true = probe.logits.argmax(1)[index], labels.to(probe.logits.device)[index]
    shown = {}
    for one in methods:
        for what, classes in (("predicted", said), ("true", true)):
            heat = one(probe.pairs(index, classes))
            shown[f"{one.name}\n{what} class"] = heat if one.finished else maps.upsample(maps.min_max(heat), probe.images.shape[-2:])
    sure = 100 * probe.probabilities[index, said]
    titles = [f"{names[s]}, {p:.0f} %\nis {names[t]}" for s, t, p in zip(said.tolist(), true.tolist(), sure.tolist(), strict=True)]
    chosen = [[of[i] for i in index.tolist()] if of else [] for of in (boxes, outlines)]
    return figures.grid(probe.images[index], shown, titles=titles, boxes=chosen[0], outlines=chosen[1])


def finished(raw: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    """Raw maps [B,h,w] by name as the pictures show them: min-max, then bilinear to the size of ``images`` [B,3,H,W]."""
    return {name: maps.upsample(maps.min_max(heat), images.shape[-2:]) for name, heat in raw.items()}


def rounded(frame: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """The frame with its numbers as text of so many ``digits``; whole numbers stay."""
    whole = (int, np.integer, str)
    return frame.map(lambda value: value if isinstance(value, whole) else "–" if pd.isna(value) else number(value, digits))


def table(records: pd.DataFrame, metrics: Sequence[str], first: int | None = None) -> pd.DataFrame:
    """Method x (metric, setting) with "value [low, high]" in the cells, explanations first and controls after them; n is the last column.

    ``first`` selects the rows on the first so many images of the list, which every method has.
    """
    ending = "" if first is None else f"first {first}"
    rows = records[records["metric"].isin(metrics) & (records["setting"].str.contains("first ") == bool(ending))]
    rows = rows[rows["setting"].str.endswith(ending)]
    settings = rows["setting"].str.removesuffix(ending).str.strip()
    cells = [
        number(v) + (f" [{number(lo)}, {number(hi)}]" if np.isfinite(lo) else "")
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
    """One line per method: value, 95 % interval, and the published number if there is one. Controls are drawn hollow and grey."""
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
    axes.set_yticks(range(len(chosen)), chosen["method"].map(written))
    axes.set_xlabel(f"{metric.replace('_', ' ')} {setting}".strip())
    sns.despine(figure)
    return figure


def curves(summaries: Mapping[str, Mapping[str, Any]], what: str, label: str) -> Figure:
    """Training curves: ``what`` of each epoch ("loss", "accuracy"), one line a model."""
    figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    for name, summary in summaries.items():
        values = [epoch[what] for epoch in summary["history"]]
        axes.plot(np.arange(1, len(values) + 1), values, marker="o", markersize=3, label=written(name))
    axes.set(xlabel="epoch", ylabel=label)
    axes.legend(frameon=False, fontsize=8)
    sns.despine(figure)
    return figure
