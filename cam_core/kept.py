"""Rows kept on the disk block by block while they are measured: an evaluation resumes after a kill, and may be measured in shards."""

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cam_core.files import replacing
from cam_core.metrics import Metric, store
from cam_core.table import Table


@dataclass(frozen=True)
class Kept:
    """A folder of measured rows, a file for every ``block`` images (in whole batches) of an evaluation.

    What the folder has is not measured again: give each state of code, models and threads a folder of its own. Shard ``shard`` of ``of``
    measures every ``of``-th block alone; later the whole evaluation finds these blocks, and measures those that are missing.
    """

    folder: Path
    shard: int = 0
    of: int = 1
    block: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.shard < self.of:
            raise ValueError(f"there is no shard {self.shard} of {self.of}: they are numbered from 0")

    def blocks(self, images: int, batch_size: int) -> Iterator[range]:
        """The places of the images of each of this shard's blocks. No batch is cut, so that networks see the same batches in any case."""
        size = max(1, self.block // batch_size) * batch_size
        every = [range(start, min(start + size, images)) for start in range(0, images, size)]
        return iter(every[self.shard :: self.of])

    def path(self, evaluation: str, places: range) -> Path:
        """The file of a block of images; ``evaluation`` says in words what is measured of which images of which network."""
        return self.folder / f"{hashlib.sha256(evaluation.encode()).hexdigest()[:20]}-{places.start:06d}-{places.stop:06d}.npz"


def write(path: Path, table: Table) -> None:
    """Write the rows of a table, whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, metric in enumerate(table.metrics.values()):
        if metric.ids:
            arrays[f"ids/{number}"] = store.taken(store.parts(metric.ids))
            arrays[f"rows/{number}"] = store.taken(store.parts(metric.rows))
    arrays |= {f"empty/{protocol}/{method}": of for (protocol, method), of in table.empty.items()}
    arrays |= {f"spent/{method}": of for method, of in table.spent.items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def add(path: Path, table: Table) -> bool:
    """Add the rows that `write` wrote of some of the images to a table of the same metrics; False if there are none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (FileNotFoundError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return False
    for number, metric in enumerate(table.metrics.values()):
        if f"ids/{number}" in arrays:
            ids, rows = (torch.from_numpy(arrays[f"{part}/{number}"]) for part in ("ids", "rows"))
            Metric._keep(metric, ids, rows)  # the ids are those that the metric's own `_keep` made
    for name, array in arrays.items():
        kind, _, of = name.partition("/")
        if kind == "empty":
            protocol, _, method = of.partition("/")
            np.maximum(table.empty.setdefault((protocol, method), array), array, out=table.empty[protocol, method])
        elif kind == "spent":
            table.spent[of] = table.spent.get(of, 0) + array
    return True
