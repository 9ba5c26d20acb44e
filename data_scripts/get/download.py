"""Download a file: resumed where it was cut off, complete and with the right content, or an error in one sentence.

urllib does the talking; torchvision and torch.hub start again from the first byte, which is tedious with a gigabyte.
"""

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from cam_core.data import DataError
from cam_core.files import flush

BLOCK = 2**18
TIMEOUT = 60.0  # seconds without a byte


def download(
    url: str, target: Path, sums: Mapping[str, str] | None = None, *, tries: int = 6, pause: float = 1.0, progress: bool = True
) -> None:
    """Write what ``url`` serves to ``target``, by way of ``<target>.part``, which a later call goes on with.

    ``sums``: algorithm of hashlib -> expected hexadecimal digest, or its first digits, as torchvision names its weights.
    ``tries`` connections in a row may bring nothing, ``pause`` seconds apart and each time twice as long.
    Raises `DataError` naming the address, and leaves no ``target``, where the file cannot be had or is another one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    failed, waiting = 0, pause
    while True:
        before = _size(part)
        try:
            _once(url, part, bool(sums), progress)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise DataError(
                    f"{url}: the server answers {error.code} {error.reason}; give another address or a file with --source"
                ) from error
            if isinstance(error, OSError) and error.errno == 28:
                raise DataError(f"{part}: the disk is full; free some space and start again, what has come is kept") from error
            failed, waiting = (0, pause) if _size(part) > before else (failed + 1, waiting * 2)
            if failed >= tries:
                raise DataError(
                    f"{url}: no connection, or it breaks off ({error}); start again later, the {_size(part)} bytes that came are kept"
                ) from error
            time.sleep(waiting)
    flush(part)
    found = digests(part, {"sha256", *(sums or {})})
    for kind, expected in (sums or {}).items():
        if not found[kind].startswith(expected):
            _forget(part)
            raise DataError(f"{url}: the {kind} is {found[kind]}, expected {expected}: not the published file; it was thrown away")
    part.replace(target)
    _forget(part)


def digests(path: Path, kinds: set[str]) -> dict[str, str]:
    """The hexadecimal digests of a file by algorithm, in one pass."""
    shas = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    with path.open("rb") as file:
        while block := file.read(2**20):
            for sha in shas.values():
                sha.update(block)
    return {kind: sha.hexdigest() for kind, sha in shas.items()}


def _once(url: str, part: Path, summed: bool, progress: bool) -> None:
    """One connection: append what is missing, or write everything anew where the server does not serve parts or has another file now."""
    have, tag = _size(part), _tag(part)
    version = tag.read_text() if have and tag.is_file() else ""
    if have and not version and not summed:
        _forget(part)  # nothing would tell whether what came belongs to the file that is served now
        have = 0
    headers = {"User-Agent": "data_scripts", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return  # all of it is here
        _forget(part)
        raise ConnectionError("the server has another file now than when the download began") from error
    with response:
        if response.status == 206:
            span, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if span.partition("-")[0] != str(have):
                _forget(part)
                raise ConnectionError(f"the server sends bytes {span}, asked for those from {have}")
            total = int(whole) if whole.isdigit() else None
        else:
            have, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            # a weak tag must not be sent in If-Range
            strong = response.headers.get("ETag", "W/")
            tag.write_text(response.headers.get("Last-Modified", "") if strong.startswith("W/") else strong)
        if total and shutil.disk_usage(part.parent).free < total - have:
            raise DataError(f"{part.parent}: {url} needs {total - have:,} bytes, and only {shutil.disk_usage(part.parent).free:,} are free")
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            while block := response.read1(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and _size(part) != total:
        if _size(part) > total:
            _forget(part)
        raise ConnectionError(f"{_size(part)} of {total} bytes came")


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)
