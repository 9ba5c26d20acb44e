"""Rows that lie in files: the same numbers, few parts, little memory, and no file left behind."""

import copy
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cam_core import metrics
from cam_core.metrics import store
from cam_core.metrics.pixels import BINS


@pytest.fixture
def small_blocks(monkeypatch, tmp_path):
    """Everything beyond a thousand bytes goes to a file, in a folder of the test's own."""
    monkeypatch.setattr(store, "BLOCK", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def mapped(folder):
    """How many files of ``folder`` this process has mapped, deleted ones included."""
    return len({line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line})


linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc, which only Linux has")


@settings(max_examples=25)
@given(st.data())
@pytest.mark.parametrize("block", [1, 200, 10**6])
def test_whatever_comes_in_comes_out_in_any_order(block, data):
    lengths = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=12))
    rows = np.random.default_rng(0).random((sum(lengths), 3))
    wanted = np.array(data.draw(st.permutations(range(len(rows)))), np.int64)[: data.draw(st.integers(0, len(rows)))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "BLOCK", block)
        kept = []
        for part in np.split(rows, np.cumsum(lengths)[:-1]):
            store.append(kept, torch.from_numpy(part))
        if len(rows):
            assert np.array_equal(store.taken(store.parts(kept)), rows)
            assert np.array_equal(store.taken(store.parts(kept), wanted), rows[wanted])
        else:
            assert not len(store.taken(store.parts(kept)))


@linux
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_two_sets_of_rows_are_stacked_in_a_file_where_they_are_long(small_blocks, kind):
    rows = np.random.default_rng(0).random((50, 4)).astype(kind)
    for first, second in ((rows[:3], rows[3:5]), (rows[:20], rows[20:]), (rows[::2], rows[1::2])):
        before = mapped(small_blocks)
        found = store.taken([first, second])
        assert found.dtype == kind
        assert np.array_equal(found, np.concatenate([first, second]))
        assert mapped(small_blocks) - before == (first.nbytes + second.nbytes >= 1000)
        del found
        assert mapped(small_blocks) == before


def test_many_batches_make_few_tensors():
    metric = metrics.MapMean()
    for i in range(1000):
        metric.record(torch.full((8, 3), float(i)), torch.arange(8 * i, 8 * i + 8))
    assert len(metric.rows) == len(metric.ids) == bin(1000).count("1")
    assert metric.per_image()[1][:, 2].tolist() == [i // 8 for i in range(8000)]


def histograms(n, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 60, (n, 2 * BINS)).astype(np.float32))


@linux
def test_the_file_goes_with_the_metric_and_is_never_seen(small_blocks):
    metric, rows = metrics.PxAP(), histograms(20)
    for number in torch.randperm(20, generator=torch.Generator().manual_seed(0)):
        metric.record(rows[number][None], number[None])
    assert mapped(small_blocks)
    ids, found = metric.per_image()
    assert np.array_equal(found, rows)
    assert ids.tolist() == list(range(20))
    assert not found.flags.writeable
    assert not list(small_blocks.iterdir())
    del found
    metric.reset()
    assert not mapped(small_blocks)
    metric.record(rows[:1])  # and it can be used again
    assert len(metric.per_image()[1]) == 1


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.usefixtures("small_blocks")
def test_copies_pickles_and_merged_pieces_hold_the_same_numbers():
    rows, pieces = histograms(30), [metrics.PxAP() for _ in range(3)]
    for n, piece in enumerate(pieces):
        piece.record(rows[n::3], torch.arange(30)[n::3])
    whole = copy.deepcopy(pieces[0])
    for piece in pieces[1:]:
        whole.merge_state(piece)
    for other in (whole, copy.deepcopy(whole), copy.copy(whole), pickle.loads(pickle.dumps(whole))):
        assert np.array_equal(other.per_image()[1], rows)
    assert len(pieces[0].per_image()[1]) == 10  # the copy was one
    in_memory = metrics.PxAP()
    in_memory.rows, in_memory.ids = [rows], [torch.arange(30)]
    assert whole.compute() == in_memory.compute()
    assert whole.interval(resamples=40) == in_memory.interval(resamples=40)


def test_sums_of_long_rows_are_taken_part_by_part():
    """40,000 rows of 300 numbers are more than one part; integers, so any order must give the same bits."""
    rows = np.random.default_rng(0).integers(0, 9, (40_000, 300)).astype(np.float32)
    weights = np.random.default_rng(1).integers(0, 4, (2, 40_000)).astype(np.float64)
    assert np.array_equal(metrics.statistics.total(rows, weights), weights @ rows.astype(np.float64))
    assert np.array_equal(metrics.statistics.total(rows), rows.astype(np.float64).sum(0))


def own_memory():
    """Megabytes that belong to this process alone; what is mapped from files can be dropped and does not count."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


@linux
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images():
    """Histograms of 20,000 images are 160 MB; nothing of that stays in memory, neither recorded nor read."""
    metric, batch, count = metrics.PxAP(), histograms(16), 20_000
    before = own_memory()
    for start in range(0, count, 16):
        metric.record(batch, torch.arange(start, start + 16).flip(0))
    recorded = own_memory() - before
    value, (ids, rows) = metric.compute(), metric.per_image()
    read = own_memory() - before
    assert len(ids) == len(rows) == count
    assert rows.nbytes > 160e6
    assert max(recorded, read) < 60
    assert value == pytest.approx(metric.summary(rows[:16]), rel=1e-12)  # the same sixteen images over and over
