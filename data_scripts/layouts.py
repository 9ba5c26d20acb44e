"""Where drawn images and their annotations stand on disk: the official layouts of ImageNet, VOC2007 and CUB-200-2011."""

from dataclasses import dataclass
from pathlib import Path

from data_scripts import birds, creatures, village

IMAGENET, VOC, CUB = Path("ILSVRC2012"), Path("VOCdevkit/VOC2007"), Path("CUB_200_2011")
WNIDS = [f"n9{k + 1:07d}" for k in range(len(creatures.CLASSES))]  # no real synset begins with n9
BIRD_FOLDERS = [f"{k + 1:03d}.{name.replace(' ', '_')}" for k, name in enumerate(birds.CLASSES)]


@dataclass(frozen=True)
class Facts:
    """What the annotation files say about one image: inclusive 0-based boxes, points in pixels."""

    label: int
    size: tuple[int, int]  # height, width
    things: list[tuple[int, tuple[int, int, int, int], bool, bool]]  # class, box, difficult, truncated
    points: list[list[float]] | None


def image_path(kind: str, number: int, label: int, test: int) -> Path:
    """The place of an image below the data root; ``test`` is the first number of the test images."""
    if kind == "voc":
        return VOC / "JPEGImages" / f"{number + 1:06d}.jpg"
    if kind == "cub":
        return CUB / "images" / _bird_path(number, label)
    if number >= test:
        return IMAGENET / "val" / f"ILSVRC2012_val_{number - test + 1:08d}.JPEG"
    return IMAGENET / "train" / WNIDS[label] / f"{WNIDS[label]}_{number + 1}.JPEG"


def mask_path(number: int, label: int) -> Path:
    return (CUB / "segmentations" / _bird_path(number, label)).with_suffix(".png")


def _bird_path(number: int, label: int) -> Path:
    return Path(BIRD_FOLDERS[label]) / f"{birds.CLASSES[label].replace(' ', '_')}_{number // len(BIRD_FOLDERS) + 1:04d}_{number + 1}.jpg"


def make_folders(root: Path) -> None:
    folders = [IMAGENET / "val", *(IMAGENET / "train" / wnid for wnid in WNIDS)]
    folders += [VOC / name for name in ("JPEGImages", "Annotations", "ImageSets/Main")]
    folders += [CUB / kind / name for kind in ("images", "segmentations") for name in BIRD_FOLDERS]
    for folder in [*folders, CUB / "parts", CUB / "attributes"]:
        (root / folder).mkdir(parents=True, exist_ok=True)


def write_annotations(root: Path, facts: dict[str, dict[int, Facts]], test: int) -> None:
    """All annotation files of the three datasets; ``facts``: dataset -> image number -> facts, numbers ascending."""
    _write_imagenet(root / IMAGENET, facts["imagenet"], test)
    _write_voc(root / VOC, facts["voc"], test)
    _write_cub(root / CUB, facts["cub"], test)


def _lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _write_imagenet(home: Path, facts: dict[int, Facts], test: int) -> None:
    _lines(home / "LOC_synset_mapping.txt", [f"{wnid} {name}" for wnid, name in zip(WNIDS, creatures.CLASSES, strict=True)])
    rows: dict[str, list[str]] = {"train": ["ImageId,PredictionString"], "val": ["ImageId,PredictionString"]}
    names = []
    for number, fact in facts.items():
        path = image_path("imagenet", number, fact.label, test)
        boxes = " ".join(f"{WNIDS[label]} {x0} {y0} {x1} {y1}" for label, (x0, y0, x1, y1), *_ in fact.things)
        rows["val" if number >= test else "train"].append(f"{path.stem},{boxes} ")
        if number >= test:
            names.append(f"{path.name} {fact.label}")
    _lines(home / "val.txt", names)
    for split, lines in rows.items():
        _lines(home / f"LOC_{split}_solution.csv", lines)


def _write_voc(home: Path, facts: dict[int, Facts], test: int) -> None:
    for number, fact in facts.items():
        _lines(home / "Annotations" / f"{number + 1:06d}.xml", _voc_xml(number, fact))
    trainval = [number for number in facts if number < test]
    splits = {"trainval": trainval, "train": trainval[::2], "val": trainval[1::2], "test": [n for n in facts if n >= test]}
    for split, numbers in splits.items():
        _lines(home / "ImageSets/Main" / f"{split}.txt", [f"{number + 1:06d}" for number in numbers])
        for label, name in enumerate(village.CLASSES):
            flags = [_voc_flag(facts[number], label) for number in numbers]
            rows = [f"{number + 1:06d} {flag:2d}" for number, flag in zip(numbers, flags, strict=True)]
            _lines(home / "ImageSets/Main" / f"{name}_{split}.txt", rows)


def _voc_flag(fact: Facts, label: int) -> int:
    """VOC's 1 (an object of the class), 0 (only difficult ones), -1 (none)."""
    difficult = [hard for kind, _, hard, _ in fact.things if kind == label]
    return -1 if not difficult else int(not all(difficult))


def _voc_xml(number: int, fact: Facts) -> list[str]:
    height, width = fact.size
    lines = ["<annotation>", "\t<folder>VOC2007</folder>", f"\t<filename>{number + 1:06d}.jpg</filename>"]
    lines += ["\t<source>", "\t\t<database>Drawn data</database>", "\t</source>"]
    lines += [
        "\t<size>",
        f"\t\t<width>{width}</width>",
        f"\t\t<height>{height}</height>",
        "\t\t<depth>3</depth>",
        "\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for label, (x0, y0, x1, y1), difficult, truncated in fact.things:
        lines += ["\t<object>", f"\t\t<name>{village.CLASSES[label]}</name>", "\t\t<pose>Unspecified</pose>"]
        lines += [f"\t\t<truncated>{int(truncated)}</truncated>", f"\t\t<difficult>{int(difficult)}</difficult>", "\t\t<bndbox>"]
        corners = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1 + 1, "ymax": y1 + 1}  # VOC counts pixels from 1
        lines += [f"\t\t\t<{name}>{value}</{name}>" for name, value in corners.items()]
        lines += ["\t\t</bndbox>", "\t</object>"]
    return [*lines, "</annotation>"]


def _write_cub(home: Path, facts: dict[int, Facts], test: int) -> None:
    ids = {number: number + 1 for number in facts}
    _lines(home / "images.txt", [f"{ids[n]} {_bird_path(n, fact.label).as_posix()}" for n, fact in facts.items()])
    _lines(home / "image_class_labels.txt", [f"{ids[n]} {fact.label + 1}" for n, fact in facts.items()])
    _lines(home / "train_test_split.txt", [f"{ids[n]} {int(n < test)}" for n in facts])
    _lines(home / "classes.txt", [f"{k + 1} {name}" for k, name in enumerate(BIRD_FOLDERS)])
    boxes, points = [], []
    for n, fact in facts.items():
        x0, y0, x1, y1 = fact.things[0][1]
        boxes.append(f"{ids[n]} {x0:.1f} {y0:.1f} {x1 + 1 - x0:.1f} {y1 + 1 - y0:.1f}")
        points += [f"{ids[n]} {k + 1} {x:.1f} {y:.1f} {int(seen)}" for k, (x, y, seen) in enumerate(fact.points or [])]
    _lines(home / "bounding_boxes.txt", boxes)
    _lines(home / "parts/part_locs.txt", points)
    _lines(home / "parts/parts.txt", [f"{k + 1} {name}" for k, name in enumerate(birds.PARTS)])
    _lines(home / "attributes/attributes.txt", [f"{k + 1} {name}" for k, name in enumerate(birds.attribute_names())])
    levels = [" ".join(f"{value:.4f}" for value in birds.class_attributes(label)) for label in range(len(birds.CLASSES))]
    _lines(home / "attributes/class_attribute_labels_continuous.txt", levels)
