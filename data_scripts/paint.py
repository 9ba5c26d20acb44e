"""Painting with numpy and Pillow: anti-aliased regions, noise, patterns, relief. Images are float32 [H,W,3] in [0, 1]."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float32]
Points = Sequence[tuple[float, float]] | NDArray[np.float64]
Color = tuple[float, float, float]
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Pose:
    """Where the unit frame of an object (x right, y down, about -1..1) lies in the image, in pixels and radians."""

    x: float
    y: float
    scale: float
    angle: float = 0.0
    flip: bool = False
    stretch: float = 1.0  # of the frame's y against its x

    def place(self, points: Points) -> NDArray[np.float64]:
        """Unit frame [n,2] -> pixels [n,2]."""
        local = np.asarray(points, dtype=np.float64) * [-self.scale if self.flip else self.scale, self.scale * self.stretch]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return local @ np.array([[cos, sin], [-sin, cos]]) + [self.x, self.y]

    def local(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Coordinates u, v in the unit frame of every pixel centre, each [H,W]."""
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) + np.float32(0.5)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u, v = ((x - self.x) * cos + (y - self.y) * sin) / self.scale, ((y - self.y) * cos - (x - self.x) * sin) / self.scale
        return (-u if self.flip else u).astype(np.float32), (v / self.stretch).astype(np.float32)

    def moved(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0) -> "Pose":
        """The frame of a part: origin at (x, y) of this frame, scaled and turned within it."""
        place_x, place_y = self.place([(x, y)])[0]
        turn = -angle if self.flip else angle
        return replace(self, x=float(place_x), y=float(place_y), scale=self.scale * scale, angle=self.angle + turn)


def near(pixels: Array, pose: Pose, reach: float) -> tuple[tuple[slice, slice], Pose]:
    """The part of an image within ``reach`` units of a pose (slices of it) and the pose in that part: small things paint fast there."""
    radius = pose.scale * reach * max(1.0, pose.stretch)
    x0, y0 = max(0, int(pose.x - radius)), max(0, int(pose.y - radius))
    part = slice(y0, max(y0, int(pose.y + radius) + 1)), slice(x0, max(x0, int(pose.x + radius) + 1))
    return part, replace(pose, x=pose.x - x0, y=pose.y - y0)


def smooth(points: Points, samples: int = 8) -> NDArray[np.float64]:
    """A closed Catmull-Rom curve through the points [n,2] -> [n * samples, 2]."""
    p = np.asarray(points, dtype=np.float64)
    ring = np.concatenate([p[-1:], p, p[:2]])
    before, after, beyond = ring[:-3], ring[2:-1], ring[3:]
    t = (np.arange(samples) / samples)[None, :, None]
    a, b = (after - before)[:, None], (2 * before - 5 * p + 4 * after - beyond)[:, None]
    c = (3 * p - before - 3 * after + beyond)[:, None]
    return (p[:, None] + 0.5 * (a * t + b * t**2 + c * t**3)).reshape(-1, 2)


def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, n: int = 36) -> NDArray[np.float64]:
    """Outline of an ellipse [n,2]."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + rx * np.cos(t) * cos - ry * np.sin(t) * sin, y + rx * np.cos(t) * sin + ry * np.sin(t) * cos], 1)


def blob(
    rng: np.random.Generator, x: float, y: float, radius: float, roughness: float = 0.2, n: int = 9, samples: int = 8
) -> NDArray[np.float64]:
    """An irregular rounded outline."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.uniform(0, 2 * np.pi)
    r = radius * rng.uniform(1 - roughness, 1 + roughness, n)
    return smooth(np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1), samples)


def _raster(points: Points, shape: tuple[int, int], pad: int) -> tuple[tuple[slice, slice], Array]:
    """The part of the image that a polygon needs, ``pad`` pixels more on each side, and its coverage there."""
    p = np.asarray(points, dtype=np.float64)
    x0, y0 = (max(0, int(np.floor(low)) - 1 - pad) for low in p.min(0))
    x1, y1 = (min(side, int(np.ceil(high)) + 1 + pad) for high, side in zip(p.max(0), (shape[1], shape[0]), strict=True))
    if x1 <= x0 or y1 <= y0:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32)
    window = Image.new("L", ((x1 - x0) * SUPERSAMPLING, (y1 - y0) * SUPERSAMPLING))
    ImageDraw.Draw(window).polygon(((p - (x0, y0)) * SUPERSAMPLING - 0.5).ravel().tolist(), fill=255)
    alpha = np.asarray(window.reduce(SUPERSAMPLING), np.float32) * np.float32(1 / 255)
    return (slice(y0, y1), slice(x0, x1)), alpha


def fill(points: Points, shape: tuple[int, int]) -> Array:
    """Coverage [H,W] in [0, 1] of the polygon with these corners in pixels, anti-aliased."""
    alpha = np.zeros(shape, np.float32)
    part, cover = _raster(points, shape, 0)
    alpha[part] = cover
    return alpha


def solid(pixels: Array, points: Points, color: Array | Color, radius: float, strength: float = 0.5) -> Array:
    """Paint a polygon as a rounded body (`fill`, `relief`, `over` in one, where it lies only); returns its coverage [H,W]."""
    alpha = np.zeros(pixels.shape[:2], np.float32)
    part, cover = _raster(points, alpha.shape, 2 + round(2 * radius))
    if cover.size:
        paint = np.asarray(color, np.float32)
        paint = (paint[part] if paint.ndim == 3 else paint) * _shading(cover, radius, strength)[..., None]
        _blend(pixels[part], paint, cover)
        alpha[part] = cover
    return alpha


def band(points: Points, width: float, tip: float | None = None) -> NDArray[np.float64]:
    """Outline of a line through the points, ``width`` wide at its start and ``tip`` at its end, in the unit of the points."""
    p = np.asarray(points, dtype=np.float64)
    along = np.gradient(p, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    half = np.linspace(width, width if tip is None else tip, len(p))[:, None] / 2
    return np.concatenate([p + normal * half, (p - normal * half)[::-1]])


def stroke(points: Points, width: float, shape: tuple[int, int], tip: float | None = None) -> Array:
    """Coverage [H,W] of a line through points in pixels, ``width`` pixels wide at the start and ``tip`` at the end."""
    return fill(band(points, width, tip), shape)


def blur(alpha: Array, radius: float) -> Array:
    """Gaussian blur of a map [H,W] in [0, 1], in 8 bits."""
    image = Image.fromarray((alpha * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def window(alpha: Array, pad: int = 0) -> tuple[slice, slice]:
    """The rows and columns where ``alpha`` is not zero, ``pad`` pixels more on each side: painting elsewhere would be wasted."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(max(0, rows[0] - pad), rows[-1] + 1 + pad), slice(max(0, columns[0] - pad), columns[-1] + 1 + pad)


def relief(alpha: Array, radius: float, strength: float = 0.5) -> Array:
    """Shading [H,W] around 1 of a region seen as a rounded body with light from the upper left; depends on the silhouette only."""
    shading = np.ones_like(alpha)
    part = window(alpha, 2 + round(2 * radius))
    if alpha[part].size:
        shading[part] = _shading(alpha[part], radius, strength)
    return shading


def _shading(alpha: Array, radius: float, strength: float) -> Array:
    height = blur(alpha, radius)
    lit = np.zeros_like(height)
    lit[:, 1:-1] = np.float32(0.3) * (height[:, 2:] - height[:, :-2])
    lit[1:-1] += np.float32(0.4) * (height[2:] - height[:-2])
    return np.clip(1 + np.float32(strength * radius * 1.8) * lit + np.float32(0.15) * (height - np.float32(0.6)), 0.35, 1.6)


def over(pixels: Array, color: Array | Color, alpha: Array, shading: Array | None = None) -> None:
    """Paint ``color`` ([3] or [H,W,3]), times ``shading`` [H,W], onto ``pixels`` with coverage ``alpha`` [H,W], in place."""
    part = window(alpha)
    paint = np.asarray(color, np.float32)
    paint = paint[part] if paint.ndim == 3 else paint
    if shading is not None:
        paint = paint * shading[part][..., None]
    _blend(pixels[part], paint, alpha[part])


def _blend(pixels: Array, paint: Array, alpha: Array) -> None:
    pixels *= 1 - alpha[..., None]  # exact where alpha is 1: nothing of what was there may shine through
    pixels += np.clip(paint, 0, 1) * alpha[..., None]


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: float = 3, octaves: int = 4, aspect: float = 1.0) -> Array:
    """Value noise [H,W] in [0, 1]: random grids of ``cells`` per image side (``aspect`` times as many across), doubled per octave."""
    total, weight = np.zeros((1, 1), np.float32), 1.0
    for octave in range(octaves):
        rows, columns = (max(2, round(cells * 2**octave * stretch)) for stretch in (1, aspect))
        total = _resized(total, (rows, columns)) + np.float32(weight) * rng.random((rows, columns), dtype=np.float32)
        weight /= 2
    total = _resized(total, shape)
    return np.clip((total - total.mean()) / (4.2 * total.std()) + np.float32(0.5), 0, 1)


def _resized(grid: Array, shape: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def ramp(values: Array, colors: list[Color]) -> Array:
    """Values [H,W] in [0, 1] -> colours [H,W,3] along the stops."""
    stops = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(values, stops, channel) for channel in zip(*colors, strict=True)], -1).astype(np.float32)


def stripes(u: Array, period: float, pixels_per_unit: float, share: float = 0.5, phase: float = 0.0) -> Array:
    """Bands across ``u``: coverage [H,W], ``share`` of every period covered, edges one pixel soft."""
    wave = np.abs((u / period + phase) % 1 - 0.5) * period  # distance from the middle of a band, in units
    return np.clip((share * period / 2 - wave) * pixels_per_unit + 0.5, 0, 1).astype(np.float32)


def dots(u: Array, v: Array, period: float, pixels_per_unit: float, share: float = 0.45, phase: float = 0.0) -> Array:
    """A hexagonal lattice of discs covering about ``share`` of the area: coverage [H,W]."""
    row = np.round(v / (period * 0.866))
    du = (u / period + phase + 0.5 * (row % 2)) % 1 - 0.5
    dv = v / (period * 0.866) - row
    distance = np.hypot(du, dv * 0.866) * period
    radius = period * np.sqrt(share * 0.866 / np.pi)
    return np.clip((radius - distance) * pixels_per_unit + 0.5, 0, 1).astype(np.float32)


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Hue (any real, period 1), saturation and value in [0, 1] -> RGB."""
    return colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1))


def hsv_rows(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`hsv` of many: three [n] -> [n,3]."""
    k = (np.array([5, 3, 1]) + hue[:, None] * 6) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def shade(color: Color, factor: float) -> Color:
    """A colour, darker (factor < 1) or lighter towards white (factor > 1)."""
    if factor <= 1:
        return color[0] * factor, color[1] * factor, color[2] * factor
    mix = min(factor - 1, 1)
    return color[0] + (1 - color[0]) * mix, color[1] + (1 - color[1]) * mix, color[2] + (1 - color[2]) * mix
