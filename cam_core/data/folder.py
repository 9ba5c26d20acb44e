"""Image folders, ``<split>/<class>/<image>``."""

import os
from pathlib import Path

from cam_core.data.example import Annotation, DataError, Dataset, View


class ImageFolder(Dataset):
    """``root``/``split``/<class>/*.jpg (any of `example.ENDINGS`).

    ``classes`` are the sorted class folders of "train" (of the split where there is no "train"); images are sorted by name, class by class.
    Hidden folders and files are ignored; a warning counts other skipped files.
    """

    def __init__(self, root: Path | str, split: str = "train", view: View = "crop", size: int = 224, limit: int | None = None) -> None:
        home = Path(root)
        super().__init__(home, split, view, size, limit)
        if not (home / split).is_dir():
            found = subfolders(home)
            raise ValueError(f"unknown split {split!r}: {home} has {', '.join(found) or 'no folders'}")
        here = subfolders(home / split)
        self.classes = subfolders(home / "train") if (home / "train").is_dir() else here
        if strange := sorted(set(here) - set(self.classes)):
            raise DataError(f"{home / split / strange[0]}: a class that train does not have ({len(strange)} such); fix the folders")
        for label, kind in enumerate(self.classes):
            for path in self._images(home / split / kind) if kind in here else []:
                self.ids.append(f"{kind}_{path.stem}")
                self.annotations.append(Annotation(path, label))
        self._finish()


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without the hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
