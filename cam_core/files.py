"""Files written atomically (to a temporary name, flushed, then renamed), and tensors that are mapped from a file.

Importing this does not load torch.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, in the folder of ``path``. It replaces ``path`` at the end, unless something fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Force a file or folder to the disk, so that a later rename cannot survive a crash without the content."""
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


def mapped(blocks: Iterable["Tensor"], shape: Sequence[int]) -> "Tensor":
    """A tensor of ``shape``, mapped from a temporary file that holds the ``blocks`` and is deleted with the tensor.

    The operating system pages it in and out. It lies in `tempfile`'s folder (set TMPDIR to move it): use a real disk, not tmpfs.
    """
    import torch

    with NamedTemporaryFile() as file:
        for block in blocks:
            file.write(block.contiguous().numpy().data)
            kind = block.dtype
        file.flush()
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=kind).reshape(tuple(shape))
