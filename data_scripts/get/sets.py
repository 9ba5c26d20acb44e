"""The data sets that can be fetched: where from, under which licence, how large, and what a complete one is."""

import os
import shutil
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchvision import datasets
from torchvision.datasets.voc import DATASET_YEAR_DICT

from cam_core.data import CUB200, VOC2007, DataError
from cam_core.data.folder import subfolders
from cam_core.files import flush, write_json
from data_scripts.get.download import digests, download
from data_scripts.get.unpack import unpack

MANIFEST = "manifest.json"
WORK = ".get"  # below the data root: archives and unpacked folders that are not finished


@dataclass(frozen=True)
class Archive:
    """A published file: address, checksums by algorithm (empty: none is known), bytes, the folder of the tree that it is unpacked into."""

    url: str
    sums: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0
    into: str = "."

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(urllib.parse.urlparse(self.url).path).name


@dataclass(frozen=True)
class Official:
    """A data set that is made of published archives.

    ``place``: its folder below the data root. ``counts``: split -> images, of a tree that was unpacked below a root, raising where the
    layout is not the expected one. ``complete``: what ``counts`` gives for the official archives. ``arrange``: what is moved first.
    """

    about: str
    licence: str
    place: str
    archives: tuple[Archive, ...]
    counts: Callable[[Path], dict[str, int]]
    complete: Mapping[str, int]
    arrange: Callable[[Path], None] = lambda _: None

    @property
    def bytes(self) -> int:
        """Of all archives together."""
        return sum(archive.bytes for archive in self.archives)


def _voc(root: Path) -> dict[str, int]:
    return {split: len(VOC2007(root, split)) for split in ("trainval", "test")}


def _cub(root: Path) -> dict[str, int]:
    return {split: len(CUB200(root, split)) for split in ("train", "test")}


def _arrange_cub(root: Path) -> None:
    if (beside := root / "attributes.txt").is_file():
        (root / "CUB_200_2011/attributes").mkdir(exist_ok=True)
        beside.rename(root / "CUB_200_2011/attributes/attributes.txt")


def _torchvision(kind: Any) -> Callable[[Path], dict[str, int]]:
    """torchvision's own data set, which holds every file against its checksum."""

    def counts(root: Path) -> dict[str, int]:
        try:
            if kind is datasets.STL10:
                return {split: len(kind(root, split=split)) for split in ("train", "test")}
            return {split: len(kind(root, train=split == "train")) for split in ("train", "test")}
        except (RuntimeError, OSError) as error:
            raise DataError(f"{root / kind.base_folder}: not {kind.__name__} as officially packed ({error})") from error

    return counts


def _packed(kind: Any, about: str, size: int, licence: str, **complete: int) -> Official:
    archive = Archive(kind.url, {"md5": kind.tgz_md5}, size)
    return Official(about, licence, kind.base_folder, (archive,), _torchvision(kind), complete)


_VOC = [DATASET_YEAR_DICT[key] for key in ("2007", "2007-test")]
_CALTECH = "https://data.caltech.edu/records"
OFFICIAL = {
    "voc07": Official(
        "PASCAL VOC2007, trainval and test, with boxes",
        "images from Flickr, under Flickr's terms of use; research",
        "VOCdevkit/VOC2007",
        tuple(Archive(of["url"], {"md5": of["md5"]}, size) for of, size in zip(_VOC, (460_032_000, 451_020_800), strict=True)),
        _voc,
        {"trainval": 5011, "test": 4952},
    ),
    "cub200": Official(
        "CUB-200-2011 with boxes, parts, attributes and segmentations",
        "non-commercial research and education; the images belong to their photographers",
        "CUB_200_2011",
        (
            Archive(f"{_CALTECH}/65de6-vp158/files/CUB_200_2011.tgz", {"md5": "97eceeb196236b17998738112f37df78"}, 1_150_585_339),
            Archive(
                f"{_CALTECH}/w9d68-gec53/files/segmentations.tgz", {"md5": "4d47ba1228eae64f2fa547c47bc65255"}, 39_272_883, "CUB_200_2011"
            ),
        ),
        _cub,
        {"train": 5994, "test": 5794},
        _arrange_cub,
    ),
    "cifar10": _packed(
        datasets.CIFAR10,
        "CIFAR-10 as packed for Python",
        170_498_071,
        "no licence text; research",
        train=50_000,
        test=10_000,
    ),
    "cifar100": _packed(
        datasets.CIFAR100, "CIFAR-100 as packed for Python", 169_001_437, "no licence text; research", train=50_000, test=10_000
    ),
    "stl10": _packed(
        datasets.STL10, "STL-10, binary", 2_640_397_119, "images from ImageNet, under its terms; research", train=5000, test=8000
    ),
}  # fmt: skip


def fetch(
    name: str, root: Path, source: str | None = None, *, of: Official | None = None, unverified: bool = False, progress: bool = True
) -> Path:
    """Make the data set ``name`` below ``root`` unless it is there; its folder, with a `MANIFEST` in it, appears complete or not at all.

    ``source``: an address or a folder that holds the archives under their official names, or, where there is one archive, the file; None:
    the official addresses. ``unverified``: take archives whose checksum is not the published one, and fewer images; the manifest says so.
    """
    of = of or OFFICIAL[name]
    final, work = root / of.place, root / WORK
    if final.exists():
        if not (final / MANIFEST).is_file():
            raise DataError(f"{final} exists and was not fetched by this command; check it with `python -m data_scripts.check`, or move it")
        _check_counts(of, of.counts(root), final, unverified)
        return final
    tree = work / f"{name}.tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    files = {}
    try:
        for archive in of.archives:
            path = _obtained(archive, of, source, work, unverified, progress)
            files[archive.name] = _facts(path, archive, unverified)
            _unpack_into(path, tree / archive.into, work)
        of.arrange(tree)
        if not (tree / of.place).is_dir():
            raise DataError(f"{source or name}: its archives hold {', '.join(subfolders(tree)) or 'nothing'}, expected {of.place}")
        counts = of.counts(tree)
        _check_counts(of, counts, tree / of.place, unverified)
        came = followed(source) if source else [archive.url for archive in of.archives]
        content = {"name": name, "licence": of.licence, "source": came, "files": files, "images": counts}
        write_json(tree / of.place / MANIFEST, content)
        final.parent.mkdir(parents=True, exist_ok=True)
        flush(tree / of.place)
        (tree / of.place).rename(final)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    for archive in of.archives:
        (work / archive.name).unlink(missing_ok=True)  # what was downloaded; a file given by --source lies elsewhere
    if not any(work.iterdir()):
        work.rmdir()
    return final


def followed(source: str | Path) -> str:
    """A source as a manifest keeps it: an address as it is, of a path the whole, which leads there from anywhere."""
    return str(source) if str(source).startswith(("http://", "https://")) else str(Path(source).resolve())


def _obtained(archive: Archive, of: Official, source: str | None, work: Path, unverified: bool, progress: bool) -> Path:
    """The archive's file: downloaded into ``work``, or where ``source`` says it lies."""
    if source and not source.startswith(("http://", "https://")):
        path = Path(source)
        path = path / archive.name if path.is_dir() else path
        if not path.is_file() or (len(of.archives) > 1 and path == Path(source)):
            wanted = ", ".join(one.name for one in of.archives)
            raise DataError(f"{source}: expected a folder that holds {wanted}")
        return path
    url = archive.url
    if source:
        url = source if source.endswith(archive.name) and len(of.archives) == 1 else f"{source.rstrip('/')}/{archive.name}"
    target = work / archive.name
    if not target.is_file():
        download(url, target, {} if unverified else archive.sums, progress=progress)
    return target


def _facts(path: Path, archive: Archive, unverified: bool) -> dict[str, Any]:
    """Bytes and checksums of an archive's file; `DataError` where they are not the published ones."""
    found = digests(path, {"sha256", *archive.sums})
    known = bool(archive.sums) and all(found[kind] == value for kind, value in archive.sums.items())
    if archive.sums and not known and not unverified:
        kind, value = next(iter(archive.sums.items()))
        raise DataError(f"{path}: its {kind} is {found[kind]}, the published file's is {value}; fetch it again, or pass --unverified")
    verified = "published checksum" if known else "not the published checksum" if archive.sums else "no published checksum is known"
    return {"bytes": path.stat().st_size, **found, "verified": verified}


def _unpack_into(archive: Path, folder: Path, work: Path) -> None:
    """Unpack, and merge with what other archives of the set put into the same folders."""
    loose = work / f"{archive.name}.loose"
    shutil.rmtree(loose, ignore_errors=True)
    try:
        unpack(archive, loose)
        for here, _, names in os.walk(loose):
            there = folder / Path(here).relative_to(loose)
            there.mkdir(parents=True, exist_ok=True)
            for name in names:
                (Path(here) / name).replace(there / name)
    finally:
        shutil.rmtree(loose, ignore_errors=True)


def _check_counts(of: Official, counts: Mapping[str, int], place: Path, unverified: bool) -> None:
    fewer = [f"{count:,} of {of.complete[split]:,} {split}" for split, count in counts.items() if count != of.complete[split]]
    if fewer and not unverified:
        raise DataError(f"{place}: not complete, has {' and '.join(fewer)} images; remove it and fetch it again, or pass --unverified")
