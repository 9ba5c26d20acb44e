"""The diagram of a network: boxes with what flows between them."""

from matplotlib.patches import FancyBboxPatch
from plots import WINE


def flow(axes, boxes, arrows, theme, *, own=(), wide=0.36):
    """Draw ``boxes`` (name: (x, y, words), in units of one box) and ``arrows`` (from, to, words).

    ``own``: the boxes that the paper adds; ``wide``: half of their width.
    """
    across, down = zip(*((x, y) for x, y, _ in boxes.values()), strict=True)
    axes.set(xlim=(min(across) - 0.5, max(across) + 0.5), ylim=(max(down) + 0.5, min(down) - 0.5))
    axes.set_axis_off()
    for key, (x, y, words) in boxes.items():
        edge = WINE if key in own else theme.text
        half = wide if key in own else 0.36
        outline = {"boxstyle": "round,pad=0.02", "fc": theme.paper, "ec": edge, "lw": 1.8 if key in own else 1}
        axes.add_patch(FancyBboxPatch((x - half, y - 0.24), 2 * half, 0.48, **outline))
        axes.text(x, y, words, ha="center", va="center", fontsize=8.5, linespacing=1.5)
    for start, end, words in arrows:
        (x0, y0, _), (x1, y1, _) = boxes[start], boxes[end]
        tail, head = _ends(x0, y0, x1, y1)
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": theme.text, "lw": 1})
        axes.text((tail[0] + head[0]) / 2, (tail[1] + head[1]) / 2 - 0.06, words, ha="center", va="bottom", fontsize=8)


def _ends(x0, y0, x1, y1):
    """Where an arrow leaves one box and meets the next: at the sides of boxes in other columns, else above and below."""
    if x0 == x1:
        step = 0.27 if y1 > y0 else -0.27
        return (x0, y0 + step), (x1, y1 - step)
    step = 0.39 if x1 > x0 else -0.39
    return (x0 + step, y0), (x1 - step, y1)
