"""What is counted once: a table of many images lies in files, and what stays in memory is little for each image and method."""

import ctypes
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import metrics
from benchmarks.race import Peak
from cam_core.metrics import store
from reproduce.files import write_parts

METHODS = 3


def in_use():
    """Megabytes of the process's own memory that are in use: what was freed and the heap keeps, 240 MB in some runs, goes back first."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return metrics._own()


def filled_and_written(count, folder):
    """Bytes of the process's own memory in use at the most, and on the disk."""
    store.BLOCK = 2**16  # rows go to files early, as those of many more images do by themselves
    with Peak(in_use) as memory:
        write_parts(folder / "rows.parquet", metrics.filled(count, METHODS).per_image())
    return memory.top * 2**20, (folder / "rows.parquet").stat().st_size


def test_a_table_has_a_row_for_every_image_of_every_metric():
    table = metrics.filled(40, 2)
    assert len(table.metrics) == 2 * len(metrics.every_metric())
    assert all(len(metric.per_image()[0]) == 40 for metric in table.metrics.values())
    assert all(np.isfinite(metric.compute()) for metric in table.metrics.values())


def test_images_are_counted_where_they_enter_the_network(monkeypatch):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 3, 1), torch.nn.Conv2d(3, 1, 1))

    def call():
        return [network[:2](torch.rand(count, 3, 2, 2)) for count in (5, 3)]

    monkeypatch.setitem(metrics.CURVES, "invented", lambda _backbone: call)
    assert metrics.images_passed("", "invented") == 8
    assert metrics.images_passed("", "invented") == 8  # the first count left nothing behind


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")
def test_fifty_thousand_images_of_ten_methods_fit_in_two_gigabytes(tmp_path, monkeypatch):
    """From what one more image costs each method, counted in processes of their own.

    They give every large block back at once, and small ones before each look: the sum below is sixteen times what is kept by chance.
    """
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**16))
    counts, used = (2_000, 12_000), []
    for count in counts:
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            used.append(fresh.submit(filled_and_written, count, tmp_path).result())
    (few, few_written), (many, many_written) = used
    each = (many - few) / (counts[1] - counts[0]) / METHODS
    assert few + each * (50_000 * 10 - counts[0] * METHODS) < 2e9
    assert many_written > 3 * few_written
