"""ImageNet (ILSVRC2012) in the layout of the official archives and the Kaggle competition that has the boxes as one csv."""

import csv
from pathlib import Path

import torch
from torch import Tensor

from cam_core.data.example import Annotation, DataError, Dataset, View, folder, table


class ImageNet(Dataset):
    """``ILSVRC2012/``: ``val/*.JPEG`` flat, ``train/<wnid>/``, ``LOC_synset_mapping.txt``, ``LOC_<split>_solution.csv``.

    Labels of ``val`` come from ``val.txt`` ("name label") if it is there, which may list a part of the images; else from the csv, which
    must then match the folder. "train256" is a list ``train256.txt`` with its folder. ``classes`` follow the mapping file
    (torchvision's order). Boxes in the csv are inclusive pixels; images without a row have none.
    """

    def __init__(self, root: Path | str, split: str = "val", view: View = "crop", size: int = 224, limit: int | None = None) -> None:
        home = folder(root, "ILSVRC2012", "LOC_synset_mapping.txt")
        super().__init__(home, split, view, size, limit)
        lines = (home / "LOC_synset_mapping.txt").read_text(encoding="utf-8").splitlines()
        self.wnids = [line.split()[0] for line in lines if line.strip()]
        self.classes = [line.split(maxsplit=1)[-1].split(",")[0] for line in lines if line.strip()]
        kaggle = home / "ILSVRC/Data/CLS-LOC"
        images = (kaggle if kaggle.is_dir() else home) / split
        if split not in ("val", "train", "train256"):
            raise ValueError(f"unknown split {split!r}: ImageNet has val, train and train256")
        boxes = self._boxes(home / f"LOC_{split}_solution.csv")
        for path, label in self._listed(images):
            if not 0 <= label < len(self.classes):
                raise DataError(f"{path}: label {label} is out of range: {home.name} has {len(self.classes)} classes")
            official = boxes.get(path.stem, (label, None))[1]
            item = Annotation(path, label, official)
            if official is not None:
                item.boxes = (official + torch.tensor([0, 0, 1, 1])).float()
                item.box_labels = torch.full((len(official),), label)
            self.ids.append(path.stem)
            self.annotations.append(item)
        self._finish()

    def _listed(self, images: Path) -> list[tuple[Path, int]]:
        """Every image of the split with its label, in the order of the list (the folder's order is the sorted one)."""
        names = self.root / f"{self.split}.txt"
        if names.is_file():
            return [(images / name, _integer(label, names)) for name, label, *_ in table(names, 2)]
        if self.split == "train":
            return [(path, k) for k, wnid in enumerate(self.wnids) for path in sorted((images / wnid).glob("*.JPEG"))]
        solution = self.root / f"LOC_{self.split}_solution.csv"
        return [(images / f"{image_id}.JPEG", label) for image_id, (label, _) in self._boxes(solution).items()]

    def _boxes(self, path: Path) -> dict[str, tuple[int, Tensor]]:
        """Image name -> label and inclusive boxes [n,4] of a ``LOC_*_solution.csv``; empty where the split has none."""
        if not path.is_file():
            return {}
        labels = {wnid: label for label, wnid in enumerate(self.wnids)}
        found = {}
        with path.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                words = row["PredictionString"].split()
                if not words or len(words) % 5 or words[0] not in labels:
                    raise DataError(f"{path}: {row['ImageId']} has {row['PredictionString']!r}, expected 'wnid x0 y0 x1 y1 ...'")
                numbers = [[_integer(word, path) for word in words[k + 1 : k + 5]] for k in range(0, len(words), 5)]
                found[row["ImageId"]] = labels[words[0]], torch.tensor(numbers)
        return found


def _integer(word: str, path: Path) -> int:
    try:
        return int(word)
    except ValueError:
        raise DataError(f"{path}: found {word!r} where a whole number is expected") from None
