"""ImageNet (ILSVRC2012) in the layout of the official archives and the Kaggle competition that has the boxes as one csv."""

import csv
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights

from cam_core.data.example import Annotation, DataError, Dataset, View, folder, lines, table, whole
from cam_core.data.folder import subfolders

KAGGLE = "ILSVRC/Data/CLS-LOC"


class ImageNet(Dataset):
    """``ILSVRC2012/``: ``val/*.JPEG`` flat or ``val/<wnid>/``, ``train/<wnid>/``, ``LOC_synset_mapping.txt``, ``LOC_<split>_solution.csv``.

    Images and labels come from ``<split>.txt`` ("name label") if it exists (it may list some images only); else from the class folders;
    else from the csv, which must then match the folder. If two of them give a label, they must agree. "train256" is a list ``train256.txt``
    with its folder. ``classes`` follow the mapping file or, without it, the thousand folders' names in alphabetical order (torchvision's).
    Boxes in the csv are inclusive pixels; images without a row have none.
    """

    def __init__(self, root: Path | str, split: str = "val", view: View = "crop", size: int = 224, limit: int | None = None) -> None:
        home = folder(root, "ILSVRC2012", "LOC_synset_mapping.txt", split, f"{KAGGLE}/{split}")
        super().__init__(home, split, view, size, limit)
        if split not in ("val", "train", "train256"):
            raise ValueError(f"unknown split {split!r}: ImageNet has val, train and train256")
        images = (home / KAGGLE if (home / KAGGLE).is_dir() else home) / split
        folders = subfolders(images) if images.is_dir() else []
        self.wnids, self.classes = self._named(images, folders)
        boxes = self._boxes(home / f"LOC_{split}_solution.csv")
        for path, label in self._listed(images, folders):
            if not 0 <= label < len(self.classes):
                raise DataError(f"{path}: label {label} is out of range: {home.name} has {len(self.classes)} classes")
            said, official = boxes.get(path.stem, (label, None))
            if said != label or (path.parent != images and self.wnids[label] != path.parent.name):
                other = path.parent.name if said == label else self.wnids[said]
                raise DataError(f"{path}: its label is {label} ({self.wnids[label]}), but its folder or boxes say {other}; fix {split}.txt")
            item = Annotation(path, label, official)
            if official is not None:
                item.boxes = (official + torch.tensor([0, 0, 1, 1])).float()
                item.box_labels = torch.full((len(official),), label)
            self.ids.append(path.stem)
            self.annotations.append(item)
        self._finish()

    def _named(self, images: Path, folders: list[str]) -> tuple[list[str], list[str]]:
        """The wnid and the name of every class."""
        mapping = self.root / "LOC_synset_mapping.txt"
        if mapping.is_file():
            rows = table(mapping, 1)
            if twice := [wnid for wnid, count in Counter(row[0] for row in rows).items() if count > 1]:
                raise DataError(f"{mapping}: lists {twice[0]} more than once; take Kaggle's file")
            return [row[0] for row in rows], [" ".join(row[1:] or row).split(",")[0] for row in rows]
        if len(folders) != 1000:
            found = f"{len(folders)} class folders do not tell which of the 1000 classes they are"
            raise DataError(f"{images}: {found}: put LOC_synset_mapping.txt into {self.root}")
        return folders, list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])

    def _listed(self, images: Path, folders: list[str]) -> list[tuple[Path, int]]:
        """Every image of the split with its label, in the order of the list (the folder's order is the sorted one)."""
        if strange := sorted(set(folders) - set(self.wnids)):
            raise DataError(f"{images / strange[0]}: LOC_synset_mapping.txt has no such class ({len(strange)} such); fix the folders")
        names = self.root / f"{self.split}.txt"
        if names.is_file():
            rows = table(names, 2, str, whole, str)
            with_folders = any("/" in row[0] for row in rows)
            inside = {} if with_folders else {path.name: path for wnid in folders for path in self._images(images / wnid)}
            return [(inside.get(name, images / name), label) for name, label, *_ in rows]
        if folders or self.split == "train":
            present = set(folders)
            return [(path, k) for k, wnid in enumerate(self.wnids) if wnid in present for path in self._images(images / wnid)]
        solution = self.root / f"LOC_{self.split}_solution.csv"
        return [(images / f"{image_id}.JPEG", label) for image_id, (label, _) in self._boxes(solution).items()]

    def _boxes(self, path: Path) -> dict[str, tuple[int, Tensor]]:
        """Image name -> label and inclusive boxes [n,4] of a ``LOC_*_solution.csv``; empty where the split has none."""
        if not path.is_file():
            return {}
        labels = {wnid: label for label, wnid in enumerate(self.wnids)}
        known = solution(path)
        if strange := next((one for one, (wnid, _) in known.items() if wnid not in labels), None):
            raise DataError(f"{path}: {strange} is a {known[strange][0]}, which LOC_synset_mapping.txt does not have; fetch the file again")
        return {one: (labels[wnid], torch.tensor(boxes)) for one, (wnid, boxes) in known.items()}


def solution(path: Path) -> dict[str, tuple[str, list[list[int]]]]:
    """Image name -> wnid and inclusive boxes of a ``LOC_*_solution.csv``; `DataError` names the line that is not like that."""
    found: dict[str, tuple[str, list[list[int]]]] = {}
    reader = csv.DictReader(lines(path))
    try:
        for row in reader:
            image_id, words = row.get("ImageId"), (row.get("PredictionString") or "").split()
            if not image_id or not words or len(words) % 5:
                raise ValueError(f"{image_id} has {' '.join(words[:6])!r}, expected 'wnid x0 y0 x1 y1 ...' in a column PredictionString")
            if image_id in found:
                raise ValueError(f"{image_id} has a second row")
            found[image_id] = words[0], [[whole(word) for word in words[k + 1 : k + 5]] for k in range(0, len(words), 5)]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; fix it, or fetch the file again") from error
    return found
