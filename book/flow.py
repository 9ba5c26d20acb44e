"""The diagram of a network: boxes with what flows between them."""

from matplotlib.patches import FancyBboxPatch
from plots import WINE, is_narrow

HIGH, HIGHER = 0.24, 0.3  # half the height of a box, in units of one column; on a phone


def flow(into, boxes, arrows, theme, *, own=(), wide=0.36):
    """Draw ``boxes`` (name: (x, y, words), in units of one box) and ``arrows`` (from, to); on a phone from top to bottom.

    ``own``: the boxes that the paper adds; ``wide``: half of their width.
    """
    axes, narrow = into.subplots(), is_narrow(into)
    high = HIGHER if narrow else HIGH
    if narrow:
        boxes, wide = {key: (y, x, words) for key, (x, y, words) in boxes.items()}, 0.4
    across, down = zip(*((x, y) for x, y, _ in boxes.values()), strict=True)
    axes.set(xlim=(min(across) - 0.1 - wide, max(across) + 0.1 + wide), ylim=(max(down) + 0.5, min(down) - 0.5))
    axes.set_axis_off()
    for key, (x, y, words) in boxes.items():
        edge = WINE if key in own else theme.text
        half = wide if key in own or narrow else 0.36
        outline = {"boxstyle": "round,pad=0.02", "fc": theme.paper, "ec": edge, "lw": 1.8 if key in own else 1}
        axes.add_patch(FancyBboxPatch((x - half, y - high), 2 * half, 2 * high, **outline))
        axes.text(x, y, words, ha="center", va="center", fontsize=8.5, linespacing=1.5)
    for start, end in arrows:
        (x0, y0, _), (x1, y1, _) = boxes[start], boxes[end]
        half = [wide if key in own or narrow else 0.36 for key in (start, end)]
        tail, head = _ends(x0, y0, x1, y1, *half, turned=narrow)
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": theme.text, "lw": 1})


def _ends(x0, y0, x1, y1, half0, half1, *, turned):
    """Where an arrow leaves one box and meets the next: at their sides if they stand in other columns, else above and below.

    ``turned``: the way goes from top to bottom, and so from below one box to above the next if they stand in other lines.
    """
    if x0 == x1 or (turned and y0 != y1):
        step = (HIGHER if turned else HIGH) + 0.03
        step = step if y1 > y0 else -step
        return (x0, y0 + step), (x1, y1 - step)
    side = 1 if x1 > x0 else -1
    return (x0 + side * (half0 + 0.03), y0), (x1 - side * (half1 + 0.03), y1)
