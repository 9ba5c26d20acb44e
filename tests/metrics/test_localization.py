"""Energy, pointing, boxes and pixel precision: worked facts and brute force."""

import tarfile
from collections import defaultdict
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cam_core import metrics
from cam_core.metrics.localization import (
    average_precision,
    best_iou,
    inside,
    iou,
    pixel_histogram,
    points_at,
    quantize,
    ranked_precision,
    rescale,
)
from cam_core.metrics.statistics import wilson
from tests.metrics.test_components import contour_boxes, plain_iou


def test_iou_of_the_worked_example():
    assert iou([[1, 2, 5, 6]], [[3, 1, 4, 5]])[0, 0] == 8 / 27
    assert iou([0, 0, 0, 0], [[0, 0, 0, 0], [1, 1, 2, 2]]).tolist() == [[1.0, 0.0]]


def test_energy_is_the_share_inside_the_union():
    heat = torch.zeros(3, 6, 8)
    heat[0, 1:3, 1:4] = 1
    heat[0, 5, 7] = 2
    heat[1] = 1
    boxes = [torch.tensor([[1, 1, 2, 2], [2, 1, 3, 2]]), torch.tensor([[0, 0, 3, 5]]), torch.tensor([[0, 0, 7, 5]])]
    metric = metrics.EnergyPointingGame()
    metric.update(heat, boxes)
    assert metric.per_image()[1].tolist() == [[6.0, 8.0], [24.0, 48.0], [0.0, 0.0]]
    assert metric.compute() == pytest.approx(100 * (0.75 + 0.5 + 0) / 3)
    assert metric.empty() == 1


def test_energy_refuses_negative_maps_and_boxes_outside():
    with pytest.raises(ValueError, match="must be >= 0, got -1"):
        metrics.EnergyPointingGame().update(-torch.ones(1, 4, 4), [torch.tensor([[0, 0, 1, 1]])])
    for box in ([[0, 0, 4, 1]], [[2, 0, 1, 1]], [[-1, 0, 1, 1]]):
        with pytest.raises(ValueError, match="boxes of map 0 are not inclusive"):
            metrics.EnergyPointingGame().update(torch.ones(1, 4, 4), [torch.tensor(box)])
    with pytest.raises(ValueError, match="map 0 has no box"):
        metrics.MaxBoxAcc().update(torch.ones(1, 4, 4), [torch.zeros(0, 4)])


def test_a_point_hits_within_a_disc_of_697_pixels():
    hits = [(x, y) for x in range(81) for y in range(81) if points_at((x, y), [[40, 40, 40, 40]])]
    assert len(hits) == 697
    assert not points_at((25, 40), [[40, 40, 60, 60]])  # exactly 15 away
    assert points_at((26, 40), [[40, 40, 60, 60]])
    mask = np.zeros((50, 60), np.uint8)
    mask[20:31, 10:21] = mask[5:9, 40:46] = 1
    near = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) ** 2 < 225 - 1e-3
    boxes = [[10, 20, 20, 30], [40, 5, 45, 8]]
    assert all(points_at((x, y), boxes) == near[y, x] for x in range(60) for y in range(50))


def test_pointing_counts_classes_equally_and_takes_the_first_maximum():
    heat = torch.zeros(100, 120)
    heat[10, 10] = heat[90, 110] = 1  # a tie: scan order decides for the first
    near, far = torch.tensor([[12, 12, 20, 20]]), torch.tensor([[100, 80, 115, 95]])
    points = [metrics.Present(3, near), metrics.Present(3, far, hard=True), metrics.Present(7, near, hard=True)]
    everything, hard = metrics.PointingGame(), metrics.PointingGame(hard_only=True)
    rows = everything.measure([heat] * 3, points)
    for metric in (everything, hard):
        metric.record(rows, [0, 1, 0])
    assert everything.compute() == pytest.approx(100 * (0.5 + 1) / 2)
    assert hard.compute() == pytest.approx(100 * (0 + 1) / 2)
    ids, _ = everything.per_image()
    assert everything.groups(ids).tolist() == [0, 0, 1]  # drawn by image


@pytest.mark.real_data
def test_the_centre_of_all_voc_test_images_scores_as_published(cam_data):
    """69.6 % on all pairs, 42.4 % on the difficult ones (TorchRay), from the annotations alone."""
    trees, hard = {}, {}
    with tarfile.open(cam_data / "VOC2007_test_annotations.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".xml"):
                trees[member.name.rsplit("/", 1)[-1][:-4]] = ElementTree.parse(archive.extractfile(member)).getroot()
            elif "difficult" in member.name:
                for line in archive.extractfile(member).read().decode().splitlines():
                    name, *flags = line.replace(",", " ").split()
                    hard[name.rsplit("/")[-1].split(".")[0]] = [flag == "1" for flag in flags]
    classes = sorted({o.findtext("name") for tree in trees.values() for o in tree.findall("object")})
    everything, difficult, pairs = metrics.PointingGame(), metrics.PointingGame(hard_only=True), 0
    for name, tree in sorted(trees.items()):
        boxes, easy = defaultdict(list), set()
        for item in tree.findall("object"):
            label = classes.index(item.findtext("name"))
            box = [int(float(item.findtext(f"bndbox/{corner}"))) - 1 for corner in ("xmin", "ymin", "xmax", "ymax")]
            boxes[label].append(box)
            easy |= {label} if item.findtext("difficult") == "0" else set()
        width, height = int(tree.findtext("size/width")), int(tree.findtext("size/height"))
        trials = [[label, points_at((width / 2, height / 2), boxes[label]), hard[name][label]] for label in sorted(easy)]
        pairs += len(trials)
        for metric in (everything, difficult):
            metric.record(torch.tensor(trials, dtype=torch.float64), [int(name)] * len(trials))
    assert len(trees) == 4952
    assert pairs == 7013
    assert round(everything.compute(), 2) == 69.63
    assert round(difficult.compute(), 2) == 42.44


def test_max_box_acc_over_a_thousand_thresholds_of_the_plain_evaluator():
    """The official loop (thresholds, truncation, strict comparison, accuracy per threshold) on maps of several kinds."""
    rng = np.random.default_rng(0)
    side, maps, boxes = 24, [], []
    for number in range(12):
        coarse = rng.random((3 + number % 4,) * 2).astype(np.float32)
        maps.append(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC) * (5.0 if number % 2 else 1.0))
        corner = rng.integers(0, side // 2, 2)
        boxes.append(torch.tensor([[*corner, *(corner + rng.integers(5, side // 2, 2))]]))
    maps[3][:] = 0.4
    stack = torch.from_numpy(np.stack(maps).astype(np.float32))
    thresholds = np.arange(0, 1, 0.001)
    for metric, single, limits in ((metrics.MaxBoxAcc(), True, [50]), (metrics.MaxBoxAccV2(), False, [30, 50, 70])):
        correct = np.zeros((3, len(thresholds)))
        for heat, truth in zip(stack.numpy(), boxes, strict=True):
            low, high = heat.min(), heat.max()
            scaled = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
            image = (scaled * 255).astype(np.uint8)
            known = {}
            for t, threshold in enumerate(thresholds):
                level = int(threshold * image.max())
                if level not in known:
                    known[level] = max(plain_iou(box, truth[0].tolist()) for box in contour_boxes(image, level, single))
                for d, limit in enumerate(limits):
                    correct[d, t] += known[level] >= limit / 100
        expected = np.mean([100 * correct[d].max() / 12 for d in range(len(limits))])
        metric.update(stack, boxes)
        assert metric.compute() == pytest.approx(expected, rel=1e-12)


def test_thresholds_reduce_to_the_255_levels():
    assert sorted({int(t * 255) for t in np.arange(0, 1, 0.001)}) == list(range(255))


def test_quantisation_truncates_in_the_maps_own_precision():
    for kind in (np.float32, np.float64):
        heat = np.random.default_rng(0).random((50, 50)).astype(kind) * 3 - 1
        scaled = (heat - heat.min()) / (heat.max() - heat.min())
        assert np.array_equal(quantize(torch.from_numpy(heat)), (scaled * 255).astype(np.uint8))


def test_limits_are_met_at_equality_though_rows_are_float32():
    for limit, (part, whole) in {0.3: (3, 10), 0.5: (1, 2), 0.7: (7, 10)}.items():
        metric = metrics.MaxBoxAccV2()
        metric.record(torch.tensor([[part / whole] * 255, [np.nextafter(limit, 0) - 1e-6] * 255], dtype=torch.float64))
        rows = metric.per_image()[1]
        passing = [(rows[:, 0] >= float(np.float32(x))).tolist() for x in (limit,)]
        assert passing == [[True, False]]


def test_a_perfect_map_and_a_shifted_one():
    """A box of ones: the evaluator's box is one pixel too large on two sides, so a 10 x 10 object gives 100/121."""
    heat = torch.zeros(1, 20, 20)
    heat[0, 5:15, 5:15] = 1
    assert best_iou(quantize(heat)[0], [[5, 5, 14, 14]])[0] == 100 / 121
    heat = torch.zeros(1, 20, 20)
    heat[0, 10:, 10:] = 1  # at the border it is exact
    assert best_iou(quantize(heat)[0], [[10, 10, 19, 19]])[254] == 1.0


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


# ---------------------------------------------------------------- fixed thresholds


def fixed_threshold_boxes(heat, threshold, calibration):
    """The released evaluator at one threshold, by OpenCV: the largest contour's box."""
    low, high = heat.min() if calibration == "min_max" else 0, heat.max()
    scaled = np.clip((heat - low) / (high - low), 0, 1) if high > heat.min() else np.zeros_like(heat)
    image = (scaled * 255).astype(np.uint8)
    return contour_boxes(image, int(threshold * image.max()), single=True)


@pytest.mark.parametrize("calibration", ["min_max", "max"])
@pytest.mark.parametrize("threshold", [0.15, 0.2, 0.5])
def test_localization_error_and_box_iou_equal_opencv_at_a_fixed_threshold(threshold, calibration):
    rng = np.random.default_rng(4)
    maps = [cv2.resize(rng.random((4, 5)).astype(np.float32), (30, 26), interpolation=cv2.INTER_CUBIC) ** 2 - 0.05 for _ in range(14)]
    maps[5][:] = 0.3
    boxes = []
    for _ in maps:
        corners = np.sort(rng.integers(0, 26, (2, 2, 2)), axis=1)
        boxes.append(torch.from_numpy(corners.reshape(2, 4)))
    correct = torch.from_numpy(rng.random(len(maps)) < 0.6)
    expected = [
        max(plain_iou(box, truth) for box in fixed_threshold_boxes(heat, threshold, calibration) for truth in some.tolist())
        for heat, some in zip(maps, boxes, strict=True)
    ]
    stack = torch.from_numpy(np.stack(maps))
    known = metrics.LocalizationError(threshold, calibration=calibration)
    top1 = metrics.LocalizationError(threshold, top1=True, calibration=calibration)
    box = metrics.BoxIoU(threshold, calibration=calibration)
    assert known.shares == top1.shares == box.shares
    rows = top1.measure(stack, boxes, correct)
    for metric in (known, top1, box):
        metric.record(rows)
        assert metric.per_image()[1].tolist() == [[e, float(c)] for e, c in zip(expected, correct, strict=True)]
    found = [e >= 0.5 for e in expected]
    assert known.compute() == pytest.approx(100 - 100 * np.mean(found))
    assert top1.compute() == pytest.approx(100 - 100 * np.mean([f and bool(c) for f, c in zip(found, correct, strict=True)]))
    assert box.compute() == pytest.approx(100 * np.mean(expected))
    assert known.interval() == wilson(sum(not f for f in found), len(found))


def test_an_iou_of_exactly_half_is_no_error_and_a_constant_map_points_at_the_corner():
    heat = torch.zeros(2, 8, 8)
    heat[0, 6:, 4:] = 1  # box 4..7 x 6..7, eight pixels at the border: exact
    boxes = [torch.tensor([[4, 4, 7, 7]]), torch.tensor([[0, 0, 0, 1]])]
    metric = metrics.LocalizationError()
    metric.update(heat, boxes)
    assert metric.per_image()[1].tolist() == [[0.5, 1.0], [0.5, 1.0]]
    assert metric.compute() == 0


def test_of_the_maximum_is_not_of_the_range():
    """A map that never falls below 0.4 of its maximum: at 20 % of the maximum everything is lit."""
    heat = torch.full((1, 10, 10), 0.4)
    heat[0, 2:5, 2:5] = 1
    assert (rescale(heat, "max") * 10).round().int().unique().tolist() == [4, 10]
    of_range, of_max = metrics.BoxIoU(0.2), metrics.BoxIoU(0.2, calibration="max")
    for metric in (of_range, of_max):
        metric.update(heat, [torch.tensor([[2, 2, 5, 5]])])
    assert (of_range.compute(), of_max.compute()) == (100, 16)
    assert not rescale(-heat, "max").any()
    assert not rescale(torch.full((1, 3, 3), 0.7), "clipping").any()  # constant maps are zeros, as released
    assert rescale(torch.tensor([[[-1.0, 0.5, 3.0]]]), "clipping").tolist() == [[[0, 0.5, 1]]]


def test_settings_and_refusals_of_fixed_thresholds():
    names = [metrics.LocalizationError(0.15).setting, metrics.LocalizationError(top1=True, calibration="max").setting]
    assert names == ["GT-known 15%", "top-1 20% of max"]
    box, heat = [torch.tensor([[0, 0, 1, 1]])], torch.rand(1, 4, 4)
    with pytest.raises(ValueError, match="top-1 needs correct"):
        metrics.LocalizationError(top1=True).update(heat, box)
    with pytest.raises(ValueError, match="one truth value for each of 1 maps"):
        metrics.BoxIoU().update(heat, box, [True, False])
    with pytest.raises(ValueError, match=r"share of the map's maximum in \[0, 1\), got 20"):
        metrics.BoxIoU(20)
    with pytest.raises(ValueError, match="min_max or by max"):
        metrics.BoxIoU(calibration="clipping")
    with pytest.raises(ValueError, match="calibrated by min_max, max or clipping"):
        rescale(heat, "softmax")


# ---------------------------------------------------------------- pixels


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
    assert plain.chance() == pytest.approx(100 * (((30 + 36 - 6) + 1 + 45) / 180) / 3)
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
