"""PASCAL VOC2007 in its official layout (the one torchvision.datasets.VOCDetection reads)."""

from pathlib import Path
from xml.etree import ElementTree

import torch

from cam_core.data.example import Annotation, DataError, Dataset, View, finite, folder, image_size, table, visible

OFFICIAL = {
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike",
    "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
}  # fmt: skip


class VOC2007(Dataset):
    """``VOCdevkit/VOC2007/``: ``JPEGImages``, ``Annotations/*.xml``, ``ImageSets/Main``.

    An image has several classes, so ``label`` is -1; `present` lists those that are explained. XML boxes are 1-based and inclusive.
    ``classes`` are the twenty official ones where each has its list in ``ImageSets/Main``, else those that have one, in alphabetical order
    (VOC's own). A class's list is called ``<class>_<split>.txt`` and says 1, 0 (difficult) or -1 behind every image.
    """

    def __init__(self, root: Path | str, split: str = "test", view: View = "squash", size: int = 224, limit: int | None = None) -> None:
        home = folder(root, "VOCdevkit/VOC2007", "ImageSets/Main")
        super().__init__(home, split, view, size, limit)
        lists = home / "ImageSets/Main"
        if not (lists / f"{split}.txt").is_file():
            raise ValueError(f"unknown split {split!r}: {lists / f'{split}.txt'} does not exist")
        self.classes = _classes(lists)
        problems = list[str]()
        listed = table(lists / f"{split}.txt", 1)
        self.available = len(listed)
        for image_id, *_ in listed[:limit]:
            self.ids.append(image_id)
            try:
                self.annotations.append(self._annotation(image_id))
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems[0] + (f" (and {len(problems) - 1} more such files)" if problems[1:] else ""), problems)
        self._finish()

    def present(self, index: int) -> list[int]:
        """Classes with at least one object that is not flagged difficult, in increasing order: the trials of the pointing game."""
        item = self.annotations[index]
        assert item.box_labels is not None
        assert item.difficult is not None
        return sorted(set(item.box_labels[~item.difficult].tolist()))

    def hard(self, index: int) -> frozenset[int]:
        """Classes whose pair with this image is in the pointing game's difficult subset (Zhang et al. 2016).

        The union of the class's boxes, those flagged difficult included, covers less than a quarter of the image, and another class has an
        object that is not flagged. On the 4952 test images these are exactly the 2230 published pairs.
        """
        item, (width, height) = self.annotations[index], image_size(self.annotations[index].path)
        assert item.boxes is not None
        assert item.box_labels is not None
        covered = torch.zeros(len(self.classes), height, width, dtype=torch.bool)
        for label, (x0, y0, x1, y1) in zip(item.box_labels.tolist(), item.boxes.clamp(min=0).int().tolist(), strict=True):
            covered[label, y0:y1, x0:x1] = True
        present = self.present(index)
        return frozenset(c for c in present if 4 * int(covered[c].sum()) < width * height and len(present) > 1)

    def _annotation(self, image_id: str) -> Annotation:
        path = self.root / "Annotations" / f"{image_id}.xml"
        try:
            objects = ElementTree.parse(path).getroot().findall("object")
            corners = [[round(finite(o.findtext(f"bndbox/{k}", ""))) for k in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
        except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that Python does not know
            raise DataError(f"{path}: cannot be read ({error}); fetch the file again") from error
        names = [o.findtext("name", "") for o in objects]
        for number, (name, (x0, y0, x1, y1)) in enumerate(zip(names, corners, strict=True)):
            if name not in self.classes:
                raise DataError(f"{path}: object {number} is a {name!r}, which has no list in ImageSets/Main")
            if x1 < x0 or y1 < y0:
                raise DataError(f"{path}: box {number} ({name}) has xmin {x0}, xmax {x1}, ymin {y0}, ymax {y1}; fix the file")
        official = torch.tensor(corners, dtype=torch.int64).reshape(-1, 4)
        return Annotation(
            self.root / "JPEGImages" / f"{image_id}.jpg",
            -1,
            official,
            boxes=(official - torch.tensor([1, 1, 0, 0])).float(),
            box_labels=torch.tensor([self.classes.index(name) for name in names], dtype=torch.int64),
            difficult=torch.tensor([o.findtext("difficult", "0").strip() == "1" for o in objects], dtype=torch.bool),
        )


def _classes(lists: Path) -> list[str]:
    """The classes that have a list; other files in the folder are ignored."""
    parted = ((*path.stem.rpartition("_")[::2], path) for path in visible(lists) if path.suffix == ".txt" and "_" in path.stem)
    found = {name: path for name, split, path in parted if path.with_stem(split).is_file()}
    if found.keys() >= OFFICIAL:
        return sorted(OFFICIAL)
    return [name for name, path in sorted(found.items()) if all(row[1:] in (["1"], ["0"], ["-1"]) for row in table(path, 1))]
