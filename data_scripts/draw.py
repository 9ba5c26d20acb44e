"""Draw three small datasets in the official layouts of ImageNet, VOC2007 and CUB-200-2011; redraw an image with one thing changed.

    python -m data_scripts.draw --out data/drawn --seed 0

Every image is a function of (seed, dataset, number), so the truth behind it (`scene`), the pixels that decide its class (`cue_mask`) and
what it would look like with another cue, other surroundings or a planted mark (`redraw`) need nothing but its id. The same seed gives the
same bytes for one version of Pillow.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from data_scripts import birds, creatures, layouts, village
from data_scripts.drawing import Drawing, Mask, Stream

SIZES = {"imagenet": (1600, 200), "voc": (900, 150), "cub": (800, 200)}  # training, test
SMALL = {"imagenet": (80, 40), "voc": (30, 20), "cub": (40, 20)}
TEST = 50_000  # test images count from here, so that a small set is the beginning of the full one
CHANGES = (None, "cue", "rest", "mark")
QUALITY = 90


def number_of(dataset: str, image_id: str) -> int:
    """The number of an image from its id (`Example.image_id`): "ILSVRC2012_val_00000007", "n90000003_12", "050007", "17"."""
    digits = image_id.rsplit("_", 1)[-1]
    if not digits.isdigit():
        raise ValueError(f"{image_id!r} is no id of a drawn {dataset} image")
    return int(digits) - 1 + (TEST if "_val_" in image_id else 0)


def scene(
    dataset: str,
    image_id: str,
    change: str | None = None,
    target: int | None = None,
    source: int | None = None,
    seed: int = 0,
    without: Collection[str] = (),
) -> Drawing:
    """The drawing behind an image: float pixels before JPEG, objects with their masks, bird regions, key points.

    ``dataset``: imagenet, voc or cub (a prefix "drawn_" is ignored). ``change``:

    - "cue": the cue of class ``target`` instead, all else equal (voc: for every object of class ``source``, default the first present);
    - "rest": everything but the cue drawn anew (background, distractors, perch); the cue's own pixels stay;
    - "mark": a planted mark in the lower right corner.

    ``without``: what is not painted on a picture of a bird: some of `birds.REGIONS`, and things behind it ("distractor 0", "perch").
    """
    kind = dataset.removeprefix("drawn_").removesuffix("07")
    if kind not in SIZES:
        raise ValueError(f"unknown drawn dataset {dataset!r}: expected one of {', '.join(SIZES)}")
    if change not in CHANGES:
        raise ValueError(f"unknown change {change!r}: expected one of {', '.join(map(str, CHANGES))}")
    if (change == "cue") != (target is not None):
        raise ValueError("change='cue' and target go together: target is the class whose cue is to be drawn")
    if without and (kind != "cub" or (unknown := {w for w in without if w not in (*birds.REGIONS, "perch") and "distractor " not in w})):
        what = f"no {', '.join(sorted(unknown))}" if kind == "cub" else "no birds"
        raise ValueError(f"a drawn {kind} image has {what} to leave out: take cub, and some of {', '.join(birds.REGIONS)}")
    number = number_of(kind, image_id)
    stream = Stream(seed, kind, number, rest=int(change == "rest"))
    if kind == "imagenet":
        drawing = creatures.scene(stream, number % len(creatures.CLASSES), target)
    elif kind == "cub":
        drawing = birds.scene(stream, number % len(birds.CLASSES), target, without)
    else:
        if target is not None and source is None:
            source = min(thing.label for thing in village.scene(stream).objects)
        drawing = village.scene(stream, source, target)
    if change == "mark":
        _plant_mark(drawing)
    return drawing


def redraw(
    dataset: str,
    image_id: str,
    change: str | None = None,
    target: int | None = None,
    source: int | None = None,
    seed: int = 0,
    without: Collection[str] = (),
) -> Image.Image:
    """An image drawn again with one thing changed, as a picture without JPEG's losses; arguments as for `scene`."""
    return Image.fromarray(scene(dataset, image_id, change, target, source, seed, without).image)


def cue_mask(dataset: str, image_id: str, against: int | None = None, label: int | None = None, seed: int = 0) -> Mask:
    """The pixels [H,W] that decide the class. ImageNet: the creatures. VOC: the objects of class ``label``. CUB: the parts whose
    attributes differ from those of class ``against`` (without it: from any other class).
    """  # fmt: skip
    drawing = scene(dataset, image_id, seed=seed)
    if drawing.regions:
        regions = [drawing.regions[name] for name in birds.cue_regions(drawing.label, against)]
    else:
        regions = [thing.mask for thing in drawing.objects if label in (None, thing.label)]
    return np.any([np.zeros(drawing.pixels.shape[:2], bool), *regions], axis=0)


def mark_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Half-open x0, y0, x1, y1 of the planted mark in an image of this size."""
    side = min(width, height) // 8
    return width - side - 3, height - side - 3, width - 3, height - 3


def _plant_mark(drawing: Drawing) -> None:
    height, width = drawing.pixels.shape[:2]
    x0, y0, x1, y1 = mark_box(width, height)
    patch = drawing.pixels[y0:y1, x0:x1]
    y, x = np.mgrid[-1 : 1 : len(patch) * 1j, -1 : 1 : len(patch) * 1j]
    patch[:] = (1.0, 0.95, 0.1)
    patch[(np.abs(x - y) < 0.35) | (np.abs(x + y) < 0.35)] = (0.75, 0.0, 0.55)


def draw(out: Path | str = "data/drawn", seed: int = 0, small: bool = False, processes: int | None = None, progress: bool = True) -> Path:
    """Draw the three datasets into ``out``, unless it already holds exactly them. Returns ``out``; a folder under that name is complete.

    ``small``: some 200 images, the first ones of the full sets, for tests. Raises `FileExistsError` where ``out`` holds something else.
    """
    out, recipe = Path(out), _recipe(seed, small)
    if _recipe_in(out) == recipe:
        return out
    if out.exists() and any(out.iterdir()) and _recipe_in(out) is None:
        raise FileExistsError(f"{out} exists and holds something that was not drawn here: choose another --out or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        sizes = SMALL if small else SIZES
        tasks = [(part, seed, kind, n) for kind, (train, test) in sizes.items() for n in (*range(train), *range(TEST, TEST + test))]
        facts: dict[str, dict[int, layouts.Facts]] = {kind: {} for kind in sizes}
        layouts.make_folders(part)
        with tqdm(total=len(tasks), desc="drawing", unit="image", disable=not progress) as bar:
            for kind, number, fact in _results(tasks, processes or min(8, os.cpu_count() or 1)):
                facts[kind][number] = fact
                bar.update()
        layouts.write_annotations(part, {kind: dict(sorted(found.items())) for kind, found in facts.items()}, TEST)
        (part / "drawn.json").write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
        part.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _results(tasks: list[tuple], processes: int):
    if processes == 1 or len(tasks) < 300:
        yield from map(_draw_one, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:  # a fork of a process with torch threads may hang
        yield from pool.imap_unordered(_draw_one, tasks, chunksize=24)


def _draw_one(task: tuple[Path, int, str, int]) -> tuple[str, int, layouts.Facts]:
    part, seed, kind, number = task
    drawing = scene(kind, str(number + 1), seed=seed)
    path = part / layouts.image_path(kind, number, drawing.label, TEST)
    Image.fromarray(drawing.image).save(path, "JPEG", quality=QUALITY)
    if kind == "cub":
        mask = Image.fromarray(drawing.objects[0].mask.astype(np.uint8) * 255)
        mask.save(part / layouts.mask_path(number, drawing.label))
    things = [(thing.label, thing.box, thing.difficult, thing.truncated) for thing in drawing.objects]
    points = None if drawing.points is None else drawing.points.tolist()
    return kind, number, layouts.Facts(drawing.label, drawing.pixels.shape[:2], things, points)


def _recipe(seed: int, small: bool) -> dict[str, object]:
    """What decides the bytes: seed, extent, the drawing code itself, the JPEG encoder."""
    here = Path(__file__).parent
    names = ("paint", "drawing", "backgrounds", "creatures", "village", "birds", "layouts", "draw")
    code = hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in names)).hexdigest()[:16]
    return {"seed": seed, "small": small, "code": code, "pillow": PIL.__version__, "numpy": np.__version__}


def _recipe_in(out: Path) -> dict[str, object] | None:
    try:
        return json.loads((out / "drawn.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_scripts.draw", description="Draw the three embedded datasets in the official layouts."
    )
    parser.add_argument("--out", type=Path, default=Path("data/drawn"), help="data root to make (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides every pixel (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="some 200 images only, for tests")
    parser.add_argument("--processes", type=int, default=None, help="workers (default: one per core, at most 8)")
    options = parser.parse_args(arguments)
    try:
        out = draw(options.out, options.seed, options.small, options.processes)
    except FileExistsError as error:
        parser.exit(1, f"{error}\n")
    print(f"{out} is complete (seed {options.seed}{', small' if options.small else ''})")


if __name__ == "__main__":
    main()
