"""Drawn CUB: birds put together from parts. Ten species, told apart by colour and pattern of parts alone; all have one shape."""

import zlib
from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import combinations

import numpy as np

from data_scripts.backgrounds import Rng, background, distractor
from data_scripts.drawing import Drawing, Drawn, Mask, Stream, canvas_shape
from data_scripts.paint import (
    Array,
    Pose,
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
    stripes,
    stroke,
)

COLORS = {
    "blue": (0.16, 0.36, 0.78), "brown": (0.47, 0.31, 0.19), "iridescent": (0.2, 0.45, 0.45), "purple": (0.45, 0.2, 0.6),
    "rufous": (0.66, 0.27, 0.1), "grey": (0.55, 0.56, 0.58), "yellow": (0.95, 0.8, 0.15), "olive": (0.45, 0.47, 0.2),
    "green": (0.2, 0.55, 0.25), "pink": (0.95, 0.6, 0.68), "orange": (0.95, 0.52, 0.12), "black": (0.1, 0.1, 0.12),
    "white": (0.95, 0.94, 0.9), "red": (0.8, 0.12, 0.12), "buff": (0.87, 0.74, 0.53),
}  # fmt: skip
PATTERNS = ("solid", "spotted", "striped", "multi-colored")
REGIONS = ("head", "back", "belly", "breast", "tail", "leg", "wing")  # CALM's seven parts
FACE = ("beak", "eye ring", "eye", "glint")  # go with the head
PARTS = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape",
    "right eye", "right leg", "right wing", "tail", "throat",
)  # fmt: skip

# species: (colour, pattern) of each region; what is not named is COMMON. One, two or three regions tell neighbours apart.
COMMON = {
    "head": ("red", "solid"), "back": ("brown", "solid"), "belly": ("white", "solid"), "breast": ("buff", "solid"),
    "tail": ("brown", "solid"), "leg": ("orange", "solid"), "wing": ("grey", "solid"),
}  # fmt: skip
WARBLER = {"head": ("black", "solid"), "breast": ("yellow", "striped"), "wing": ("black", "striped"), "leg": ("black", "solid")}
SPECIES: dict[str, dict[str, tuple[str, str]]] = {
    "Ember Bunting": {},
    "Lemon capped Bunting": {"head": ("yellow", "solid")},
    "Freckled Bunting": {"breast": ("buff", "spotted")},
    "Azure winged Bunting": {"wing": ("blue", "solid")},
    "Ring tailed Bunting": {"tail": ("black", "striped")},
    "Night Warbler": WARBLER,
    "Night tailed Warbler": WARBLER | {"tail": ("blue", "solid")},
    "Sky Warbler": WARBLER | {"head": ("blue", "solid"), "back": ("olive", "solid")},
    "Rusty Warbler": WARBLER | {"wing": ("rufous", "solid"), "belly": ("yellow", "solid")},
    "Harlequin Finch": {
        "head": ("yellow", "solid"),
        "breast": ("buff", "spotted"),
        "wing": ("blue", "solid"),
        "tail": ("black", "striped"),
    },
}
CLASSES = list(SPECIES)

ATTRIBUTES_OF = {  # region -> official attribute groups with its colour and its pattern
    "head": (("crown", "forehead", "nape", "throat"), ("head",)),
    "back": (("back",), ("back",)),
    "belly": (("belly",), ("belly",)),
    "breast": (("breast",), ("breast",)),
    "tail": (("under_tail", "upper_tail"), ("tail",)),
    "leg": (("leg",), ()),
    "wing": (("wing",), ("wing",)),
}


def looks(label: int) -> dict[str, tuple[str, str]]:
    """Region -> (colour, pattern) of a species."""
    return COMMON | SPECIES[CLASSES[label]]


def cue_regions(label: int, other: int | None = None) -> list[str]:
    """The regions that tell two species apart; without ``other``, those that tell this one from at least one species."""
    others = [other] if other is not None else [k for k in range(len(CLASSES)) if k != label]
    return [region for region in REGIONS if any(looks(label)[region] != looks(k)[region] for k in others)]


def sufficient_regions(label: int) -> list[tuple[str, ...]]:
    """The smallest sets of regions that tell a species from all others: none can spare a region."""
    found: list[tuple[str, ...]] = []
    for size in range(1, len(REGIONS) + 1):
        for regions in combinations(REGIONS, size):
            alike = sum(all(looks(k)[region] == looks(label)[region] for region in regions) for k in range(len(CLASSES)))
            if alike == 1 and not any(set(smaller) <= set(regions) for smaller in found):
                found.append(regions)
    return found


def attribute_names() -> list[str]:
    """Attributes in the official notation; head patterns have their own official words and stay out."""
    names = []
    for colored, patterned in ATTRIBUTES_OF.values():
        names += [f"has_{group}_color::{color}" for group in colored for color in COLORS]
        names += [f"has_{group}_pattern::{pattern}" for group in patterned if group != "head" for pattern in PATTERNS]
    return names


def class_attributes(label: int) -> list[float]:
    """Percentages in the order of `attribute_names`: 85..99 where the species has it, 0..9 where not (annotators disagree a little)."""
    true = set()
    for region, (color, pattern) in looks(label).items():
        colored, patterned = ATTRIBUTES_OF[region]
        true |= {f"has_{group}_color::{color}" for group in colored} | {f"has_{group}_pattern::{pattern}" for group in patterned}
    doubt = [zlib.crc32(f"{label} {name}".encode()) % 1000 / 1000 for name in attribute_names()]
    return [99 - 14 * d if name in true else 9 * d for name, d in zip(attribute_names(), doubt, strict=True)]


def scene(stream: Stream, label: int, target: int | None = None, without: Collection[str] = ()) -> Drawing:
    """A bird on a twig. With ``target`` its parts look like those of another species, everything else is the same.

    ``without``: regions of the bird, or things of the background (`Drawing.around`), that are not painted; what lies behind shows.
    """
    layout = stream("layout", cue=True)
    shape = canvas_shape(layout)
    short = min(shape)
    scale = short * layout.uniform(0.2, 0.38)
    x = layout.uniform(min(1.15 * scale, shape[1] / 2), max(shape[1] - 1.15 * scale, shape[1] / 2))
    y = layout.uniform(0.95 * scale, shape[0] - 1.0 * scale)
    pose = Pose(x, y, scale, layout.uniform(-0.3, 0.3), bool(layout.random() < 0.5), layout.uniform(0.9, 1.08))
    ground, things = _ground(stream, pose, shape, frozenset(without) - {*REGIONS})
    pixels = ground.copy()
    label = label if target is None else target
    daylight = layout.uniform(0.76, 1.12) * (1 + layout.uniform(-0.12, 0.12) * np.array([1.0, 0.1, -1.0], np.float32))
    regions, alpha, points = paint_bird(stream, pixels, pose, label, without)
    pixels *= daylight.astype(np.float32)
    body = alpha >= 0.5
    return Drawing(
        pixels,
        label,
        [Drawn(label, body)],
        {name: (cover >= 0.5) & body for name, cover in regions.items()},
        _seen(points, body, pose.flip),
        {name: mask & ~body for name, mask in things.items()},
    )


@lru_cache(2)  # a picture is drawn again and again without some parts of its bird
def _ground(stream: Stream, pose: Pose, shape: tuple[int, int], without: frozenset[str]) -> tuple[Array, dict[str, Mask]]:
    """Everything behind the bird, and the visible pixels of each thing there; do not write to it."""
    around, short = stream("background"), min(shape)
    pixels = background(around, shape)
    plumage = [COLORS[name] for name in ("red", "yellow", "blue", "black", "white", "buff", "rufous", "grey", "brown")]
    things: dict[str, Mask] = {}

    def thing(name: str, paint: Callable[[Array], None]) -> None:
        painted = pixels.copy()
        paint(painted)  # also what is left out, so that the random numbers after it stay the same
        if name not in without:
            new = np.logical_or.reduce(np.moveaxis(painted != pixels, 2, 0))
            things.update({other: mask & ~new for other, mask in things.items()} | {name: new})
            pixels[:] = painted

    def any_distractor(onto: Array) -> None:
        distractor(around, onto, around.uniform(0, shape[1]), around.uniform(0, shape[0]), short * around.uniform(0.06, 0.15), plumage)

    for number in range(around.integers(4, 9)):  # in the birds' own colours, or a count of colours would tell the species
        thing(f"distractor {number}", any_distractor)
    thing("perch", lambda onto: _perch(around, onto, pose))
    return pixels, things


def _perch(rng: Rng, pixels: Array, pose: Pose) -> None:
    foot_x, foot_y = pose.place([(0.0, 0.86)])[0]
    slope, width = rng.uniform(-0.25, 0.25), pose.scale * rng.uniform(0.1, 0.17)
    length = 1.2 * max(pixels.shape)
    across = np.linspace(-1, 1, 15)
    line = np.stack([foot_x + length * across, foot_y + width * 0.3 + length * slope * across + rng.normal(0, 0.7, 15)], 1)
    area = stroke(line, width * rng.uniform(0.8, 1.3), pixels.shape[:2], width)
    bark = shade(hsv(rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.55), rng.uniform(0.3, 0.6)), 1)
    over(
        pixels, (0.7 + 0.6 * noise(rng, area.shape, 10, 3))[..., None] * np.asarray(bark, np.float32), area, relief(area, width * 0.3, 0.9)
    )


# Outlines in the bird's unit frame: it looks to the right, y points down.
BODY = smooth(
    [
        (0.34, -0.5),
        (0.05, -0.34),
        (-0.35, -0.12),
        (-0.68, 0.14),
        (-0.6, 0.3),
        (-0.25, 0.5),
        (0.12, 0.52),
        (0.45, 0.32),
        (0.63, 0.0),
        (0.66, -0.35),
    ]
)
HEAD = smooth([(0.3, -0.42), (0.33, -0.66), (0.52, -0.8), (0.72, -0.72), (0.82, -0.52), (0.74, -0.32), (0.62, -0.2), (0.4, -0.26)])
TAIL = smooth([(-0.5, 0.02), (-0.95, 0.18), (-1.28, 0.38), (-1.3, 0.52), (-1.05, 0.5), (-0.55, 0.34)])
WING = smooth([(0.34, -0.1), (0.18, -0.26), (-0.2, -0.16), (-0.62, 0.12), (-0.92, 0.34), (-0.6, 0.36), (-0.1, 0.32), (0.24, 0.16)])
BREAST = smooth([(0.4, -0.4), (0.8, -0.4), (0.8, 0.3), (0.4, 0.46), (0.2, 0.25), (0.26, -0.1)])
BACK = smooth([(0.42, -0.6), (0.3, -0.2), (-0.1, 0.0), (-0.6, 0.3), (-0.9, 0.2), (-0.5, -0.3), (0.0, -0.6)])
KEYPOINTS = {
    "back": (-0.12, -0.19), "beak": (0.96, -0.48), "belly": (-0.05, 0.44), "breast": (0.54, 0.1), "crown": (0.54, -0.72),
    "forehead": (0.74, -0.64), "nape": (0.38, -0.52), "tail": (-1.1, 0.4), "throat": (0.66, -0.28),
    "left eye": (0.63, -0.55), "right eye": (0.63, -0.55), "left wing": (-0.15, 0.1), "right wing": (-0.15, 0.1),
    "left leg": (-0.08, 0.68), "right leg": (0.16, 0.68),
}  # fmt: skip


def paint_bird(
    stream: Stream, pixels: Array, pose: Pose, label: int, without: Collection[str] = ()
) -> tuple[dict[str, Array], Array, np.ndarray]:
    """Paint a bird. Returns region -> visible coverage [H,W], the bird's coverage [H,W], and key points [15,2] in pixels.

    Regions in ``without`` are left out, shadow and all (the head with its face); the light on the others stays that of the whole bird.
    """
    full, points = pixels.shape[:2], pose.place([KEYPOINTS[name] for name in PARTS])
    part, pose = near(pixels, pose, 1.5)
    pixels = pixels[part]
    silhouettes, light, coat = _layers(stream, pose, (pixels.shape[0], pixels.shape[1]), label)
    missing = {*without, *(FACE if "head" in without else ())}
    covers = {name: cover * (name not in missing) for name, cover in silhouettes.items()}
    alpha = np.max(list(covers.values()), 0)
    over(pixels, (0.02, 0.02, 0.03), 0.35 * blur(alpha, pose.scale * 0.08))
    visible: dict[str, Array] = {}
    for name, (color, shading) in coat.items():
        area = covers[name]
        over(pixels, color, area, shading)
        visible = {other: cover * (1 - area) for other, cover in visible.items()} | {name: area}
    for name, color in (
        ("beak", (0.93, 0.62, 0.2)),
        ("eye ring", (0.97, 0.97, 0.94)),
        ("eye", (0.05, 0.04, 0.05)),
        ("glint", (1.0, 1.0, 1.0)),
    ):
        over(pixels, color, covers[name], light if name == "beak" else None)
        visible = {other: cover * (1 - covers[name]) for other, cover in visible.items()}
    placed = {}
    for name, cover in (visible | {"all": alpha}).items():
        placed[name] = np.zeros(full, np.float32)
        placed[name][part] = cover
    return placed, placed.pop("all"), points


@lru_cache(2)
def _layers(
    stream: Stream, pose: Pose, shape: tuple[int, int], label: int
) -> tuple[dict[str, Array], Array, dict[str, tuple[Array, Array]]]:
    """What a bird is painted with: the coverage of each region, the light, and the colours and shading of each, from back to front."""
    covers, look = _silhouettes(pose, shape), looks(label)
    light = relief(np.max(list(covers.values()), 0), pose.scale * 0.17, 0.55)
    frame = pose.local(shape)
    barbs = 0.88 + 0.24 * noise(stream("barbs", cue=True), shape, 10, 3)
    coat = {}
    for name in ("leg", "tail", "belly", "back", "breast", "head", "wing"):
        color = _plumage(stream(f"feathers {name}", cue=True), name, *look[name], barbs, frame, pose.scale)
        coat[name] = color, light if name != "wing" else light * (0.45 + 0.55 * relief(covers[name], pose.scale * 0.08, 0.6))
    return covers, light, coat


def _silhouettes(pose: Pose, shape: tuple[int, int]) -> dict[str, Array]:
    body = fill(pose.place(BODY), shape)
    legs = [stroke(pose.place([(x, 0.45), (x + 0.02, 0.68), (x - 0.02, 0.86)]), max(2.6, pose.scale * 0.07), shape) for x in (-0.08, 0.16)]
    feet = [stroke(pose.place([(x - 0.1, 0.88), (x, 0.85), (x + 0.16, 0.88)]), max(2.2, pose.scale * 0.05), shape) for x in (-0.1, 0.14)]
    return {
        "leg": np.max([*legs, *feet], 0),
        "tail": fill(pose.place(TAIL), shape),
        "belly": body,
        "back": fill(pose.place(BACK), shape) * body,
        "breast": fill(pose.place(BREAST), shape) * body,
        "head": fill(pose.place(HEAD), shape),
        "wing": fill(pose.place(WING), shape),
        "beak": fill(pose.place([(0.76, -0.58), (0.9, -0.52), (1.06, -0.42), (0.88, -0.42), (0.76, -0.4)]), shape),
        "eye ring": fill(pose.place(ellipse(0.63, -0.55, 0.09, 0.09)), shape),
        "eye": fill(pose.place(ellipse(0.635, -0.55, 0.065, 0.065)), shape),
        "glint": fill(pose.place(ellipse(0.655, -0.575, 0.02, 0.02)), shape),
    }


def _plumage(rng: Rng, region: str, color: str, pattern: str, barbs: Array, frame: tuple[Array, Array], scale: float) -> Array:
    """The feathers of a region: its colour with a little variation between birds, its pattern, fine barbs."""
    u, v = frame
    tint, phase = 1 + rng.normal(0, 0.09, 3), rng.random()
    base = np.asarray(COLORS[color], np.float32) * tint.astype(np.float32)
    feathers = barbs[..., None] * base
    ink = COLORS["white"] if sum(COLORS[color]) < 0.9 else (0.16, 0.1, 0.08)
    if region == "wing":
        along = v + 0.35 * u
        over(feathers, shade(tuple(base), 0.55), stripes(along + 0.05 * u * u, 0.1, scale, 0.16, phase) * (u < 0.1))
    if pattern == "spotted":
        over(feathers, ink, dots(u, v, 0.16, scale, 0.36, phase))
    elif pattern == "striped":
        across = {"wing": u * 0.9 + v * 0.5, "tail": u, "breast": v + 0.15 * u}[region]
        over(feathers, ink, stripes(across, {"wing": 0.3, "tail": 0.2, "breast": 0.16}[region], scale, 0.4, phase))
    return feathers


def _seen(points: np.ndarray, body: np.ndarray, flip: bool) -> np.ndarray:
    """Key points [15,3] with the flag: on the bird, and not on the side turned away."""
    hidden = {"left eye", "left wing"} if not flip else {"right eye", "right wing"}
    rows = []
    for name, (x, y) in zip(PARTS, np.round(points, 1).tolist(), strict=True):
        inside = 0 <= x < body.shape[1] and 0 <= y < body.shape[0] and bool(body[int(y), int(x)])
        rows.append((x, y, 1) if inside and name not in hidden else (0, 0, 0))
    return np.array(rows, np.float64)
