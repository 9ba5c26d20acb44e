"""Tables, arrays and folders of a run, each written whole or not at all, and the word for a full disk. Loads no torch, pandas late."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cam_core.files import flush, replacing

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def write_table(path: Path | str, frame: "pd.DataFrame") -> None:
    """Write a table atomically as .csv, floats to the bit."""
    with replacing(Path(path)) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def write_arrays(path: Path | str, arrays: "Mapping[str, NDArray[Any]]") -> None:
    """Write arrays by name atomically as a compressed .npz; the same arrays give the same bytes."""
    import numpy as np

    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def write_parts(path: Path | str, frames: "Iterable[pd.DataFrame]") -> None:
    """Write one table atomically as .parquet, vectors as lists: from ``frames`` of the same columns, which are never held all at once.

    Without any frame nothing is written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return
    schema = pa.Table.from_pandas(first, preserve_index=False).schema
    with replacing(Path(path)) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for frame in itertools.chain([first], frames):
            writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))


def replace_folder(new: Path, final: Path) -> None:
    """Give the finished folder `new` its final name; a folder that had the name makes room first."""
    flush(new)
    old = final.with_name(final.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def no_room(error: BaseException, path: Path) -> str:
    """What to tell if ``error``, or one behind it, came of a full disk, on which ``path`` lies; else ""."""
    place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    free, full, told, behind = shutil.disk_usage(place).free, (errno.ENOSPC, errno.EDQUOT), False, [error]
    while behind:
        one = behind.pop()
        told |= isinstance(one, OSError) and one.errno in full
        told |= any(os.strerror(number) in str(one) for number in full)  # of a kernel comes text alone
        told |= isinstance(one, json.JSONDecodeError) and free < 2**20  # what could not be written whole
        behind += [other for other in (one.__cause__, one.__context__) if other]
    if not told:
        return ""
    mount = next(folder for folder in (place, *place.parents) if os.path.ismount(folder))
    return f"no room left on {mount} ({free / 1e9:.1f} GB free): make room there, and start again"
