"""Unpack a zip or tar archive without trusting it."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cam_core.data import DataError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
RATIO, SLACK = 30, 2**28  # images hardly shrink in an archive, annotations tenfold; what grows more is a bomb
MEMBERS = 4_000_000


def unpack(archive: Path, target: Path) -> Path:
    """Unpack into the new folder ``target``, all or nothing.

    `DataError` where the archive is damaged, where a name leads out of the folder, where something is neither file nor folder (links,
    devices), and where the content is more than `RATIO` times as large as the archive or than the free disk.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive) or archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as content:
                for member in content.infolist():
                    _refuse(archive, member.filename, "a link" if stat.S_ISLNK(member.external_attr >> 16) else "")
                _extract(archive, part, content.infolist(), lambda member: content.extract(member, part))
        else:
            with tarfile.open(archive) as tar:
                _extract(archive, part, _plain(archive, tar), lambda member: tar.extract(member, part, set_attrs=False, filter="data"))
        if not target.is_dir():  # another process may have been faster
            part.rename(target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}); fetch it again") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _extract(archive: Path, part: Path, members: Iterable[Any], extract: Callable[[Any], object]) -> None:
    total, limit = 0, min(archive.stat().st_size * RATIO + SLACK, shutil.disk_usage(part).free)
    for number, member in enumerate(members):
        total += member.file_size if isinstance(member, zipfile.ZipInfo) else member.size
        if total > limit or number >= MEMBERS:
            raise DataError(f"{archive}: refuses to unpack more than {limit:,} bytes or {MEMBERS:,} files out of it: too much for its size")
        extract(member)


def _plain(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        kind = "" if member.isreg() or member.isdir() else "a link" if member.issym() or member.islnk() else "a device"
        _refuse(archive, member.name, kind)
        yield member


def _refuse(archive: Path, name: str, kind: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    out = path.is_absolute() or ".." in path.parts or any(":" in word for word in path.parts[:1])
    if kind or out:
        raise DataError(f"{archive}: refuses to unpack {name!r}, {kind or 'which leads out of its folder'}")
