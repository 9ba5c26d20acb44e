"""Speed of reading data: `python -m benchmarks.data`. CPU seconds, the least of several rounds in turn, bear a machine that is not idle.

Decoding: the photographs of CAM_DATA's ImageNet, else drawn ones, by `read_image` beside a bare loop of each decoder. Then the whole way
from file to the network's input, and opening 50,000 drawn entries of an ImageNet validation list with boxes (their image files are empty,
because opening reads none).

simplejpeg is the fastest of the decoders, and all three are libjpeg-turbo and give the same pixels. So `read_image` takes it for JPEGs in
colour or grey where it is installed (cam-core[fast]), and Pillow for all else: CMYK, damaged files, PNG, 16-bit TIFF, EXIF. The array
becomes an image of Pillow's, because these are what the views resize.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg, read_file

from benchmarks.race import race, write
from cam_core.data import ImageNet
from cam_core.data.example import read_image
from cam_core.data.imagenet import _index
from reproduce.sources import DRAWN

HERE = "benchmarks.data:"
ENTRIES = 50_000


def _simplejpeg(path: Path) -> Any:
    from simplejpeg import decode_jpeg as decode

    return decode(path.read_bytes(), "RGB")


DECODERS: dict[str, Callable[[Path], Any]] = {
    "read_image": read_image,
    "Pillow": lambda path: Image.open(path).convert("RGB"),
    "torchvision.io": lambda path: decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB),
    "simplejpeg": _simplejpeg,
}


def photographs(count: int) -> ImageNet:
    return ImageNet(os.environ.get("CAM_DATA") or DRAWN, "val", limit=count)


def decoding(name: str, count: str) -> Callable[[], None]:
    paths = [item.path for item in photographs(int(count)).annotations]

    def call() -> None:
        for path in paths:
            DECODERS[name](path)

    return call


def views(view: str, count: str) -> Callable[[], None]:
    data = ImageNet(os.environ.get("CAM_DATA") or DRAWN, "val", view, limit=int(count))

    def call() -> None:
        for index in range(len(data)):
            data[index]

    return call


def drawn_list(root: Path, entries: int = ENTRIES) -> Path:
    """An ImageNet validation split of ``entries`` empty files with random labels and one or two boxes each."""
    home, dice = root / "ILSVRC2012", random.Random(0)
    (home / "val").mkdir(parents=True)
    wnids, names, rows = [f"n{k:08}" for k in range(1000)], [], ["ImageId,PredictionString"]
    for number in range(1, entries + 1):
        image_id, label = f"ILSVRC2012_val_{number:08}", dice.randrange(1000)
        boxes = [(dice.randrange(100), dice.randrange(100)) for _ in range(1 + number % 2)]
        words = [f"{wnids[label]} {x} {y} {x + 90} {y + 80}" for x, y in boxes]
        rows.append(f"{image_id},{' '.join(words)} ")
        names.append(f"{image_id}.JPEG {label}")
        (home / f"val/{image_id}.JPEG").touch()
    for name, text in (("val.txt", names), ("LOC_val_solution.csv", rows), ("LOC_synset_mapping.txt", [f"{w} a {w}" for w in wnids])):
        (home / name).write_text("".join(f"{line}\n" for line in text))
    return root


def opening(kind: str, entries: str) -> Callable[[], None]:
    folder = tempfile.TemporaryDirectory()
    root = drawn_list(Path(folder.name), int(entries))
    ImageNet(root)

    def call() -> None:
        if kind == "first":
            _index.cache_clear()
        assert len(ImageNet(root)) == int(entries), folder

    return call


def main() -> None:
    """Race, compare with what was asked, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=100)
    given = parser.parse_args()
    run = partial(race, rounds=given.rounds)
    names = [name for name in DECODERS if name != "simplejpeg" or find_spec(name)]
    decoded = run(f"decode {given.images} photographs", {n: (f"{HERE}decoding:{n},{given.images}", True) for n in names})
    seen = run(f"{given.images} photographs as network input", {n: (f"{HERE}views:{n},{given.images}", True) for n in ("crop", "squash")})
    opened = run(f"open {ENTRIES:,} images with boxes", {n: (f"{HERE}opening:{n},{ENTRIES}", True) for n in ("first", "again")})
    cpu = pd.concat([decoded, opened]).set_index("contender")["cpu_seconds"]
    told = [
        (
            "read_image's speed, of the fastest bare loop",
            cpu[[n for n in names if n != "read_image"]].min() / cpu["read_image"],
            "at least 0.9",
        ),
        ("opening 50,000 images, seconds", cpu["first"], "at most 2"),
        ("opening them again, seconds", cpu["again"], "at most 0.2"),
    ]
    promised = pd.DataFrame(told, columns=["contender", "found", "asked"]).assign(group="what was promised")
    print(pd.concat([promised, decoded, seen, opened])[["group", "contender", "found", "asked", "cpu_seconds"]].to_string())
    write([promised, decoded, seen, opened], "data")


if __name__ == "__main__":
    main()
