"""Data sets that come as a few binary files, CIFAR-100 and STL-10, read by torchvision's own classes; nothing is downloaded."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision import datasets

from cam_core.data.example import Annotation, Dataset, Example, View

KINDS: dict[str, Any] = {"CIFAR-100": datasets.CIFAR100, "STL-10": datasets.STL10}


class Packed(Dataset):
    """``root``/cifar-100-python or ``root``/stl10_binary as officially packed, ``split`` "train" or "test"; ``name`` as in `KINDS`.

    Images have ids by number, "00000", and lie in memory. FileNotFoundError where a file is missing or is not the official one.
    """

    def __init__(
        self, root: Path | str, split: str = "train", view: View = "crop", size: int = 224, limit: int | None = None, *, name: str
    ) -> None:
        super().__init__(root, split, view, size, limit)
        if split not in ("train", "test"):
            raise ValueError(f"unknown split {split!r}: {name} has train and test")
        self.packed = _read(name, self.root, split)
        self.classes = list(self.packed.classes)
        file = self.root / self.packed.base_folder / getattr(self.packed, f"{split}_list")[0][0]
        labels = self.packed.targets if name == "CIFAR-100" else self.packed.labels
        self.ids = [f"{number:05d}" for number in range(len(labels))]
        self.annotations = [Annotation(file, int(label)) for label in labels]
        self._finish()

    def __getitem__(self, index: int) -> Example:
        image, _ = self.packed[int(self.ids[index])]
        seen, *_ = self.transform(image, None, None, None)
        return Example(self.ids[index], seen.as_subclass(Tensor), self.annotations[index].label, size=(image.height, image.width))


@lru_cache(maxsize=4)  # torchvision checks the sum of every file, STL-10's 2.6 GB among them
def _read(name: str, root: Path, split: str) -> Any:
    kind = KINDS[name]
    try:
        packed = kind(root, train=split == "train") if name == "CIFAR-100" else kind(root, split=split)
    except (RuntimeError, OSError) as error:
        where = root / kind.base_folder
        raise FileNotFoundError(f"{where}: not {name} as officially packed ({error}); unpack {kind.url} into {root}") from error
    if not hasattr(packed, "classes"):
        raise FileNotFoundError(f"{root / kind.base_folder / kind.class_names_file} does not exist; unpack {kind.url} into {root}")
    return packed
