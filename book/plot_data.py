"""The figures of the page on data: the drawn sets with their ground truth, and how hard they are."""

import re

import numpy as np
from cells import list_table, rows_link
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from plots import GREY, ORANGE, TEAL, WIDTH, WINE, figure, folded, is_narrow

from data_scripts import birds, creatures, draw, village
from data_scripts.get.command import OTHERS
from data_scripts.get.sets import OFFICIAL

KINDS = {  # kind -> its words, the names of its classes, and the first test images
    "imagenet": ("drawn_imagenet: boxes", creatures.CLASSES, [f"ILSVRC2012_val_{number:08}" for number in range(1, 7)]),
    "voc": ("drawn_voc: boxes, dashed where difficult", village.CLASSES, [f"{number:06}" for number in range(50_001, 50_007)]),
    "cub": ("drawn_cub: outline, parts (dots), and the cue against another class", birds.CLASSES, [f"{n}" for n in range(50_001, 50_007)]),
}


def sheet(options):
    """The first six test images of each drawn set, the ground truth drawn in."""

    def draw_in(into, theme):
        rows = into.subfigures(3, 1)
        for part, (kind, (words, names, ids)) in zip(rows, KINDS.items(), strict=True):
            part.suptitle(folded(into, [words], 46)[0], x=0.01, ha="left", fontsize=9, color=theme.text)
            shape = (2, len(ids) // 2) if is_narrow(into) else (1, len(ids))
            for axes, image_id in zip(part.subplots(*shape).flat, ids, strict=True):
                _show(axes, kind, image_id, names)

    return figure(
        options, "data-sheet", draw_in, size=(WIDTH, 5.6), phone=10,
        question="What do the drawn images look like, and what is known of them?",
        answer="The first six test images of each set. Orange: boxes and outlines; teal: visible parts; wine: the pixels in which a bird's "
        "class differs from the class named last, which are the only ones that tell the two apart.",
        alt="Three rows of six drawn images: creatures with a box each, village scenes with several boxes, birds with outline, parts, cue.",
    )  # fmt: skip


def _show(axes, kind, image_id, names):
    scene = draw.scene(kind, image_id)
    height, width = scene.image.shape[:2]
    small = Image.fromarray(scene.image).reduce(2)
    axes.imshow(small, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    axes.set(xticks=[], yticks=[])
    title = names[scene.label] if scene.label >= 0 else ", ".join(dict.fromkeys(names[thing.label] for thing in scene.objects))
    if kind == "cub":
        other = (scene.label + 1) % len(names)
        axes.contour(scene.objects[0].mask, [0.5], colors=ORANGE, linewidths=0.9)
        axes.contour(draw.cue_mask(kind, image_id, other), [0.5], colors=WINE, linewidths=0.9)
        seen = scene.points[scene.points[:, 2] > 0]
        axes.scatter(*seen[:, :2].T, s=4, color=TEAL)
        title += f"\nnot {names[other]}"
    else:
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            style = "--" if thing.difficult else "-"
            axes.add_patch(Rectangle((x0, y0), x1 + 1 - x0, y1 + 1 - y0, fill=False, edgecolor=ORANGE, linewidth=1.1, linestyle=style))
    axes.set_title(title, fontsize=6, fontweight="normal")


def difficulty(options, evidence):
    """How much of a map's energy lies in the boxes: of a centre Gaussian and of Grad-CAM, by drawn set; mean over seeds."""
    rows = evidence[(evidence["paper"] == "increment_cam") & (evidence["metric"] == "energy_pointing_game") & (evidence["setting"] == "")]
    rows = rows[rows["backbone"].eq("resnet8") & rows["dataset"].str.startswith("drawn_")]
    mean = rows.groupby(["dataset", "method"])["value"].mean().unstack()[["center_gaussian", "grad_cam"]]
    mean = mean.loc[["drawn_imagenet", "drawn_voc", "drawn_cub"]]

    def draw_in(into, theme):
        axes, places = into.subplots(), np.arange(len(mean))[::-1]
        axes.hlines(places, mean["center_gaussian"], mean["grad_cam"], color=theme.text, linewidth=0.8)
        axes.plot(mean["center_gaussian"], places, "o", color=GREY, markerfacecolor=theme.paper)
        axes.plot(mean["grad_cam"], places, "o", color=TEAL)
        axes.set_yticks(places, mean.index)
        axes.set(xlim=(0, 100), ylim=(-0.6, len(mean) - 0.4), xlabel="energy in the boxes, %")
        marks = [Line2D([], [], marker="o", ls="", color=colour, label=words) for colour, words in ((GREY, "centre"), (TEAL, "Grad-CAM"))]
        into.legend(handles=marks, loc="outside upper right", ncols=2, frameon=False)

    told = "; ".join(f"{name} {row.grad_cam:.0f} % beside {row.center_gaussian:.0f} %" for name, row in mean.iterrows())
    return figure(
        options, "data-difficulty", draw_in, size=(WIDTH, 1.9), question="How hard are the drawn sets?",
        answer=f"Share of the map's energy in the boxes, Grad-CAM beside a Gaussian in the centre: {told}. ResNet-8, mean "
        "over the seeds. In this network Grad-CAM is CAM without its negative values.",
        alt="Two dots for each drawn set: the centre Gaussian's energy in the boxes, and Grad-CAM's, which lies higher.",
        rows=rows_link("values", paper="increment_cam", dataset=mean.index, backbone="resnet8", metric="energy_pointing_game", method=mean),
    )  # fmt: skip


def sets(_):
    """What `python -m data_scripts get` fetches, as its own help says it."""
    official = [[f"`{key}`", f"{of.about}; {of.bytes / 1e6:,.0f} MB; {of.licence}"] for key, of in OFFICIAL.items()]
    others = [[f"`{key}`", re.sub(r"--\w+", r"`\g<0>`", about.partition(";\n")[0])] for key, about in OTHERS.items()]
    return list_table(["name", "what it is; size; licence"], [*official, *others], kind="prose", widths="20 80")
