"""What a drawn scene is, and where its randomness comes from."""

import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_scripts.paint import Array

Mask = NDArray[np.bool_]


@dataclass
class Drawn:
    """An object in a scene: class, visible pixels [H,W], and VOC's flags."""

    label: int
    mask: Mask
    difficult: bool = False
    truncated: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Inclusive x0, y0, x1, y1 of the visible pixels."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


@dataclass
class Drawing:
    """A scene: float pixels [H,W,3] in [0, 1] and its whole ground truth."""

    pixels: Array
    label: int
    objects: list[Drawn]
    regions: dict[str, Mask] = field(default_factory=dict)  # bird part -> the pixels painted by its attributes
    points: NDArray[np.float64] | None = None  # [15,3] x, y, visible
    around: dict[str, Mask] = field(default_factory=dict)  # thing behind a bird -> its visible pixels

    @property
    def image(self) -> NDArray[np.uint8]:
        """The pixels in 8 bits [H,W,3]."""
        return np.round(np.clip(self.pixels, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Stream:
    """Random generators of one image by name: (seed, dataset, number, name) decides every draw, so any image can be drawn alone.

    Names asked for with ``cue=True`` belong to the cue (its shape, place and light); all others are drawn anew where ``rest`` is given.
    """

    seed: int
    dataset: str
    number: int
    rest: int = 0

    def __call__(self, name: str, cue: bool = False) -> np.random.Generator:
        """The generator of one thing in the image."""
        again = 0 if cue else self.rest
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.dataset} {name}".encode()), self.number, again])


def canvas_shape(rng: np.random.Generator) -> tuple[int, int]:
    """A size that tells crop from squash: short side 120..136, aspect up to 4:3 either way."""
    short = int(rng.integers(120, 137))
    long = round(short * rng.choice([1.0, 1.15, 1.33], p=[0.3, 0.3, 0.4]))
    return (short, long) if rng.random() < 0.7 else (long, short)
