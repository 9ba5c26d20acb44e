"""Storage of many rows: joined as they come, and moved to temporary files if they are large."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_core.files import mapped

BLOCK = 2**20  # bytes; larger tensors are mapped from a file


def append(kept: list[Tensor], rows: Tensor) -> None:
    """Add rows [n,...] to what is ``kept``: few tensors instead of one a batch, and those of `BLOCK` bytes or more mapped from a file."""
    kept.append(mapped([rows], rows.shape) if rows.nbytes >= BLOCK else rows)
    while len(kept) > 1 and len(kept[-2]) <= len(kept[-1]) and kept[-2].nbytes < BLOCK:  # so that each row is copied at most log(n) times
        joined = torch.cat([kept[-2], kept[-1]])
        kept[-2:] = [mapped([joined], joined.shape) if joined.nbytes >= BLOCK else joined]


def parts(state: Tensor | Sequence[Tensor]) -> list[NDArray[Any]]:
    """The arrays of a state, on the CPU; a synchronised state is a single tensor, and empty parts are left out."""
    return [part.cpu().numpy() for part in ([state] if isinstance(state, Tensor) else state) if len(part)]


def taken(kept: Sequence[NDArray[Any]], order: NDArray[np.int64] | None = None) -> NDArray[Any]:
    """Rows ``order`` (default: all) of the joined parts, in one array, which is mapped from a file where it is long."""
    if not kept:
        return np.zeros(0)
    every = np.arange(sum(map(len, kept)))
    order = every if order is None else order
    if len(kept) == 1 and np.array_equal(order, every):
        return kept[0]
    shape, wide = (len(order), *kept[0].shape[1:]), kept[0][:1].nbytes
    if len(order) * wide < BLOCK:
        return np.concatenate(kept)[order]
    return mapped(_gathered(kept, order, BLOCK // wide + 1), shape).numpy()


def _gathered(kept: Sequence[NDArray[Any]], order: NDArray[np.int64], step: int) -> Iterator[Tensor]:
    """Rows ``order`` of the joined parts, ``step`` at a time."""
    starts = np.cumsum([0, *map(len, kept)])
    for some in (order[i : i + step] for i in range(0, len(order), step)):
        rows = np.empty((len(some), *kept[0].shape[1:]), kept[0].dtype)
        for part, start in zip(kept, starts, strict=False):
            own = (some >= start) & (some < start + len(part))
            rows[own] = part[some[own] - start]
        yield torch.from_numpy(rows)
