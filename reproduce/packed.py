"""Data sets that come as a few binary files: CIFAR-100 and STL-10, read by torchvision's own classes, and CIFAR-10. Nothing is downloaded.

CIFAR-10 is read from its binary version, or from the one for Python, of whose pickles only arrays, lists and texts are accepted.
"""

import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import datasets

from cam_core.data.example import Annotation, DataError, Dataset, Example, View, lines

KINDS: dict[str, Any] = {"CIFAR-10": datasets.CIFAR10, "CIFAR-100": datasets.CIFAR100, "STL-10": datasets.STL10}
CIFAR10 = ("cifar-10-batches-bin", "cifar-10-batches-py")  # either will do


class Packed(Dataset):
    """``root``/cifar-10-batches-bin or -py, cifar-100-python or stl10_binary, as officially packed; ``name`` as in `KINDS`.

    ``split``: "train" or "test". Images have ids by number, "00000", and lie in memory.
    FileNotFoundError where a file is missing or is not the official one.
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
        labels = self.packed.labels if name == "STL-10" else self.packed.targets
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
    if name == "CIFAR-10":
        return _cifar10(root, split)
    try:
        packed = kind(root, train=split == "train") if name == "CIFAR-100" else kind(root, split=split)
    except (RuntimeError, OSError) as error:
        where = root / kind.base_folder
        raise FileNotFoundError(f"{where}: not {name} as officially packed ({error}); unpack {kind.url} into {root}") from error
    if not hasattr(packed, "classes"):
        raise FileNotFoundError(f"{root / kind.base_folder / kind.class_names_file} does not exist; unpack {kind.url} into {root}")
    return packed


@dataclass
class _Cifar10:
    """CIFAR-10's images [n,32,32,3], labels and class names, with the interface of torchvision's classes."""

    data: NDArray[np.uint8]
    targets: list[int]
    classes: list[str]
    base_folder: str
    train_list: tuple[tuple[str], ...]
    test_list: tuple[tuple[str], ...]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.data[index]), self.targets[index]


def _cifar10(root: Path, split: str) -> _Cifar10:
    home = next(root / place for place in CIFAR10 if (root / place).is_dir())
    binary = home.name.endswith("bin")
    ending = ".bin" if binary else ""
    names = {"train": [f"data_batch_{k}{ending}" for k in range(1, 6)], "test": [f"test_batch{ending}"]}
    pixels, labels = zip(*((_binary if binary else _pickled)(home / name) for name in names[split]), strict=True)
    if binary:
        classes = [line.strip() for line in lines(home / "batches.meta.txt") if line.strip()]
    else:
        classes = list(map(str, _unpickled(home / "batches.meta").get("label_names", [])))
    if len(classes) != 10 or not {*(found := np.concatenate(labels).tolist())} <= {*range(10)}:
        raise DataError(f"{home}: not CIFAR-10 as officially packed: {len(classes)} classes, labels up to {max(found)}; unpack it again")
    data = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    parts = {kind: tuple((name,) for name in of) for kind, of in names.items()}
    return _Cifar10(np.ascontiguousarray(data), found, classes, home.name, parts["train"], parts["test"])


def _binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels [n,3072] and labels [n]: a row is the label, then red, green and blue."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; unpack {datasets.CIFAR10.url} or its binary version into {path.parents[1]}")
    rows = np.fromfile(path, np.uint8)
    if not len(rows) or len(rows) % 3073:
        raise DataError(f"{path}: has {len(rows)} bytes, expected 3073 an image; unpack it again")
    return rows.reshape(-1, 3073)[:, 1:], rows.reshape(-1, 3073)[:, 0]


def _pickled(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    content = _unpickled(path)
    pixels, labels = np.asarray(content.get("data")), np.asarray(content.get("labels"))
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
        raise DataError(f"{path}: not a batch of CIFAR-10; unpack {datasets.CIFAR10.url} again")
    return pixels, labels


class _Arrays(pickle.Unpickler):
    """Only what NumPy's arrays are made of; anything else a pickle asks for might run code."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}
        if module.partition(".")[0] != "numpy" or name not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return allowed[name]


def _unpickled(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; unpack {datasets.CIFAR10.url} into {path.parents[1]}")
    try:
        with path.open("rb") as file:
            found = _Arrays(file, encoding="latin1").load()  # written by Python 2
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(f"{path}: refuses to read it ({error}); unpack {datasets.CIFAR10.url} again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a part of CIFAR-10; unpack {datasets.CIFAR10.url} again")
    return found
