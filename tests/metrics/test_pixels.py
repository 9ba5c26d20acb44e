"""Pixels against boxes and masks: worked facts, loops, and numpy's histogram with the official edges."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cam_core import metrics
from cam_core.metrics.localization import inside
from cam_core.metrics.pixels import average_precision, pixel_histogram, ranked_precision
from cam_core.metrics.statistics import wilson


def test_pixel_histogram_equals_numpy_with_the_official_edges():
    thresholds = np.arange(0, 1, 0.001)
    edges = np.array([*thresholds, 1.0, 2.0, 3.0])
    rng = np.random.default_rng(0)
    scores = np.concatenate(
        [rng.random(5000), thresholds, np.nextafter(thresholds[1:], 0), [0, 1, np.nextafter(1, 0)], rng.integers(0, 1001, 500) / 1000]
    )
    positive = rng.random(len(scores)) < 0.4
    ours = pixel_histogram(scores, positive)
    for row, part in ((1, scores[positive]), (0, scores[~positive])):
        assert np.array_equal(ours[row], np.histogram(part, edges)[0][:1001])


def test_pixels_that_are_not_counted_and_scores_out_of_range():
    scores, truth = np.array([0.0, 0.5, 1.0, 0.5]), np.array([0, 1, 1, -1])
    for thresholds in ("even", "log"):
        assert pixel_histogram(scores, truth, thresholds).sum(1).tolist() == [1, 2]
    for bad in (-1e-9, 1.0001, float("nan")):
        with pytest.raises(ValueError, match="takes scores from 0 to 1"):
            pixel_histogram([0.5, bad], [True, False])
    with pytest.raises(ValueError, match="got 1 for 2"):
        pixel_histogram([0.5, 0.6], [True])


def test_average_precision_of_known_maps():
    rng = np.random.default_rng(0)
    truth = rng.random((224, 224)) < 0.3
    assert average_precision(*pixel_histogram(truth.astype(float), truth)) == 100
    for constant in (0.0, 0.5, 1.0):
        assert average_precision(*pixel_histogram(np.full(truth.shape, constant), truth)) == pytest.approx(100 * truth.mean(), rel=1e-12)
    assert average_precision(*pixel_histogram(rng.random(10), np.zeros(10, bool))) == 0
    scores = rng.integers(0, 9, truth.shape) / 10
    found = average_precision(*pixel_histogram(scores, truth))
    order, area, recall = sorted(set(scores.ravel()), reverse=True), 0.0, 0.0
    for value in order:
        chosen = scores >= value
        gained = (chosen & truth).sum() / truth.sum()
        area, recall = area + (chosen & truth).sum() / chosen.sum() * (gained - recall), gained
    assert found == pytest.approx(100 * area, rel=1e-12)


def literal_precision(scores, truth):
    """Precision at each distinct score times the gain in recall, by loops."""
    area = recall = 0.0
    for value in sorted(set(scores), reverse=True):
        chosen = [t for s, t in zip(scores, truth, strict=True) if s >= value]
        gained = sum(chosen) / sum(truth)
        area, recall = area + sum(chosen) / len(chosen) * (gained - recall), gained
    return area


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(-3, 3).map(float)), st.randoms())
def test_ranked_precision_by_loops_and_under_any_growing_change(heat, random):
    truth = np.array([[random.random() < 0.4 for _ in row] for row in heat])
    found = ranked_precision(heat, truth)
    assert found == (pytest.approx(literal_precision(heat.ravel().tolist(), truth.ravel().tolist()), rel=1e-12) if truth.any() else 0)
    assert ranked_precision(np.exp(heat) * 7 - 1, truth) == found
    assert ranked_precision(heat**3, truth) == found


def test_pixel_precision_ignores_sharpening_and_knows_its_chance():
    heat = torch.rand(3, 12, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    heat[2] = 0.5
    boxes = [torch.tensor([[0, 0, 4, 5], [3, 3, 8, 8]]), torch.tensor([[2, 1, 2, 1]]), torch.tensor([[0, 0, 14, 2]])]
    plain, sharp = metrics.PixelPrecision(), metrics.PixelPrecision()
    plain.update(heat, boxes)
    sharp.update(heat**2, boxes)
    assert np.array_equal(plain.per_image()[1], sharp.per_image()[1])
    assert plain.per_image()[1][2].tolist() == [45 / 180, 45 / 180]  # a constant map scores the boxes' share
    assert plain.per_image()[1][:, 1].tolist() == pytest.approx([(30 + 36 - 6) / 180, 1 / 180, 45 / 180])
    perfect = torch.stack([inside(box, (12, 15)) for box in boxes]).double()
    metric = metrics.PixelPrecision("energy_present")
    metric.update(perfect, boxes, ids=[3, 1003, 1007])
    assert metric.compute() == 100
    assert metric.groups(metric.per_image()[0]).tolist() == [0, 1, 1]


def test_false_activation_by_hand():
    heat = torch.zeros(2, 4, 5)
    heat[0, 0] = 0.2  # not above
    heat[0, 1, 1], heat[0, 3, 3], heat[0, 3, 4] = 0.3, 1.0, 0.21
    boxes = [torch.tensor([[0, 0, 1, 1], [4, 3, 4, 3]]), torch.tensor([[0, 0, 0, 0]])]
    of_image, of_active = metrics.FalseActivation(), metrics.FalseActivation(of="active")
    assert of_image.shares == of_active.shares
    of_image.update(heat, boxes)
    of_active.update(heat, boxes)
    assert of_image.per_image()[1].tolist() == [[1 / 20, 3 / 20, 5 / 20], [0, 0, 1 / 20]]
    assert (of_image.compute(), of_active.compute()) == (pytest.approx(100 / 20 / 2), pytest.approx(100 / 3 / 2))
    assert of_active.setting == "20% of active"
    with pytest.raises(ValueError, match=r"maps must lie in \[0, 1\], got 0 to 2"):
        metrics.FalseActivation().update(heat * 2, boxes)


def test_the_maximum_in_the_box_is_the_first_in_scan_order():
    heat = torch.zeros(3, 4, 5)
    heat[0, 1, 1] = heat[0, 3, 4] = 1.0  # the first of two
    heat[1, 3, 4] = 1.0
    boxes = [torch.tensor([[1, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1], [4, 3, 4, 3]]), torch.tensor([[1, 0, 4, 3]])]
    metric = metrics.MaximumInBox()
    metric.update(heat, boxes)
    assert metric.per_image()[1].tolist() == [[1, 1 / 20], [1, 5 / 20], [0, 16 / 20]]  # a constant map points at the corner
    assert metric.compute() == pytest.approx(200 / 3)
    assert metric.interval() == pytest.approx(wilson(2, 3))  # a rate: all hits leave an interval of some width


def official_pxap(maps, masks):
    """The released evaluator restated by np.histogram with its edges and a loop from the top bin."""
    edges = np.array([*np.arange(0, 1, 0.001), 1.0, 2.0, 3.0])
    positive = sum(np.histogram(m[t == 1], edges)[0].astype(float) for m, t in zip(maps, masks, strict=True))
    negative = sum(np.histogram(m[t == 0], edges)[0].astype(float) for m, t in zip(maps, masks, strict=True))
    hits = seen = recall = area = 0.0
    for p, n in zip(positive[::-1], negative[::-1], strict=True):
        hits, seen = hits + p, seen + p + n
        if seen:
            area, recall = area + hits / seen * (hits / positive.sum() - recall), hits / positive.sum()
    return 100 * area


def test_pxap_equals_the_official_evaluator():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 1001, (6, 20, 17)) / 1000 * rng.random((6, 1, 1)).round(1)
    masks = rng.choice(np.array([-1, 0, 1], np.int8), maps.shape, p=[0.1, 0.6, 0.3])
    masks[4] = 0
    metric = metrics.PxAP()
    metric.update(torch.from_numpy(maps[:4]), torch.from_numpy(masks[:4]))
    metric.update(torch.from_numpy(maps[4:]), list(torch.from_numpy(masks[4:])))
    assert metric.compute() == pytest.approx(official_pxap(maps, masks), rel=1e-12)
    assert metric.per_image()[1].sum() == (masks >= 0).sum()
    assert metric.interval(resamples=100)[0] < metric.compute() < metric.interval(resamples=100)[1]


def test_pxap_of_the_official_unit_facts():
    """A mask of 43031 pixels in 224 x 224: a perfect map gives exactly 100, a constant one the share."""
    truth = torch.zeros(224 * 224, dtype=torch.bool)
    truth[torch.randperm(224 * 224, generator=torch.Generator().manual_seed(0))[:43031]] = True
    truth = truth.reshape(1, 224, 224)
    perfect = metrics.PxAP()
    perfect.update(truth.double(), truth)
    assert perfect.compute() == 100
    for constant in (0.0, 0.5, 1.0):
        metric = metrics.PxAP()
        metric.update(torch.full((1, 224, 224), constant), truth)
        assert metric.compute() == pytest.approx(100 * 43031 / (43031 + 7145), rel=1e-12)


def test_instances_win_over_what_is_to_be_ignored():
    instances = torch.tensor([[[1, 0, 0, 0]], [[0, 1, 0, 0]]])
    assert metrics.pixel_truth(instances, torch.tensor([[0, 1, 1, 0]])).tolist() == [[1, 1, -1, 0]]
    assert metrics.pixel_truth(instances).tolist() == [[1, 1, 0, 0]]


def test_pxap_refuses_what_has_no_answer():
    metric = metrics.PxAP()
    metric.update(torch.rand(1, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="no mask has a positive pixel"):
        metric.compute()
    with pytest.raises(ValueError, match=r"2 maps .* need as many masks"):
        metrics.PxAP().update(torch.rand(2, 4, 4), torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        metrics.PxAP().update(torch.rand(1, 4, 4) + 1, torch.zeros(1, 4, 4))


def test_log_histogram_equals_numpy_and_keeps_what_the_official_one_loses():
    thresholds = 10 ** -np.arange(0, 7, 0.007)[::-1]
    assert (len(thresholds), round(thresholds[0] * 1e7, 4), thresholds[-1]) == (1000, 1.0162, 1.0)
    edges = np.array([*thresholds, 1.0, 2.0, 3.0])
    rng = np.random.default_rng(0)
    scores = np.concatenate([10 ** (-9 * rng.random(4000)), thresholds, np.nextafter(thresholds, 0), [0, 1, 1e-7, 1e-300]])
    positive = rng.random(len(scores)) < 0.5
    ours = pixel_histogram(scores, positive, "log")
    for row, part in ((1, scores[positive]), (0, scores[~positive])):
        official = np.histogram(part, edges)[0]  # the value 1 lies in [1, 2): the bin of no width before it is empty
        assert np.array_equal(ours[row][1:], np.append(official[:999], official[1000]))
        assert official[999] == 0
        assert ours[row][0] == (part < thresholds[0]).sum()
