"""Files that are there whole or not at all: written beside their place, flushed, then renamed; and tensors that lie in a file.

Results and the book read this without loading torch.
"""

import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to: ``path`` is replaced by it at the end, or left alone where something fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Force a file or folder to the disk, so that a rename after it never outlives the content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write JSON atomically: readers see the old file or the whole new one."""
    with replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: object) -> object:
    return value.item() if hasattr(value, "item") else str(value)  # numpy and torch scalars; paths


def write_table(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a table atomically as .csv, floats to the bit."""
    with replacing(Path(path)) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def write_arrays(path: Path | str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name atomically as a compressed .npz; the same arrays give the same bytes."""
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def write_parts(path: Path | str, frames: Iterable[pd.DataFrame]) -> None:
    """Write one table atomically as .parquet, vectors as lists: from ``frames`` of the same columns, which are never held all at once.

    Without any frame nothing is written.
    """
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


def mapped(blocks: Iterable["Tensor"], shape: Sequence[int]) -> "Tensor":
    """A tensor of ``shape`` mapped from a temporary file that holds the ``blocks`` and goes with the tensor.

    The operating system pages it in and out. `tempfile` says where it lies (TMPDIR moves it): keep it on a real disk, not on tmpfs.
    """
    import torch

    with NamedTemporaryFile() as file:
        for block in blocks:
            file.write(block.contiguous().numpy().data)
            kind = block.dtype
        file.flush()
        return torch.from_file(file.name, shared=True, size=int(np.prod(shape)), dtype=kind).reshape(tuple(shape))
