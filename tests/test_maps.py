"""Rescaling, resizing and muting of maps."""

import math

import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from cam_core import maps
from cam_core.protocol import PROTOCOLS, finish


def test_min_max_by_hand_and_of_maps_that_say_nothing():
    m = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[4.0, 4.0], [4.0, 4.0]], [[0.0, float("nan")], [1.0, 2.0]]])
    assert torch.equal(maps.min_max(m)[0], torch.tensor([[0.0, 0.5], [0.25, 1.0]]))
    assert not maps.min_max(m)[1:].any()
    assert maps.is_empty(m).tolist() == [False, True, True]


@pytest.mark.parametrize("size", [(224, 224), (37, 91), (5, 5)])
def test_upsampling_is_opencvs(size):
    m = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0))
    for mode, flag in (("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)):
        want = np.stack([cv2.resize(one.numpy(), (size[1], size[0]), interpolation=flag) for one in m])
        assert np.abs(maps.upsample(m, size, mode).numpy() - want).max() < 2e-6


@pytest.mark.parametrize(("fraction", "survivors"), [(0.5, 25088), (0.15, 7527), (1.0, 50176)])
def test_survivors_of_muting_at_224(fraction, survivors):
    m = torch.rand(2, 224, 224, generator=torch.Generator().manual_seed(0)) + 0.01
    assert (maps.top_fraction(m, fraction) > 0).sum((1, 2)).tolist() == [survivors] * 2


def test_the_share_that_stays_is_what_the_dropped_one_leaves():
    """As released: ceil((1 - 0.85) 25600) is 3841, and the 21760th of the values is not below itself."""
    m = torch.arange(1.0, 160 * 160 + 1).view(1, 160, 160)
    kept = maps.top_fraction(m, 0.15)
    assert int((kept > 0).sum()) == 3841
    assert kept[kept > 0].min() == 21760
    assert int((maps.top_fraction(m, 0.5) > 0).sum()) == 12800


def muted(values: np.ndarray, fraction: float) -> np.ndarray:
    """L-CAM's rule, one value at a time."""
    n = len(values)
    drop = 1 - fraction
    rank = int(n * drop)
    if rank == 0:
        return values
    threshold = sorted(values)[rank - 1]
    out = [0.0 if v < threshold else v for v in values]
    quota = int(np.ceil((1 - drop) * n))
    for i in range(n):
        if sum(v > 0 for v in out) > quota and out[i] == threshold:
            out[i] = 0.0
    return np.array(out)


@given(st.lists(st.integers(0, 6), min_size=4, max_size=60), st.sampled_from([0.15, 0.3, 0.5, 0.9, 1.0]))
@settings(max_examples=200, deadline=None)
def test_muting_with_ties_goes_in_scan_order(values, fraction):
    array = np.array(values, dtype=np.float64) / 6
    got = maps.top_fraction(torch.tensor(array).view(1, 1, -1), fraction)[0, 0].numpy()
    assert np.array_equal(got, muted(array, fraction))


def test_the_order_of_finishing_is_the_protocols():
    raw = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0)) - 0.3
    l_cam = finish(raw, (224, 224), PROTOCOLS["l_cam"].finishing)
    wsol = finish(raw, (224, 224), PROTOCOLS["wsol"].finishing)
    unit = (raw - raw.min()) / (raw.max() - raw.min())
    want = cv2.resize(unit[0].numpy(), (224, 224), interpolation=cv2.INTER_LINEAR)
    assert np.abs(l_cam[0].numpy() - want).max() < 1e-6
    cubic = cv2.resize(raw[0].numpy().astype(np.float64), (224, 224), interpolation=cv2.INTER_CUBIC)
    cubic = (cubic - cubic.min()) / (cubic.max() - cubic.min())
    assert np.abs(wsol[0].numpy() - cubic).max() < 1e-5
    assert float(l_cam.max()) < 1.0  # the maximum of a map shrinks when it is resized last
    assert float(wsol.max()) == 1.0


@given(arrays(np.float64, (2, 3, 4), elements=st.floats(-100, 100, width=32)))
def test_correlation_beside_loops(pair):
    a, b = pair.reshape(2, -1)
    found = float(maps.correlation(*torch.from_numpy(pair)[:, None]))
    if np.ptp(a) > 1e-3 and np.ptp(b) > 1e-3:
        ma, mb = math.fsum(a) / len(a), math.fsum(b) / len(b)
        spread = math.sqrt(math.fsum((x - ma) ** 2 for x in a) * math.fsum((y - mb) ** 2 for y in b))
        assert found == pytest.approx(math.fsum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True)) / spread, abs=1e-9)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert math.isnan(found)


def test_correlation_of_what_is_constant_up_to_rounding_is_none():
    ramp = torch.arange(9.0).reshape(1, 3, 3)
    assert maps.correlation(ramp, torch.full((1, 3, 3), 0.1)).isnan().all()  # the mean of nine 0.1 is not 0.1
    assert maps.correlation(torch.cat([ramp, ramp]), torch.cat([2 * ramp, -ramp])).tolist() == pytest.approx([1, -1])
