"""One annotated image, and what all readers share: loading, checking, transforming, and digests."""

import copy
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain, compress, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageMode, ImageOps
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors

from cam_core.data import transforms

try:
    import simplejpeg
except ImportError:  # it comes with cam-core[fast]
    simplejpeg = None

View = str | Callable[..., Any]
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # of what is taken for an image, in any case


class DataError(ValueError):
    """Data on disk does not follow its layout; ``problems`` lists every finding, one line each."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems) or [message]


@dataclass
class Example:
    """An image with its ground truth, all in the coordinates of the view (of ``image``), except the official integers.

    ``boxes`` are half-open float XYXY: a box that covers pixels 3..7 is (3, 8). ``official_boxes`` are XYXY integers as the official
    file means them (inclusive; CUB's x, y, width, height as x, y, x + w, y + h, the form of the WSOL benchmark), in pixels of the
    original image of ``size`` (H0, W0), never filtered; ``official_mask`` is the segmentation's file, soft as CUB's annotators left it.
    ``parts`` are x, y, visible.
    """

    image_id: str
    image: Tensor  # [3,H,W] in [0, 1]
    label: int  # -1 where an image has several
    boxes: tv_tensors.BoundingBoxes | None = None  # [n,4]
    box_labels: Tensor | None = None  # [n] int64
    difficult: Tensor | None = None  # [n] bool
    segmentation: tv_tensors.Mask | None = None  # [H,W] bool
    ignored: tv_tensors.Mask | None = None  # [H,W] bool, not to be counted
    parts: Tensor | None = None  # [15,3]
    size: tuple[int, int] = (0, 0)
    official_boxes: Tensor | None = None  # [m,4] int64
    official_mask: Tensor | None = None  # [H0,W0] uint8


@dataclass
class Annotation:
    """The annotations of one image as in the files: the fields of `Example` in original pixels."""

    path: Path
    label: int
    official_boxes: Tensor | None = None
    boxes: Tensor | None = None
    box_labels: Tensor | None = None
    difficult: Tensor | None = None
    segmentation: Path | None = None
    parts: Tensor | None = None
    instances: tuple[Path, ...] = ()  # further masks, of an image that has one an instance
    ignored: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The image and its masks."""
        return [path for path in (self.path, self.segmentation, *self.instances, self.ignored) if path]


class Dataset(TorchDataset[Example]):
    """The base class of the readers. A reader fills ``ids``, ``classes`` and ``annotations`` and calls `_finish`."""

    def __init__(self, root: Path | str, split: str, view: View = "crop", size: int = 224, limit: int | None = None) -> None:
        self.root, self.split, self.view, self.limit = Path(root), split, view, limit
        self.transform = transforms.view(view, size) if isinstance(view, str) else view
        self.classes: list[str] = []
        self.ids: list[str] = []
        self.annotations: list[Annotation] = []
        self.skipped: list[Path] = []
        self.deviations: tuple[str, ...] = ()  # from the published data, for the notes of a run
        self.available = 0  # images of the split, or of the list that it was cut to, before any limit

    def _images(self, folder: Path) -> list[Path]:
        """`images_in` of a folder; `_finish` warns about skipped files, once for the whole data set."""
        images, skipped = images_in(folder)
        self.skipped += skipped
        return images

    def _finish(self) -> None:
        if self.skipped:
            warnings.warn(f"{self.root}: {skipped_words(self.skipped)}", stacklevel=4)
            self.skipped = []
        self.available = self.available or len(self.ids)
        self.ids, self.annotations = self.ids[: self.limit], self.annotations[: self.limit]
        if not self.ids:
            raise DataError(f"{self.root}: the split {self.split!r} lists no image; `python -m data_scripts.check` says what is expected")
        wanted = [os.path.split(path) for item in self.annotations for path in item.files]
        present = {folder: set(os.listdir(folder)) if Path(folder).is_dir() else set() for folder in {of for of, _ in wanted}}  # noqa: PTH208 - names
        missing = [
            f"{folder}/{name}: listed or annotated, but the file is missing" for folder, name in wanted if name not in present[folder]
        ]
        if missing:
            raise DataError(f"{missing[0]} (and {len(missing) - 1} more of {len(wanted)} files)", missing)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        item, image_id = self.annotations[index], self.ids[index]
        image = read_image(item.path)
        width, height = image.size
        boxes = _inside(item, width, height)
        soft = self._soft(item, (height, width))
        segmentation = None if soft is None else tv_tensors.Mask(soft > 0)  # one annotator is enough
        points = None if item.parts is None else tv_tensors.KeyPoints(item.parts[:, :2], canvas_size=(height, width))
        view_image, view_boxes, view_mask, view_points = self.transform(image, boxes, segmentation, points)
        example = Example(image_id, view_image.as_subclass(Tensor), item.label, size=(height, width), segmentation=view_mask)
        example.official_boxes, example.box_labels, example.difficult = item.official_boxes, item.box_labels, item.difficult
        example.official_mask = soft
        if view_boxes is not None:
            _keep_visible(example, view_boxes)
        if view_points is not None and item.parts is not None:
            example.parts = _visible_parts(view_points, item.parts[:, 2], example.image.shape[-2:])
        return example

    def _soft(self, item: Annotation, size: tuple[int, int]) -> Tensor | None:
        return None if item.segmentation is None else _read_mask(item.segmentation, size)

    def part(self, wanted: slice) -> "Dataset":
        """The data set cut to a slice of its images."""
        other = copy.copy(self)
        other.ids, other.annotations = self.ids[wanted], self.annotations[wanted]
        other._finish()
        return other

    def only(self, ids: Collection[str]) -> "Dataset":
        """The data set cut to the images that ``ids`` name, in its own order; ``available`` counts them. `DataError` if there is none."""
        keep = [one in ids for one in self.ids]
        other = copy.copy(self)
        other.ids, other.annotations = list(compress(self.ids, keep)), list(compress(self.annotations, keep))
        other.available = len(other.ids)
        other._finish()
        return other

    def digest(self) -> str:
        """Sha256 over the list of images (names, file sizes) and everything annotated: goes into a run's provenance."""
        sha = hashlib.sha256(repr((type(self).__name__, self.split, self.classes)).encode())
        for image_id, item in zip(self.ids, self.annotations, strict=True):
            tensors = (item.official_boxes, item.box_labels, item.difficult, item.parts)
            facts = [None if value is None else value.tolist() for value in tensors]
            mask = item.segmentation.stat().st_size if item.segmentation else None
            sha.update(repr((image_id, item.label, item.path.name, item.path.stat().st_size, mask, facts)).encode())
            sha.update("".join(f"{path.name} {path.stat().st_size} " for path in item.files[1 + bool(mask) :]).encode())
        return sha.hexdigest()


def visible(folder: Path) -> list[Path]:
    """Files and folders in a folder, in the order of their names, without the hidden ones (.DS_Store, ._name, .ipynb_checkpoints)."""
    return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]  # noqa: PTH208 - names alone


def images_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images of a folder by their `ENDINGS`, and what else is `visible` in it, both in the order of their names."""
    found = visible(folder)
    is_image = [path.suffix.lower() in ENDINGS for path in found]
    return list(compress(found, is_image)), [path for path, wanted in zip(found, is_image, strict=True) if not wanted]


def skipped_words(skipped: Sequence[Path]) -> str:
    """The sentence about files and folders that are not images."""
    more = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
    return f"skips {skipped[0].name}{more}, no image by its name: images end in {', '.join(ENDINGS)}"


def read_image(path: Path | str, *, upright: bool = False, behind: str | None = "white") -> Image.Image:
    """The RGB image of a file, decoded to the last byte; `DataError` names a file that is damaged, truncated or no image.

    Pixels are returned as stored, because the boxes of the benchmarks refer to these; ``upright`` rotates by the EXIF orientation, for a
    user's own photographs. Values of more than 8 bits are scaled by the range of the file's type, floats must lie in [0, 1]. ``behind``:
    the colour behind transparent pixels; None ignores the transparency and keeps the stored colours.
    """
    path = Path(path)
    if not upright and (same := _sooner(path)):
        return same
    try:
        with Image.open(path) as image:
            tags = getattr(image, "tag_v2", {})  # TIFF says how many bits it has and whether they are signed
            bits, signed = tags.get(258, (16,))[0], tags.get(339, (1,))[0] == 2
            found = _eight_bits(path, ImageOps.exif_transpose(image) if upright else image, bits, signed)
            if behind and found.has_transparency_data:
                found = Image.alpha_composite(Image.new("RGBA", found.size, behind), found.convert("RGBA"))
            return found.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: is too large for Pillow ({error}); scale it down") from error
    except Exception as error:  # of a damaged file, decoders raise whatever they meet
        raise DataError(f"{path}: cannot be decoded ({error or type(error).__name__}); fetch the file again") from error


def _sooner(path: Path) -> Image.Image | None:
    """The very pixels that Pillow decodes from a JPEG in colour or grey; None where simplejpeg is missing or has the least objection."""
    if simplejpeg is None or path.suffix.lower() not in (".jpg", ".jpeg"):
        return None
    try:
        content = path.read_bytes()
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
        if space not in ("YCbCr", "RGB", "Gray") or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        image = Image.new("RGB", (width, height), None)
        image.frombytes(simplejpeg.decode_jpeg(content, "RGBX"), "raw", "RGBX")  # as Pillow keeps pixels: the fastest to copy
    except (OSError, ValueError):
        return None
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, from the head of its file."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch the file again") from error


def _eight_bits(path: Path, image: Image.Image, bits: int, signed: bool) -> Image.Image:
    """An image of ``bits``-bit integers or floats converted to 8 bits, which Pillow would clip. Others are returned unchanged."""
    kind = np.dtype(ImageMode.getmode(image.mode).typestr)
    if kind.itemsize == 1:
        return image
    values = np.asarray(image)
    white = 1.0 if kind.kind == "f" else 2.0 ** (bits - signed) - 1
    if bits == 32 and kind.kind == "i" and not signed:
        values = values.view(np.uint32)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= white or 0 < high < white / 510:
        raise DataError(
            f"{path}: its values reach from {low:g} to {high:g}, where 0 is black and {white:g} white: scale them to that range"
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def _read_mask(path: Path, size: tuple[int, int]) -> Tensor:
    mask: Tensor = tv_tensors.Mask(read_image(path, behind=None)).as_subclass(Tensor).amax(0)
    if mask.shape != size:
        raise DataError(f"{path}: the mask has {tuple(mask.shape)} pixels, its image {size}; fetch the file again")
    return mask


def _inside(item: Annotation, width: int, height: int) -> tv_tensors.BoundingBoxes | None:
    """Boxes as tv_tensors. One pixel beyond the border (an official off-by-one) is clipped; more is an error, and so is an empty box."""
    if item.boxes is None:
        return None
    for number, (x0, y0, x1, y1) in enumerate(item.boxes.tolist()):
        if x0 < -1 or y0 < -1 or x1 > width + 1 or y1 > height + 1:
            raise DataError(f"{item.path}: box {number} ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies outside the image of {width} x {height}")
        if x1 <= x0 or y1 <= y0:
            raise DataError(f"{item.path}: box {number} ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is empty; fix its annotation")
    limit = torch.tensor([width, height, width, height])
    inside = item.boxes.clamp(min=0).minimum(limit)
    return tv_tensors.BoundingBoxes(inside, format="XYXY", canvas_size=(height, width))


def _keep_visible(example: Example, boxes: tv_tensors.BoundingBoxes) -> None:
    """Clip the boxes to the view; boxes with less than one pixel of width or height left are removed, with their labels and flags."""
    height, width = example.image.shape[-2:]
    plain = boxes.as_subclass(Tensor).clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    keep = ((plain[:, 2:] - plain[:, :2]) >= 1).all(1)
    example.boxes = tv_tensors.BoundingBoxes(plain[keep], format="XYXY", canvas_size=(height, width))
    example.box_labels = None if example.box_labels is None else example.box_labels[keep]
    example.difficult = None if example.difficult is None else example.difficult[keep]


def _visible_parts(points: Tensor, visible: Tensor, size: Sequence[int]) -> Tensor:
    plain = points.as_subclass(Tensor)
    inside = ((plain >= 0) & (plain < torch.tensor([size[1], size[0]]))).all(1)
    flag = (visible > 0) & inside
    return torch.cat([torch.where(flag[:, None], plain, 0.0), flag[:, None].float()], 1)


def inclusive_boxes(boxes: Tensor) -> Tensor:
    """Half-open float boxes [n,4] -> the inclusive pixels x0, y0, x1, y1 that they touch, int64 [n,4]."""
    plain = boxes.as_subclass(Tensor).double().mul(1e4).round().div(1e4)  # 3.0000001 touches pixel 2 last, not 3
    first, last = plain[:, :2].floor(), plain[:, 2:].ceil() - 1
    return torch.cat([first, last.maximum(first)], 1).long()


def wsol_boxes(example: Example, size: int = 224) -> Tensor:
    """The WSOL benchmark's boxes of the squashed image: int(coordinate * size / side) of the official integers; inclusive, int64 [m,4].

    Its lists keep every coordinate below the side, so a coordinate equal to the side (CUB's x + w, VOC's 1-based xmax) is moved to the last
    pixel.
    """
    if example.official_boxes is None:
        raise ValueError(f"{example.image_id} has no boxes; use a split with boxes (ImageNet val, VOC2007, CUB)")
    height, width = example.size
    sides = torch.tensor([width, height, width, height])
    return (example.official_boxes * size // sides).clamp(0, size - 1)  # integers: exactly the truncation of the quotient


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """A batch: images [B,3,H,W], labels int64 [B], and the examples themselves; views "crop" and "squash" (equal sizes) only."""
    return {
        "images": torch.stack([example.image for example in examples]),
        "labels": torch.tensor([example.label for example in examples]),
        "examples": list(examples),
    }


def folder(root: Path | str, name: str, *holds: str) -> Path:
    """``root``/``name``, or ``root`` itself, whichever has one of ``holds`` in it; `FileNotFoundError` says what was looked for."""
    for candidate in (Path(root) / name, Path(root)):
        if any((candidate / one).exists() for one in holds):
            return candidate
    raise FileNotFoundError(
        f"{Path(root) / name / holds[0]} does not exist: point the data root at a folder with {name} in it,"
        " or draw one with `python -m data_scripts.draw`"
    )


def table(path: Path, columns: int, *kinds: Callable[[str], Any]) -> list[list[Any]]:
    """Rows of a text file of words. ``kinds`` convert the words of each line, `whole` or `finite`; further words take the last kind.

    `DataError` names the line that has fewer than ``columns`` words, or a word that is not of its kind.
    """
    rows = []
    for number, words in enumerate(map(str.split, lines(path)), start=1):
        if not words:
            continue
        if len(words) < columns:
            raise DataError(f"{path}: line {number} has {len(words)} words, expected at least {columns}; fix it, or fetch the file again")
        try:
            rows.append([kind(word) for kind, word in zip(chain(kinds, repeat(kinds[-1])), words, strict=False)] if kinds else words)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: {error}; fix it, or fetch the file again") from None
    return rows


def lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, with or without a byte-order mark; `DataError` if it is no such file."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({error}); save it again in that encoding") from error


def whole(word: str) -> int:
    """A whole number, or ValueError."""
    value = int(word) if word.isdecimal() and len(word) < 10 else finite(word)
    if value != round(value):
        raise ValueError(f"found {word!r} where a whole number is expected")
    return round(value)


def finite(word: str) -> float:
    """A number of at most nine digits before the point, or ValueError: no coordinate and no label is larger, and tensors would overflow."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise ValueError(f"found {word!r} where a number is expected")
    return value
