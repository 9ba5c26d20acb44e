"""Image folders, ``<name>/<split>/<class>/<image>``, read from a folder or from an archive that is unpacked once."""

import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import torch
from torchvision.transforms import v2

from cam_core.data.example import Annotation, DataError, Dataset, View, visible

UNPACKED = Path(__file__).resolve().parents[2] / "runs/data"

# The two that LFI-CAM's runs use, by sha256: an archive of this name with other content would be another data set.
ARCHIVES = {
    "CIFAR-10-subset.zip": "26f6afda0f8b5befc545b513572fb2460d215948056697220599964bd930bbda",
    "Cat-Dog-128.zip": "70a21c7fda69305c900f942d0a5025eda8313514da0ef6439dd4d5acceed3b03",
}


class ImageFolder(Dataset):
    """``root``/``name``/``split``/<class>/*.jpg (any of `example.ENDINGS`), or the same inside ``root``/``name``.zip (.tar, .tar.gz).

    ``classes`` are the sorted class folders of "train" (of the split where there is no "train"); images are sorted by name, class by class.
    Hidden folders and files are no classes and no images; a warning counts what else is skipped.
    An archive is unpacked once into ``unpacked``/``name``.
    """

    def __init__(
        self,
        root: Path | str,
        split: str = "train",
        view: View = "crop",
        size: int = 224,
        limit: int | None = None,
        *,
        name: str = "",
        unpacked: Path | str = UNPACKED,
    ) -> None:
        home = _home(Path(root), name, Path(unpacked))
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
    """Names of the folders `visible` in a folder, sorted."""
    return [path.name for path in visible(folder) if path.is_dir()]


def _home(root: Path, name: str, unpacked: Path) -> Path:
    """The folder with the splits: as it lies under ``root``, as unpacked before, or out of the archive."""
    for candidate in (root / name, unpacked / name if name else root):
        if candidate.is_dir():
            return candidate
    for ending in (".zip", ".tar", ".tar.gz", ".tgz"):
        archive = root / f"{name}{ending}"
        if archive.is_file():
            return unpack(archive, unpacked / name)
    raise FileNotFoundError(f"{root / name} does not exist, nor {name}.zip beside it: point the data root at the folder that holds it")


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a zip or tar archive into the new folder ``target``, all or nothing; `DataError` if a name or the content is not safe."""
    expected = ARCHIVES.get(archive.name)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected and found != expected:
        raise DataError(
            f"{archive}: its sha256 is {found[:12]}..., expected {expected[:12]}...; fetch it again, or give yours another name"
        )
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.mkdir(parents=True)
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as content:
                for member in content.infolist():
                    _refuse(archive, member)
                content.extractall(part)
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
        if not target.is_dir():  # another process may have been faster
            part.rename(target)
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); fetch it again") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _refuse(archive: Path, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or link:
        raise DataError(f"{archive}: refuses to unpack {member.filename!r}, {'a link' if link else 'which leads out of its folder'}")


def middle_square(side: int) -> v2.Transform:
    """A view: short side scaled to ``side``, the middle square cut out; a float image [3,side,side] in [0, 1]."""
    return v2.Compose([v2.Resize(side, antialias=True), v2.CenterCrop(side), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
