"""Image folders that come in an archive, which is unpacked once."""

import hashlib
from pathlib import Path

from cam_core.data.example import DataError, View
from cam_core.data.folder import ImageFolder
from data_scripts.get.unpack import ENDINGS, unpack

UNPACKED = Path(__file__).resolve().parents[1] / "runs/data"

# The two that LFI-CAM's runs use, by sha256: an archive of this name with other content would be another data set.
ARCHIVES = {
    "CIFAR-10-subset.zip": "26f6afda0f8b5befc545b513572fb2460d215948056697220599964bd930bbda",
    "Cat-Dog-128.zip": "70a21c7fda69305c900f942d0a5025eda8313514da0ef6439dd4d5acceed3b03",
}


def archived(
    root: Path | str,
    split: str = "train",
    view: View = "crop",
    size: int = 224,
    limit: int | None = None,
    *,
    name: str,
    unpacked: Path | str = UNPACKED,
) -> ImageFolder:
    """The `ImageFolder` in ``root``/``name``, or in the archive ``root``/``name``.zip (.tar, .tar.gz), unpacked once below ``unpacked``."""
    return ImageFolder(_home(Path(root), name, Path(unpacked)), split, view, size, limit)


def _home(root: Path, name: str, unpacked: Path) -> Path:
    """The folder with the splits: as it lies under ``root``, as unpacked before, or out of the archive."""
    for candidate in (root / name, unpacked / name):
        if candidate.is_dir():
            return candidate
    for ending in ENDINGS:
        archive = root / f"{name}{ending}"
        if archive.is_file():
            return unpacked_as(archive, unpacked / name)
    raise FileNotFoundError(f"{root / name} does not exist, nor {name}.zip beside it: point the data root at the folder that holds it")


def unpacked_as(archive: Path, target: Path) -> Path:
    """`unpack`, of an archive in `ARCHIVES` only where its content is the known one."""
    expected = ARCHIVES.get(archive.name)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected and found != expected:
        raise DataError(
            f"{archive}: its sha256 is {found[:12]}..., expected {expected[:12]}...; fetch it again, or give yours another name"
        )
    return unpack(archive, target)
