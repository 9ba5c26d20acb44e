"""ImageNet (ILSVRC2012) in the layout of the official archives and the Kaggle competition that has the boxes as one csv."""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights

from cam_core.data.example import Annotation, DataError, Dataset, View, folder, images_in, lines, table, whole
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
        folders = tuple(subfolders(images)) if images.is_dir() else ()
        files = [home / name for name in ("LOC_synset_mapping.txt", f"{split}.txt", f"LOC_{split}_solution.csv")]
        # of a file its content: two changes within a tick of the file system's clock may leave time and size as they were
        lists = tuple(hashlib.sha256(path.read_bytes()).digest() for path in files if path.is_file())
        times = tuple((path.name, path.stat().st_mtime_ns) for path in (images, *(images / name for name in folders)) if path.exists())
        index = _index(home, split, images, folders, (lists, times))
        self.wnids, self.classes, self.skipped = list(index.wnids), list(index.classes), list(index.skipped)
        self.ids, self.annotations = (
            list(index.ids),
            [Annotation(**vars(one)) for one in index.annotations],
        )  # not shared, for they may be changed
        self._finish()


@dataclass
class _Index:
    """What the files of a split say."""

    wnids: list[str]
    classes: list[str]
    ids: list[str] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


@lru_cache(maxsize=2)
def _index(home: Path, split: str, images: Path, folders: tuple[str, ...], state: object) -> _Index:
    """``state`` changes when one of the files or folders does; a notebook opens the same split under several views."""
    index = _Index(*_named(home, images, folders))
    labels = {wnid: label for label, wnid in enumerate(index.wnids)}
    boxes = _boxes(home / f"LOC_{split}_solution.csv", labels)
    for path, label in _listed(home, split, images, folders, index, boxes):
        if not 0 <= label < len(index.classes):
            raise DataError(f"{path}: label {label} is out of range: {home.name} has {len(index.classes)} classes")
        said, official, half_open, same = boxes.get(path.stem, (label, None, None, None))
        if said != label or path.parent.name not in (images.name, index.wnids[label]):
            other = path.parent.name if said == label else index.wnids[said]
            raise DataError(f"{path}: its label is {label} ({index.wnids[label]}), but its folder or boxes say {other}; fix {split}.txt")
        index.ids.append(path.stem)
        index.annotations.append(Annotation(path, label, official, half_open, same))
    return index


def _named(home: Path, images: Path, folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """The wnid and the name of every class."""
    mapping = home / "LOC_synset_mapping.txt"
    if mapping.is_file():
        rows = table(mapping, 1)
        if twice := [wnid for wnid, count in Counter(row[0] for row in rows).items() if count > 1]:
            raise DataError(f"{mapping}: lists {twice[0]} more than once; take Kaggle's file")
        return [row[0] for row in rows], [" ".join(row[1:] or row).split(",")[0] for row in rows]
    if len(folders) != 1000:
        found = f"{len(folders)} class folders do not tell which of the 1000 classes they are"
        raise DataError(f"{images}: {found}: put LOC_synset_mapping.txt into {home}")
    return list(folders), list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


def _listed(
    home: Path, split: str, images: Path, folders: Sequence[str], index: _Index, boxes: Mapping[str, tuple[int, Tensor, Tensor, Tensor]]
) -> Iterator[tuple[Path, int]]:
    """Every image of the split with its label, in the order of the list (the folder's order is the sorted one)."""
    if strange := sorted(set(folders) - set(index.wnids)):
        raise DataError(f"{images / strange[0]}: LOC_synset_mapping.txt has no such class ({len(strange)} such); fix the folders")
    names = home / f"{split}.txt"

    def inside(wnid: str) -> list[Path]:
        found, skipped = images_in(images / wnid)
        index.skipped += skipped
        return found

    if names.is_file():
        rows = table(names, 2, str, whole, str)
        with_folders = any("/" in row[0] for row in rows)
        known = {} if with_folders else {path.name: path for wnid in folders for path in inside(wnid)}
        yield from ((known.get(name) or images / name, label) for name, label, *_ in rows)
    elif folders or split == "train":
        present = set(folders)
        yield from ((path, k) for k, wnid in enumerate(index.wnids) if wnid in present for path in inside(wnid))
    else:
        yield from ((images / f"{image_id}.JPEG", label) for image_id, (label, *_) in boxes.items())


def _boxes(path: Path, labels: Mapping[str, int]) -> dict[str, tuple[int, Tensor, Tensor, Tensor]]:
    """Image name -> label, inclusive boxes [n,4], half-open ones, the label of each; empty where the split has no csv."""
    if not path.is_file() or not (known := solution(path)):
        return {}
    if strange := next((one for one, (wnid, _) in known.items() if wnid not in labels), None):
        raise DataError(f"{path}: {strange} is a {known[strange][0]}, which LOC_synset_mapping.txt does not have; fetch the file again")
    label = [labels[wnid] for wnid, _ in known.values()]
    counts = [len(boxes) for _, boxes in known.values()]
    official = torch.tensor([box for _, boxes in known.values() for box in boxes], dtype=torch.int64).reshape(-1, 4)
    half_open = (official + torch.tensor([0, 0, 1, 1])).float()
    each = torch.tensor(label).repeat_interleave(torch.tensor(counts))
    parts = zip(*(of.split(counts) for of in (official, half_open, each)), strict=True)  # at once: one by one takes seconds
    return {one: (k, *three) for one, k, three in zip(known, label, parts, strict=True)}


def solution(path: Path) -> dict[str, tuple[str, list[list[int]]]]:
    """Image name -> wnid and inclusive boxes of a ``LOC_*_solution.csv``; `DataError` names the line that is not like that."""
    found: dict[str, tuple[str, list[list[int]]]] = {}
    reader = csv.reader(lines(path))
    try:
        head = next(reader, [])
        for row in filter(None, reader):
            of = dict(zip(head, row, strict=False))
            image_id, words = of.get("ImageId"), of.get("PredictionString", "").split()
            if not image_id or not words or len(words) % 5:
                raise ValueError(f"{image_id} has {' '.join(words[:6])!r}, expected 'wnid x0 y0 x1 y1 ...' in a column PredictionString")
            if image_id in found:
                raise ValueError(f"{image_id} has a second row")
            found[image_id] = words[0], [[whole(word) for word in words[k + 1 : k + 5]] for k in range(0, len(words), 5)]
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; fix it, or fetch the file again") from error
    return found
