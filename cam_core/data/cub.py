"""CUB-200-2011 in its official layout: boxes, parts, class attributes, and segmentations where they were unpacked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cam_core.data.example import ENDINGS, Annotation, DataError, Dataset, View, finite, folder, table, whole


class CUB200(Dataset):
    """``CUB_200_2011/``: ``images.txt`` and its companions, ``parts/``, ``attributes/``, ``segmentations/`` (a separate archive).

    Some classes may be missing: ``label`` counts the classes that have images (0..n-1), ``class_ids`` are their official ids (from 1).
    ``class_attributes`` [n,A] holds the percentages of annotators, ``attribute_names`` their names ("has_wing_color::blue"; the official
    archive has that file beside, not in, ``CUB_200_2011``). ``part_names`` has 15 entries.
    """

    def __init__(self, root: Path | str, split: str = "test", view: View = "squash", size: int = 224, limit: int | None = None) -> None:
        home = folder(root, "CUB_200_2011", "images.txt")
        super().__init__(home, split, view, size, limit)
        if split not in ("train", "test"):
            raise ValueError(f"unknown split {split!r}: CUB-200-2011 has train and test")
        class_of = {key: label for key, (label, *_) in _keyed(home / "image_class_labels.txt", 2, str, whole).items()}
        in_train = {key: flag == "1" for key, (flag, *_) in _keyed(home / "train_test_split.txt", 2).items()}
        boxes = {key: torch.tensor(values[:4]) for key, values in _keyed(home / "bounding_boxes.txt", 5, str, finite).items()}
        paths = {key: path for key, (path, *_) in _keyed(home / "images.txt", 2).items()}
        for name, known in (("image_class_labels", class_of), ("train_test_split", in_train), ("bounding_boxes", boxes)):
            if strangers := known.keys() ^ paths.keys():
                raise DataError(
                    f"{home / name}.txt and images.txt do not list the same images: {len(strangers)} differ, as {min(strangers)}"
                )
        if strange := [path for path in paths.values() if Path(path).suffix.lower() not in ENDINGS]:
            raise DataError(f"{home / 'images.txt'}: {strange[0]!r} is no image by its name; fetch the file again")
        self.class_ids = sorted(set(class_of.values()))
        names = {key: name for key, (name, *_) in _keyed(home / "classes.txt", 2, whole, str).items()}
        if strangers := set(self.class_ids) - names.keys():
            raise DataError(f"{home / 'classes.txt'}: does not list class {min(strangers)}, which images have; fetch the file again")
        self.classes = [names[class_id].split(".", 1)[-1].replace("_", " ") for class_id in self.class_ids]
        self.part_names, parts = self._parts()
        self.attribute_names, self.class_attributes = self._attributes()
        masks = home / "segmentations"
        for image_id in (image_id for image_id in paths if in_train[image_id] == (split == "train")):
            x, y, w, h = boxes[image_id]
            item = Annotation(home / "images" / paths[image_id], self.class_ids.index(class_of[image_id]))
            item.boxes = torch.stack([x, y, x + w, y + h])[None]
            item.official_boxes, item.box_labels = item.boxes.long(), torch.tensor([item.label])
            item.parts = parts.get(image_id)
            item.segmentation = (masks / paths[image_id]).with_suffix(".png") if masks.is_dir() else None
            self.ids.append(image_id)
            self.annotations.append(item)
        self._finish()

    def _parts(self) -> tuple[list[str], dict[str, Tensor]]:
        names = [" ".join(row[1:]) for row in table(self.root / "parts/parts.txt", 2)]
        found: dict[str, Tensor] = {}
        for image_id, part, *values in table(self.root / "parts/part_locs.txt", 5, str, whole, finite):
            if not 1 <= part <= len(names):
                raise DataError(
                    f"{self.root / 'parts/part_locs.txt'}: image {image_id} has a part {part}, but parts.txt lists {len(names)}"
                )
            found.setdefault(image_id, torch.zeros(len(names), 3))[part - 1] = torch.tensor(values[:3])
        return names, found

    def _attributes(self) -> tuple[list[str], Tensor]:
        """Names [A] and percentages [n,A] of the classes present; empty where the archive's attribute files are absent."""
        levels = self.root / "attributes/class_attribute_labels_continuous.txt"
        places = [self.root / "attributes/attributes.txt", self.root / "attributes.txt", self.root.parent / "attributes.txt"]
        named = next((path for path in places if path.is_file()), None)
        if not levels.is_file() or named is None:
            return [], torch.zeros(len(self.class_ids), 0)
        names, rows = [row[1] for row in table(named, 2)], table(levels, 1, finite)
        if min(self.class_ids) < 1 or max(self.class_ids) > len(rows):
            raise DataError(f"{levels}: has {len(rows)} rows, but images of class {max(self.class_ids)} are listed")
        if other := next((len(row) for row in rows if len(row) != len(names)), 0):
            raise DataError(f"{levels}: has {other} columns, but {named} names {len(names)} attributes")
        return names, torch.tensor(rows)[[class_id - 1 for class_id in self.class_ids]]


def _keyed(path: Path, columns: int, *kinds: Callable[[str], Any]) -> dict[Any, list[Any]]:
    """The rows of a `table` by their first word, which stands once."""
    found: dict[Any, list[Any]] = {}
    for key, *values in table(path, columns, *kinds):
        if key in found:
            raise DataError(f"{path}: lists {key} more than once; fetch the file again")
        found[key] = values
    return found


def families(classes: Sequence[str]) -> Tensor:
    """Families of classes, bool [C,C]: row y marks the classes whose name ends in the same word as y's ("Sky Warbler", "Night Warbler")."""
    last = [name.split()[-1] for name in classes]
    return torch.tensor([[one == other for other in last] for one in last])
