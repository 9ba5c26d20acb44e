"""Backgrounds and distractors of the drawn images: textures that hold stripes, spots, edges and bright colours, but no class."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from data_scripts.paint import (
    Array,
    Color,
    Pose,
    blob,
    dots,
    ellipse,
    fill,
    hsv,
    hsv_rows,
    near,
    noise,
    over,
    ramp,
    relief,
    shade,
    smooth,
    solid,
    stripes,
    stroke,
)

Rng = np.random.Generator
Shape = tuple[int, int]


LEAF = smooth([(-1, 0), (-0.35, -0.36), (0.4, -0.26), (1, 0), (0.4, 0.26), (-0.35, 0.36)], 4)


def background(rng: Rng, shape: Shape) -> Array:
    """One of the textures below with uneven light, a vignette and a little grain."""
    texture = TEXTURES[rng.integers(len(TEXTURES))]
    return lit(rng, np.ascontiguousarray(texture(rng, shape), dtype=np.float32))


def lit(rng: Rng, pixels: Array) -> Array:
    """Slope of light from one side, darker corners, grain."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = 1 + np.float32(rng.uniform(-0.1, 0.1)) * x - 0.07 * y - 0.09 * (x * x + y * y) + 0.06
    grain = np.float32(0.009) * rng.standard_normal((height, width, 1), np.float32)
    return np.clip(pixels * light[..., None] + grain, 0, 1)


def _clutter(base: Array, outlines: np.ndarray, colors: np.ndarray, soft: float) -> Array:
    """Many polygons [n,k,2] in colours [n,3] over a base, back (darker) to front, drawn at twice the size; ``soft``: blur in pixels."""
    height, width = base.shape[:2]
    canvas = Image.fromarray((np.clip(base, 0, 1) * 255).astype(np.uint8)).resize((width * 2, height * 2))
    pen = ImageDraw.Draw(canvas)
    tones = np.clip(colors * np.linspace(0.62, 1, len(colors))[:, None] * 255, 0, 255).astype(int).tolist()
    for corners, tone in zip((outlines * 2).reshape(len(outlines), -1).tolist(), tones, strict=True):
        pen.polygon(corners, fill=tuple(tone))
    canvas = canvas.reduce(2)
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(soft)) if soft > 0.3 else canvas, np.float32) / 255


def _scatter(rng: Rng, shape: Shape, outline: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Copies [n,k,2] of an outline [k,2] (or [n,k,2]) of these lengths, turned and placed at random."""
    n = len(lengths)
    turn = np.exp(1j * rng.uniform(0, 2 * np.pi, n)) * lengths
    at = rng.uniform(0, shape[1], n) + 1j * rng.uniform(0, shape[0], n)
    points = (outline[..., 0] + 1j * outline[..., 1]) * turn[:, None] + at[:, None]
    return np.stack([points.real, points.imag], -1)


def foliage(rng: Rng, shape: Shape) -> Array:
    hue, n = rng.uniform(0.2, 0.4), 120
    base = ramp(noise(rng, shape), [hsv(hue, 0.6, 0.12), hsv(hue, 0.5, 0.3)])
    colors = hsv_rows(hue + rng.normal(0, 0.025, n), rng.uniform(0.35, 0.7, n), rng.uniform(0.3, 0.72, n))
    leaves = _scatter(rng, shape, LEAF, np.linspace(5, 14, n) * rng.uniform(0.7, 1.3, n))
    return _clutter(base, leaves, colors, rng.uniform(0, 1.0))


def autumn(rng: Rng, shape: Shape) -> Array:
    n = 130
    base = ramp(noise(rng, shape, 6), [hsv(0.07, 0.6, 0.15), hsv(0.08, 0.5, 0.4)])
    colors = hsv_rows(rng.uniform(0.0, 0.13, n), rng.uniform(0.5, 0.85, n), rng.uniform(0.4, 0.85, n))
    leaves = _scatter(rng, shape, LEAF, np.linspace(5, 13, n) * rng.uniform(0.7, 1.2, n))
    return _clutter(base, leaves, colors, rng.uniform(0, 0.7))


def grass(rng: Rng, shape: Shape, base: Array, hue: float, top: float = 0.0, flowers: float = 0.07) -> Array:
    """Blades over a base, from the height ``top`` (a share of the image) down."""
    height, width = shape
    n = int(280 * (1 - top))
    depth = np.linspace(0, 1, n)
    x, y = rng.uniform(-5, width + 5, n), height * (top + 0.08 + (1 - top) * depth) + rng.uniform(0, 10, n)
    tall, lean, thick = rng.uniform(14, 30, n) * (0.4 + 0.7 * depth), rng.normal(0, 6, n), rng.uniform(0.5, 1.5, n)
    blades = [
        (x - thick, y),
        (x + lean * 0.3 - thick, y - tall * 0.6),
        (x + lean, y - tall),
        (x + lean * 0.3 + thick, y - tall * 0.6),
        (x + thick, y),
    ]
    colors = hsv_rows(hue + rng.normal(0, 0.03, n), rng.uniform(0.5, 0.8, n), rng.uniform(0.35, 0.8, n))
    bloom = rng.random(n) < flowers
    colors[bloom] = hsv_rows(rng.choice([0.13, 0.8, 0.95, 0.62], n), np.full(n, 0.45), np.full(n, 1.0))[bloom]
    return _clutter(base, np.stack(blades).transpose(2, 0, 1), colors, rng.uniform(0, 0.5))


def meadow(rng: Rng, shape: Shape) -> Array:
    hue = rng.uniform(0.18, 0.34)
    return grass(rng, shape, ramp(noise(rng, shape, 2), [hsv(hue, 0.65, 0.25), hsv(hue - 0.04, 0.6, 0.55)]), hue)


def pebbles(rng: Rng, shape: Shape) -> Array:
    hue, n = rng.uniform(0.05, 0.6), 140
    base = ramp(noise(rng, shape, 8), [hsv(hue, 0.2, 0.12), hsv(hue, 0.2, 0.25)])
    around = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    bumps = 1 + 0.12 * np.sin(2 * around + rng.uniform(0, 6, (n, 1))) + 0.08 * np.sin(3 * around + rng.uniform(0, 6, (n, 1)))
    outlines = np.stack([bumps * np.cos(around), 0.85 * bumps * np.sin(around)], -1)
    colors = hsv_rows(hue + rng.normal(0, 0.05, n), rng.uniform(0.03, 0.25, n), rng.uniform(0.45, 0.85, n))
    stones = _scatter(rng, shape, outlines, np.linspace(5, 13, n) * rng.uniform(0.6, 1.1, n))
    return _clutter(base, stones, colors, rng.uniform(0.2, 0.7))


def bokeh(rng: Rng, shape: Shape) -> Array:
    height, width = shape
    hue = rng.random()
    base = ramp(noise(rng, shape, 2, 2), [hsv(hue, 0.7, 0.16), hsv(hue + 0.12, 0.55, 0.42)])
    for _ in range(rng.integers(10, 18)):
        disc = fill(ellipse(rng.uniform(0, width), rng.uniform(0, height), *[rng.uniform(5, 17)] * 2), shape)
        over(base, hsv(hue + rng.normal(0.08, 0.08), rng.uniform(0.2, 0.6), 1.0), disc * np.float32(rng.uniform(0.12, 0.4)))
    return base


def water(rng: Rng, shape: Shape) -> Array:
    y = np.mgrid[: shape[0], : shape[1]][0] / shape[0]
    wave = noise(rng, shape, 5, 4, 0.35)
    ripple = 0.5 + 0.5 * np.sin(2 * np.pi * (y * rng.uniform(8, 14) + 2.2 * wave))
    hue = rng.uniform(0.48, 0.62)
    color = ramp((0.65 * wave + 0.35 * ripple).astype(np.float32), [hsv(hue, 0.85, 0.3), hsv(hue, 0.7, 0.6), hsv(hue - 0.03, 0.3, 0.92)])
    return color * (0.75 + 0.35 * (1 - y))[..., None].astype(np.float32)


def sand(rng: Rng, shape: Shape) -> Array:
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[0]
    angle = rng.uniform(-0.6, 0.6)
    along = y * np.cos(angle) + x * np.sin(angle)
    ripple = 0.5 + 0.5 * np.sin(2 * np.pi * (along * rng.uniform(7, 12) + 1.6 * noise(rng, shape, 3, 3)))
    mix = (0.6 * ripple + 0.4 * noise(rng, shape, 10, 3)).astype(np.float32)
    hue = rng.uniform(0.07, 0.12)
    return ramp(mix, [hsv(hue - 0.02, 0.5, 0.5), hsv(hue, 0.42, 0.78), hsv(hue + 0.02, 0.28, 0.95)])


def wood(rng: Rng, shape: Shape) -> Array:
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[0]
    grainy = noise(rng, shape, 2, 4, 4.0)
    across = x if rng.random() < 0.5 else y
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (across * rng.uniform(3, 6) + 1.3 * noise(rng, shape, 2, 2)))
    hue = rng.uniform(0.04, 0.1)
    color = ramp((0.5 * rings + 0.5 * grainy).astype(np.float32), [hsv(hue, 0.65, 0.24), hsv(hue, 0.55, 0.5), hsv(hue + 0.02, 0.4, 0.72)])
    plank = np.abs((across * rng.uniform(2.5, 4) + rng.random()) % 1 - 0.5) < 0.02
    return color * np.where(plank, 0.45, 1.0)[..., None].astype(np.float32)


def sky(rng: Rng, shape: Shape) -> Array:
    y = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None].repeat(shape[1], 1)
    dusk = rng.random() < 0.4
    top, low = (
        (hsv(rng.uniform(0.62, 0.8), 0.55, 0.45), hsv(rng.uniform(0.02, 0.1), 0.6, 0.95))
        if dusk
        else (hsv(rng.uniform(0.55, 0.62), 0.65, 0.75), hsv(0.55, 0.2, 0.97))
    )
    pixels = ramp(y, [top, low])
    cloud = np.clip((noise(rng, shape, 2, 5, 0.6) - rng.uniform(0.4, 0.6)) * 2.6, 0, 1)
    over(pixels, hsv(0.08, 0.25, 0.98) if dusk else (0.98, 0.98, 1.0), cloud * np.float32(0.8))
    return pixels


def stone(rng: Rng, shape: Shape) -> Array:
    hue = rng.uniform(0, 1)
    rough = noise(rng, shape, 4, 6)
    pixels = ramp(rough, [hsv(hue, 0.15, 0.32), hsv(hue, 0.12, 0.58), hsv(hue + 0.05, 0.1, 0.8)])
    moss = np.clip((noise(rng, shape, 3, 4) - 0.6) * 4, 0, 1)
    over(pixels, hsv(rng.uniform(0.18, 0.32), 0.55, 0.5), moss * np.float32(0.8))
    return pixels


TEXTURES = (foliage, autumn, meadow, pebbles, bokeh, water, sand, wood, sky, stone)


def distractor(rng: Rng, pixels: Array, x: float, y: float, radius: float, palette: Sequence[Color] = ()) -> None:
    """One thing that is no object of any class, with shading; some carry stripes or spots. Colours: of the palette, else any."""
    part, pose = near(pixels, Pose(x, y, radius, rng.uniform(0, 2 * np.pi)), 1.7)
    pixels = pixels[part]
    shape = pixels.shape[:2]
    color = hsv(rng.random(), rng.uniform(0.3, 0.8), rng.uniform(0.45, 0.95))
    if palette:
        color = palette[rng.integers(len(palette))]
    kind = rng.choice(["stone", "leaf", "berries", "ribbon", "twig", "pebble"])
    if kind == "berries":
        for _ in range(rng.integers(3, 6)):
            cx, cy = pose.place([tuple(rng.uniform(-0.7, 0.7, 2))])[0]
            solid(pixels, ellipse(cx, cy, radius * 0.38, radius * 0.38), color, radius * 0.25, 0.6)
    elif kind == "twig":
        bend = rng.uniform(-0.5, 0.5)
        line = pose.place([(t, bend * (1 - t * t)) for t in np.linspace(-1.3, 1.3, 9)])
        over(pixels, hsv(0.07, 0.5, rng.uniform(0.2, 0.5)), stroke(line, 3.5, shape, 1.2))
    else:
        outline = {
            "stone": blob(rng, 0, 0, 0.9, 0.25),
            "pebble": ellipse(0, 0, 1, rng.uniform(0.6, 0.9)),
            "leaf": smooth([(-1, 0), (-0.3, -0.45), (0.4, -0.35), (1.05, 0), (0.4, 0.35), (-0.3, 0.45)]),
            "ribbon": smooth([(-1.2, -0.2), (0, -0.5), (1.2, -0.1), (1.2, 0.3), (0, -0.05), (-1.2, 0.25)]),
        }[kind]
        area = fill(pose.place(outline), shape)
        body = np.full((*shape, 3), color, np.float32)
        u, v = pose.local(shape)
        if kind == "leaf":
            over(body, shade(color, 0.65), stripes(u + np.abs(v), 0.3, radius, 0.2) + stripes(v + 0.5, 9.0, radius, 0.012))
        elif kind in ("pebble", "ribbon"):
            pattern = stripes(u, 0.45, radius) if rng.random() < 0.5 else dots(u, v, 0.5, radius)
            over(body, shade(color, rng.choice([0.45, 1.6])), pattern)
        else:
            body *= (0.75 + 0.5 * noise(rng, shape, 12, 3))[..., None]
        over(pixels, body, area, relief(area, max(2.0, radius * 0.3)))
