"""Drawn ImageNet: four creatures times two patterns. Shape *and* pattern make the class; colour, place, size, background do not."""

from collections.abc import Callable

import numpy as np

from data_scripts.backgrounds import Rng, background, distractor
from data_scripts.drawing import Drawing, Drawn, Stream, canvas_shape
from data_scripts.paint import (
    Array,
    Color,
    Points,
    Pose,
    band,
    blur,
    dots,
    ellipse,
    fill,
    hsv,
    near,
    noise,
    over,
    relief,
    shade,
    smooth,
    solid,
    stripes,
)

SHAPES = ("fish", "butterfly", "mushroom", "beetle")
BLACK = (0.12, 0.1, 0.11)
Painter = Callable[..., Array]
PATTERNS = ("striped", "spotted")
CLASSES = [f"{pattern} {shape}" for shape in SHAPES for pattern in PATTERNS]


def scene(stream: Stream, label: int, target: int | None = None) -> Drawing:
    """One or (in every seventh image) two creatures of a class over a textured ground with distractors.

    With ``target`` the creatures are those of another class, in the same pose, colours, light and surroundings.
    """
    layout = stream("layout", cue=True)
    shape = canvas_shape(layout)
    short = min(shape)
    poses = _poses(layout, shape, short)
    around = stream("background")
    pixels = background(around, shape)
    for _ in range(around.integers(3, 8)):
        radius = short * around.uniform(0.07, 0.18)
        distractor(around, pixels, around.uniform(0, shape[1]), around.uniform(0, shape[0]), radius)
    label = label if target is None else target
    objects = []
    for number, pose in enumerate(poses):
        over(pixels, (0.02, 0.02, 0.03), 0.4 * blur(fill(pose.moved(0.12, 0.16).place(ellipse(0, 0, 0.8, 0.6)), shape), short * 0.03))
        rng = stream(f"creature {number}", cue=True)
        objects.append(Drawn(label, paint_creature(rng, pixels, pose, label) >= 0.5))
    return Drawing(pixels, label, objects)


def _poses(layout: Rng, shape: tuple[int, int], short: int) -> list[Pose]:
    """Poses that stay inside the canvas; a second one keeps clear of the first."""
    height, width = shape
    poses: list[Pose] = []
    double = layout.random() < 1 / 7
    for _ in range(2 if double else 1):
        for _ in range(20):
            scale = short * (layout.uniform(0.18, 0.25) if double else layout.uniform(0.2, 0.4))
            x, y = layout.uniform(scale, width - scale), layout.uniform(scale, height - scale)
            turn, flip = layout.uniform(-0.6, 0.6), bool(layout.random() < 0.5)
            if all(np.hypot(x - p.x, y - p.y) > scale + p.scale for p in poses):
                poses.append(Pose(x, y, scale, turn, flip, layout.uniform(0.9, 1.1)))
                break
    return poses


def paint_creature(rng: Rng, pixels: Array, pose: Pose, label: int) -> Array:
    """Paint the creature of a class and return its coverage [H,W]."""
    coverage = np.zeros(pixels.shape[:2], np.float32)
    part, pose = near(pixels, pose, 1.3)
    pixels = pixels[part]
    hue = rng.random()
    dark = rng.random() < 0.5
    base = hsv(hue, rng.uniform(0.45, 0.8), rng.uniform(0.75, 0.95))
    mark = hsv(hue + rng.uniform(0.3, 0.7), rng.uniform(0.5, 0.9), 0.3) if dark else hsv(rng.random(), rng.uniform(0.05, 0.25), 0.97)
    shape, pattern = SHAPES[label // 2], PATTERNS[label % 2]
    phase, period = rng.random(), rng.uniform(0.3, 0.38)

    def patterned(*outlines: Points) -> Array:
        area = np.max([fill(pose.place(outline), pixels.shape[:2]) for outline in outlines], 0)
        u, v = pose.local(area.shape)
        bend = 0.08 * np.sin(5 * v + 6 * phase)
        cover = stripes(u + bend, period, pose.scale, 0.45, phase) if pattern == "striped" else dots(u, v, period, pose.scale, 0.45, phase)
        body = (0.9 + 0.2 * noise(rng, area.shape, 6, 3))[..., None] * np.asarray(base, np.float32)
        over(body, mark, cover)
        over(pixels, body, area, relief(area, pose.scale * 0.16))
        return area

    def plain(outline: Points, color: tuple[float, float, float], depth: float = 0.08) -> Array:
        return solid(pixels, pose.place(outline), color, max(1.0, pose.scale * depth))

    painted = {"fish": _fish, "butterfly": _butterfly, "mushroom": _mushroom, "beetle": _beetle}[shape](patterned, plain, base)
    coverage[part] = np.max(painted, 0)
    return coverage


def _fish(patterned: Painter, plain: Painter, base: Color) -> list[Array]:
    fin = shade(base, 0.7)
    painted = [
        plain(smooth([(-0.45, 0), (-0.98, -0.48), (-0.84, 0), (-0.98, 0.48)]), fin),
        plain(smooth([(0.4, -0.3), (0.15, -0.66), (-0.3, -0.6), (-0.38, -0.25)]), fin),
        plain(smooth([(0.1, 0.3), (-0.15, 0.62), (-0.32, 0.55), (-0.2, 0.28)]), fin),
        patterned(smooth([(0.97, 0.04), (0.55, -0.36), (0.0, -0.46), (-0.48, -0.14), (-0.48, 0.14), (0.0, 0.46), (0.55, 0.38)])),
    ]
    plain(smooth([(0.2, 0.05), (-0.12, 0.0), (-0.2, 0.22), (0.08, 0.24)]), shade(base, 0.75))
    plain(ellipse(0.66, -0.1, 0.12, 0.12), (0.97, 0.97, 0.94), 0.02)
    plain(ellipse(0.68, -0.1, 0.07, 0.07), (0.06, 0.05, 0.08), 0.02)
    return painted


def _butterfly(patterned: Painter, plain: Painter, base: Color) -> list[Array]:
    upper = [(0.03, -0.05), (0.3, -0.62), (0.82, -0.82), (0.98, -0.45), (0.62, -0.02), (0.2, 0.06)]
    lower = [(0.03, 0.02), (0.4, 0.02), (0.76, 0.3), (0.66, 0.72), (0.34, 0.72), (0.1, 0.34)]
    wings = patterned(*(smooth([(side * x, y) for x, y in outline]) for side in (-1, 1) for outline in (upper, lower)))
    feelers = [plain(band([(0, -0.35), (side * 0.14, -0.65), (side * 0.3, -0.85)], 0.06), BLACK) for side in (-1, 1)]
    return [wings, *feelers, plain(ellipse(0, 0.08, 0.07, 0.5), BLACK, 0.04)]


def _mushroom(patterned: Painter, plain: Painter, base: Color) -> list[Array]:
    return [
        plain(smooth([(-0.2, -0.1), (0.2, -0.1), (0.2, 0.5), (0.34, 0.92), (-0.34, 0.92), (-0.2, 0.5)]), (0.93, 0.88, 0.78), 0.12),
        plain(smooth([(-0.9, 0.02), (0, -0.12), (0.9, 0.02), (0.4, 0.18), (-0.4, 0.18)]), (0.8, 0.72, 0.6)),
        patterned(smooth([(-0.98, 0.02), (-0.8, -0.5), (-0.3, -0.82), (0.3, -0.82), (0.8, -0.5), (0.98, 0.02), (0.45, 0.1), (-0.45, 0.1)])),
    ]


def _beetle(patterned: Painter, plain: Painter, base: Color) -> list[Array]:
    legs = ((-0.3, -0.5, -0.72), (0.1, 0.05, 0.2), (0.4, 0.55, 0.85))
    painted = [
        plain(band([(side * 0.35, root), (side * 0.72, knee), (side * 0.86, foot)], 0.1, 0.06), BLACK, 0.05)
        for side in (-1, 1)
        for root, knee, foot in legs
    ]
    painted.append(plain(ellipse(0, -0.66, 0.34, 0.28), BLACK, 0.05))
    half = [(0, -0.56), (0.42, -0.42), (0.62, 0.1), (0.42, 0.7), (0, 0.95)]
    painted.append(patterned(smooth([*half, *((-x, y) for x, y in half[3:0:-1])])))
    plain(band([(0, -0.5), (0, 0.2), (0, 0.92)], 0.05), BLACK)
    return painted
