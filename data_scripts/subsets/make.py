"""Write the lists again from the official annotations, each by its rule.

python -m data_scripts.subsets.make --wsol ILSVRC2012/wsolevaluation/test --voc VOCdevkit/VOC2007 --cub CUB_200_2011
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from cam_core.data.example import table
from cam_core.metrics.cues import class_pairs
from data_scripts.subsets import HOME


def first_by_hash(ids: Iterable[str], count: int) -> list[str]:
    """``count`` of the ids, chosen by sha256 of "v1 <id>", sorted: the same on every machine and for every version of any package."""
    return sorted(sorted(ids, key=lambda one: hashlib.sha256(f"v1 {one}".encode()).hexdigest())[:count])


def imagenet_5000() -> list[str]:
    return first_by_hash((f"ILSVRC2012_val_{number:08}" for number in range(1, 50_001)), 5000)


def energy_500(wsol: Path) -> list[str]:
    """From the WSOL benchmark's text files of the whole validation split."""
    sizes = {name: int(w) * int(h) for name, w, h in _commas(wsol / "image_sizes.txt")}
    rows = [(name, (int(x1) - int(x0)) * (int(y1) - int(y0))) for name, x0, y0, x1, y1 in _commas(wsol / "localization.txt")]
    boxes = Counter(name for name, _ in rows)
    return first_by_hash((Path(name).stem for name, area in rows if boxes[name] == 1 and 2 * area < sizes[name]), 500)


def voc07(home: Path) -> tuple[list[str], list[str]]:
    """The test images, and the difficult pairs by their rule: the XML files say what `VOC2007.hard` needs, images are not read."""
    ids = [row[0] for row in table(home / "ImageSets/Main/test.txt", 1)]
    return ids, [f"{image} {name}" for image in ids for name in _hard(home / f"Annotations/{image}.xml")]


def cub_pairs(home: Path) -> list[str]:
    names = [row[1] for row in table(home / "attributes/attributes.txt", 2)]
    rows = table(home / "attributes/class_attribute_labels_continuous.txt", len(names))
    return [f"{pair.first + 1} {pair.second + 1} {len(pair.parts)}" for pair in class_pairs(np.array(rows, dtype=float), names)]


def _hard(path: Path) -> Iterator[str]:
    page = ElementTree.parse(path).getroot()
    covered: dict[str, np.ndarray] = {}
    easy = set()
    for thing in page.findall("object"):
        x0, y0, x1, y1 = (int(thing.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
        name = thing.findtext("name", "")
        whole = covered.setdefault(name, np.zeros([int(page.findtext(f"size/{side}", "")) for side in ("height", "width")], bool))
        whole[y0 - 1 : y1, x0 - 1 : x1] = True
        easy |= set() if thing.findtext("difficult", "0") == "1" else {name}
    yield from (name for name in sorted(easy) if 4 * covered[name].sum() < covered[name].size and len(easy) > 1)


def _commas(path: Path) -> Iterator[list[str]]:
    return (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m data_scripts.subsets.make", description="Write the lists again, each by its rule.")
    for name in ("wsol", "voc", "cub"):
        parser.add_argument(f"--{name}", type=Path)
    given = parser.parse_args()
    made = {"imagenet_val_5000_v1": imagenet_5000()}
    if given.wsol:
        made["imagenet_energy_500_v1"] = energy_500(given.wsol)
    if given.voc:
        made["voc07_test_v1"], made["voc07_difficult_v2"] = voc07(given.voc)
    if given.cub:
        made["cub_pairs_v1"] = cub_pairs(given.cub)
    for name, lines in made.items():
        (HOME / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"{name}: {len(lines)}")


if __name__ == "__main__":
    main()
