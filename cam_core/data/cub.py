"""CUB-200-2011 in its official layout: boxes, parts, class attributes, and segmentations where they were unpacked."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cam_core.data.example import Annotation, DataError, Dataset, View, folder, table


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
        class_of = {row[0]: int(row[1]) for row in table(home / "image_class_labels.txt", 2)}
        in_train = {row[0]: row[1] == "1" for row in table(home / "train_test_split.txt", 2)}
        boxes = {row[0]: torch.tensor([float(value) for value in row[1:5]]) for row in table(home / "bounding_boxes.txt", 5)}
        paths = {row[0]: row[1] for row in table(home / "images.txt", 2)}
        for name, known in (("image_class_labels", class_of), ("train_test_split", in_train), ("bounding_boxes", boxes)):
            if strangers := known.keys() ^ paths.keys():
                raise DataError(
                    f"{home / name}.txt and images.txt do not list the same images: {len(strangers)} differ, as {min(strangers)}"
                )
        self.class_ids = sorted(set(class_of.values()))
        names = {int(row[0]): row[1] for row in table(home / "classes.txt", 2)}
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
        for image_id, part, *values in table(self.root / "parts/part_locs.txt", 5):
            found.setdefault(image_id, torch.zeros(len(names), 3))[int(part) - 1] = torch.tensor([float(value) for value in values])
        return names, found

    def _attributes(self) -> tuple[list[str], Tensor]:
        """Names [A] and percentages [n,A] of the classes present; empty where the archive's attribute files are absent."""
        levels = self.root / "attributes/class_attribute_labels_continuous.txt"
        places = [self.root / "attributes/attributes.txt", self.root / "attributes.txt", self.root.parent / "attributes.txt"]
        named = next((path for path in places if path.is_file()), None)
        if not levels.is_file() or named is None:
            return [], torch.zeros(len(self.class_ids), 0)
        rows = torch.tensor([[float(value) for value in row] for row in table(levels, 1)])
        if max(self.class_ids) > len(rows):
            raise DataError(f"{levels}: has {len(rows)} rows, but images of class {max(self.class_ids)} are listed")
        names = [row[1] for row in table(named, 2)]
        if len(names) != rows.shape[1]:
            raise DataError(f"{levels}: has {rows.shape[1]} columns, but {named} names {len(names)} attributes")
        return names, rows[[class_id - 1 for class_id in self.class_ids]]


def families(classes: Sequence[str]) -> Tensor:
    """Families of classes, bool [C,C]: row y marks the classes whose name ends in the same word as y's ("Sky Warbler", "Night Warbler")."""
    last = [name.split()[-1] for name in classes]
    return torch.tensor([[one == other for other in last] for one in last])
