"""Drawn VOC2007: a countryside with several objects of six classes, near and far, hiding one another."""

import numpy as np

from data_scripts.backgrounds import Rng, grass, lit, sky, water
from data_scripts.drawing import Drawing, Drawn, Stream, canvas_shape
from data_scripts.paint import (
    Array,
    Pose,
    blob,
    blur,
    dots,
    ellipse,
    fill,
    hsv,
    near,
    noise,
    over,
    shade,
    smooth,
    solid,
    stripes,
    stroke,
)

CLASSES = ["balloon", "car", "house", "kite", "sheep", "tree"]
AIRBORNE = {"balloon", "kite"}
Color = tuple[float, float, float]


def scene(stream: Stream, source: int | None = None, target: int | None = None) -> Drawing:
    """Two to six objects, far ones first. With ``source`` and ``target``, objects of the one class are replaced by the other's in place."""
    layout = stream("layout", cue=True)
    shape = canvas_shape(layout)
    horizon = layout.uniform(0.35, 0.55)
    plan = _plan(layout, shape, horizon)
    pixels = _landscape(stream("background"), shape, horizon)
    covers: list[Array] = []
    labels = [target if target is not None and label == source else label for label, _ in plan]
    for number, (label, (_, pose)) in enumerate(zip(labels, plan, strict=True)):
        whole = np.zeros(shape, np.float32)
        part, local = near(pixels, pose, 1.5)
        ground = fill(local.moved(0, 0.8).place(ellipse(0, 0, 0.9, 0.2)), pixels[part].shape[:2])
        if horizon * shape[0] < pose.y + 0.8 * pose.scale:
            over(pixels[part], (0.03, 0.05, 0.03), 0.35 * blur(ground, pose.scale * 0.08))
        whole[part] = PAINTERS[CLASSES[label]](stream(f"object {number}", cue=True), pixels[part], local)
        covers = [cover * (1 - whole) for cover in covers] + [whole]
        plan[number] = (float(whole.sum()), pose)
    objects = [_drawn(label, cover, area) for label, cover, (area, _) in zip(labels, covers, plan, strict=True) if (cover >= 0.5).any()]
    return Drawing(pixels, -1, objects)


def _drawn(label: int, cover: Array, area: float) -> Drawn:
    mask = cover >= 0.5
    border = bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    return Drawn(label, mask, bool(mask.sum() < 130 or mask.sum() < 0.4 * area), border)


def _plan(layout: Rng, shape: tuple[int, int], horizon: float) -> list[tuple]:
    """(class, pose) of every object, from far to near; up to four classes, the nearest object is never small."""
    height, width = shape
    kinds = layout.choice(len(CLASSES), layout.integers(1, 5), replace=False)
    labels = [int(k) for k in kinds] + [int(k) for k in layout.choice(kinds, layout.integers(0, 3))]
    short, found = min(shape), []
    for rank, label in enumerate(labels):
        depth = layout.uniform(0.55, 1.0) if rank == 0 else layout.uniform(0.0, 1.0)
        scale = short * (0.085 + 0.2 * depth) * layout.uniform(0.85, 1.15)
        for _ in range(15):
            x = layout.uniform(0.5 * scale, width - 0.5 * scale)
            if CLASSES[label] in AIRBORNE:
                y = layout.uniform(0.8 * scale, max(0.9 * scale, height * (horizon + 0.1)))
            else:
                y = height * (horizon + 0.05 + (0.93 - horizon) * depth) - 0.75 * scale
            if all(np.hypot(x - p.x, y - p.y) > 0.75 * (scale + p.scale) for _, _, p in found):
                break
        found.append((depth, label, Pose(x, y, scale, layout.uniform(-0.08, 0.08), bool(layout.random() < 0.5))))
    return [(label, pose) for _, label, pose in sorted(found, key=lambda item: item[0])]


def _landscape(rng: Rng, shape: tuple[int, int], horizon: float) -> Array:
    height, width = shape
    line = int(horizon * height)
    pixels = sky(rng, shape)
    if rng.random() < 0.5:
        sun = fill(ellipse(rng.uniform(0, width), rng.uniform(0, line * 0.8), *[width * rng.uniform(0.03, 0.07)] * 2), shape)
        over(pixels, (1.0, 0.97, 0.8), np.maximum(sun, 0.6 * blur(sun, 5)))
    hue, rough = rng.uniform(0.2, 0.36), 0.8 + 0.4 * noise(rng, shape, 5, 4)
    for distance in (1.0, 0.5, 0.0):
        ridge = line - height * 0.13 * distance * (0.4 + 0.6 * np.sin(np.linspace(0, rng.uniform(3, 9), 24) + rng.uniform(0, 6)))
        across = np.linspace(-1, width + 1, 24)
        hill = fill(np.concatenate([np.stack([across, ridge], 1), [(width + 1, height), (-1, height)]]), shape)
        tone = np.asarray(hsv(hue + 0.14 * distance, 0.55 - 0.25 * distance, 0.5 + 0.16 * distance), np.float32)
        over(pixels, rough[..., None] * tone, hill)
    if rng.random() < 0.25:
        pond = fill(
            blob(rng, rng.uniform(0, width), rng.uniform(line + 15, height), height * rng.uniform(0.15, 0.3)) * [1, 0.45]
            + [0, 0.55 * (line + height) / 2 + 8],
            shape,
        )
        over(pixels, water(rng, shape), pond * (np.arange(height)[:, None] > line + 4))
    pixels = grass(rng, shape, pixels, hue, horizon + 0.08, 0.1).copy()
    for _ in range(rng.integers(0, 4)):
        _bush(rng, pixels, rng.uniform(0, width), rng.uniform(line + 5, height * 0.95), hue)
    if rng.random() < 0.35:
        _fence(rng, pixels, rng.uniform(line + 5, height * 0.85))
    return lit(rng, pixels)


def _bush(rng: Rng, pixels: Array, x: float, y: float, hue: float) -> None:
    for _ in range(4):
        ball = blob(rng, x + rng.normal(0, 6), y + rng.normal(0, 2.5), rng.uniform(4, 7.5), 0.25)
        solid(pixels, ball, hsv(hue + rng.normal(0, 0.03), 0.6, rng.uniform(0.25, 0.5)), 2.5)


def _fence(rng: Rng, pixels: Array, y: float) -> None:
    width, color, tall = pixels.shape[1], hsv(0.08, rng.uniform(0.05, 0.5), rng.uniform(0.5, 0.95)), rng.uniform(8, 13)
    for rail in (0.3, 0.7):
        over(pixels, shade(color, 0.85), stroke([(0, y - rail * tall), (width, y - rail * tall + 1)], 1.6, pixels.shape[:2]))
    for x in np.arange(rng.uniform(0, 10), width, rng.uniform(9, 15)):
        over(pixels, color, stroke([(x, y + 1), (x, y - tall)], 2.2, pixels.shape[:2]))


def _paints(rng: Rng, pixels: Array, pose: Pose, pieces: list[tuple], depth: float = 0.07) -> Array:
    """Paint (outline, colour [3] or [H,W,3]) pieces in order; returns their joint coverage."""
    radius = max(1.0, pose.scale * depth)
    return np.max([solid(pixels, pose.place(outline), color, radius, 0.4) for outline, color in pieces], 0)


def _bright(rng: Rng) -> Color:
    return hsv(rng.random(), rng.uniform(0.55, 0.9), rng.uniform(0.65, 0.95))


def _rect(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _house(rng: Rng, pixels: Array, pose: Pose) -> Array:
    wall, roof, door = (
        hsv(rng.uniform(0.02, 0.16), rng.uniform(0.05, 0.5), rng.uniform(0.75, 0.97)),
        hsv(rng.choice([0.02, 0.06, 0.58, 0.9]), rng.uniform(0.4, 0.75), rng.uniform(0.35, 0.7)),
        _bright(rng),
    )
    _, v = pose.local(pixels.shape[:2])
    bricks, tiles = np.full(pixels.shape, wall, np.float32), np.full(pixels.shape, roof, np.float32)
    over(bricks, shade(wall, 0.8), stripes(v, 0.16, pose.scale, 0.12))
    over(tiles, shade(roof, 0.7), stripes(v, 0.13, pose.scale, 0.25))
    glass = (0.3, 0.42, 0.52) if rng.random() < 0.6 else (0.98, 0.85, 0.5)
    pieces = [
        (_rect(0.38, -0.9, 0.58, -0.35), shade(roof, 0.75)),
        (_rect(-0.78, -0.2, 0.78, 0.85), bricks),
        ([(-0.98, -0.14), (-0.45, -0.8), (0.45, -0.8), (0.98, -0.14)], tiles),
        (_rect(-0.14, 0.25, 0.2, 0.85), door),
    ]
    for x in (-0.52, 0.52):
        pieces += [(_rect(x - 0.19, 0.08, x + 0.19, 0.46), (0.96, 0.95, 0.92)), (_rect(x - 0.14, 0.13, x + 0.14, 0.41), glass)]
    return _paints(rng, pixels, pose, pieces, 0.03)


def _tree(rng: Rng, pixels: Array, pose: Pose) -> Array:
    hue = rng.choice([0.27, 0.33, 0.38, 0.08, 0.13]) + rng.normal(0, 0.02)
    leaf, bark = hsv(hue, rng.uniform(0.5, 0.75), rng.uniform(0.4, 0.65)), hsv(0.07, 0.5, rng.uniform(0.28, 0.45))
    pieces: list[tuple] = [([(-0.12, 0), (0.12, 0), (0.18, 0.86), (-0.18, 0.86)], bark)]
    if rng.random() < 0.4:
        pieces += [
            ([(-0.66 + 0.13 * k, 0.48 - 0.38 * k), (0, -0.26 - 0.34 * k), (0.66 - 0.13 * k, 0.48 - 0.38 * k)], shade(leaf, 0.75 + 0.13 * k))
            for k in range(3)
        ]
    else:
        for k in range(6):
            x, y = 0.42 * np.cos(2.4 * k + 0.5), -0.32 + 0.3 * np.sin(2.4 * k + 0.5)
            pieces.append((blob(rng, x, y, rng.uniform(0.36, 0.46), 0.14), shade(leaf, 0.72 + 0.08 * k)))
    return _paints(rng, pixels, pose, pieces, 0.12)


def _car(rng: Rng, pixels: Array, pose: Pose) -> Array:
    paint, glass, dark = _bright(rng), (0.62, 0.78, 0.86), (0.09, 0.09, 0.1)
    pieces: list[tuple] = [
        (smooth([(-0.6, 0.18), (-0.42, -0.28), (0.22, -0.3), (0.52, 0.14)]), shade(paint, 0.9)),
        ([(-0.46, 0.1), (-0.36, -0.17), (-0.08, -0.18), (-0.08, 0.1)], glass),
        ([(0.0, 0.1), (0.0, -0.18), (0.18, -0.18), (0.38, 0.1)], glass),
        (smooth([(-1.0, 0.3), (-0.9, 0.1), (0, 0.08), (0.8, 0.14), (1.02, 0.3), (0.98, 0.58), (0, 0.64), (-0.98, 0.58)]), paint),
        (ellipse(0.93, 0.32, 0.07, 0.07), (1.0, 0.95, 0.7)),
    ]
    for x in (-0.55, 0.55):
        pieces += [(ellipse(x, 0.6, 0.25, 0.25), dark), (ellipse(x, 0.6, 0.12, 0.12), (0.75, 0.76, 0.78))]
    return _paints(rng, pixels, pose, pieces)


def _balloon(rng: Rng, pixels: Array, pose: Pose) -> Array:
    first, second = _bright(rng), _bright(rng) if rng.random() < 0.6 else (0.96, 0.95, 0.9)
    u, v = pose.local(pixels.shape[:2])
    gores = u / np.sqrt(np.clip(1 - ((v + 0.3) / 0.9) ** 2, 0.15, 1))
    cloth = np.full(pixels.shape, first, np.float32)
    over(
        cloth,
        second,
        stripes(gores, 0.5, pose.scale, 0.5, rng.random()) if rng.random() < 0.6 else stripes(v, 0.55, pose.scale, 0.5, rng.random()),
    )
    rope = (0.25, 0.2, 0.15)
    pieces = [
        ([(-0.2, 0.4), (-0.17, 0.4), (-0.1, 0.78), (-0.13, 0.78)], rope),
        ([(0.17, 0.4), (0.2, 0.4), (0.13, 0.78), (0.1, 0.78)], rope),
        (_rect(-0.16, 0.72, 0.16, 0.96), hsv(0.08, 0.55, 0.5)),
        (smooth([(-0.2, 0.48), (-0.62, 0.05), (-0.7, -0.45), (-0.36, -0.9), (0.36, -0.9), (0.7, -0.45), (0.62, 0.05), (0.2, 0.48)]), cloth),
    ]
    return _paints(rng, pixels, pose, pieces, 0.2)


def _sheep(rng: Rng, pixels: Array, pose: Pose) -> Array:
    wool, dark = hsv(0.1, rng.uniform(0.02, 0.12), rng.uniform(0.85, 0.98)), hsv(0.07, 0.3, rng.uniform(0.1, 0.25))
    if rng.random() < 0.15:
        wool, dark = (0.2, 0.17, 0.16), (0.1, 0.09, 0.09)
    pieces: list[tuple] = [(_rect(x - 0.06, 0.3, x + 0.06, 0.84), dark) for x in (-0.42, -0.22, 0.24, 0.44)]
    for k in range(9):
        x, y = 0.5 * np.cos(2.4 * k), 0.05 + 0.24 * np.sin(2.4 * k)
        pieces.append((ellipse(x, y, 0.29, 0.27), shade(wool, 0.93 + 0.01 * k)))
    pieces += [
        (ellipse(0, 0.05, 0.5, 0.38), wool),
        (ellipse(0.76, -0.12, 0.25, 0.18, 0.5), dark),
        (ellipse(0.56, -0.2, 0.14, 0.06, 0.3), dark),
        (ellipse(0.78, -0.17, 0.045, 0.045), (0.95, 0.95, 0.9)),
    ]
    return _paints(rng, pixels, pose, pieces)


def _kite(rng: Rng, pixels: Array, pose: Pose) -> Array:
    first, second, shape = _bright(rng), _bright(rng), pixels.shape[:2]
    turned = pose.moved(0.1, -0.15, 1.0, rng.uniform(0.2, 0.7))
    tail = [(0.0, 0.6), (-0.14, 0.78), (0.08, 0.94), (-0.08, 1.12), (0.05, 1.28)]
    line = stroke(turned.place(tail), max(1.2, pose.scale * 0.035), shape)
    over(pixels, (0.25, 0.22, 0.2), line)
    covers = [line]
    for x, y in tail[1:]:
        bow = [(x, y), (x - 0.14, y - 0.07), (x - 0.14, y + 0.07), (x, y), (x + 0.14, y - 0.07), (x + 0.14, y + 0.07)]
        covers.append(fill(turned.place(bow), shape))
        over(pixels, second, covers[-1])
    u, v = turned.local(shape)
    cloth = np.full(pixels.shape, first, np.float32)
    over(cloth, second, ((u > 0) ^ (v > -0.2)).astype(np.float32) if rng.random() < 0.6 else dots(u, v, 0.3, pose.scale, 0.4))
    covers.append(_paints(rng, pixels, turned, [([(0, -0.85), (0.55, -0.2), (0, 0.65), (-0.55, -0.2)], cloth)], 0.12))
    for ends in ([(0, -0.85), (0, 0.65)], [(-0.55, -0.2), (0.55, -0.2)]):
        over(pixels, (0.3, 0.22, 0.15), stroke(turned.place(ends), max(1.0, pose.scale * 0.03), shape) * covers[-1])
    return np.max(covers, 0)


PAINTERS = {"balloon": _balloon, "car": _car, "house": _house, "kite": _kite, "sheep": _sheep, "tree": _tree}
