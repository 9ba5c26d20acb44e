"""Energy, pointing and boxes: worked facts and brute force by OpenCV."""

import tarfile
from collections import defaultdict
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cam_core import metrics
from cam_core.data import Example, wsol_boxes
from cam_core.metrics.boxes import best_iou, iou, quantize, rescale
from cam_core.metrics.localization import points_at
from cam_core.metrics.statistics import wilson
from data_scripts import subsets
from tests.metrics.test_components import contour_boxes, plain_iou


def test_iou_of_the_worked_example():
    assert iou([[1, 2, 5, 6]], [[3, 1, 4, 5]])[0, 0] == 8 / 27
    assert iou([0, 0, 0, 0], [[0, 0, 0, 0], [1, 1, 2, 2]]).tolist() == [[1.0, 0.0]]


def test_truth_is_brought_to_the_maps_size_by_truncation():
    """The benchmark's example: (1, 2, 4, 3) of a 10 x 20 image is (3, 1, 14, 1) in 35 x 10, and 55.99 of 224 is pixel 55."""
    example = Example("x", torch.zeros(3, 2, 2), 0, size=(20, 10), official_boxes=torch.tensor([[1, 2, 4, 3]]))
    wide, low = wsol_boxes(example, 35)[0], wsol_boxes(example, 10)[0]
    assert [int(wide[0]), int(low[1]), int(wide[2]), int(low[3])] == [3, 1, 14, 1]
    example = Example("x", torch.zeros(3, 2, 2), 0, size=(500, 4001), official_boxes=torch.tensor([[1000, 125, 2000, 499]]))
    assert wsol_boxes(example).tolist() == [[55, 56, 111, 223]]


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


@settings(max_examples=40)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(0, 10**6))
def test_pointing_in_originals_of_any_shape_equals_a_look_at_every_pixel(shape, seed):
    rng = np.random.default_rng(seed)
    heat = torch.from_numpy(rng.integers(0, 1 + rng.integers(9), shape) / 4)
    (x0, x1), (y0, y1) = (np.sort(rng.integers(0, side, 2)).tolist() for side in shape[::-1])
    tolerance = float(rng.choice([1, 2.5, 5, 15]))
    pixels = [(float(heat[y, x]), x, y) for y in range(shape[0]) for x in range(shape[1])]
    _, px, py = max(pixels, key=lambda pixel: pixel[0])  # the first of equals
    near = [(x, y) for _, x, y in pixels if (x - px) ** 2 + (y - py) ** 2 < tolerance**2]
    hit = any(x0 <= x <= x1 and y0 <= y <= y1 for x, y in near)
    rows = metrics.PointingGame(tolerance).measure([heat], [metrics.Present(4, torch.tensor([[x0, y0, x1, y1]]))])
    assert rows.tolist() == [[4, hit, 0]]


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
    published = {f"{name} {classes[label]}" for name, flags in hard.items() for label, flag in enumerate(flags) if flag}
    assert published == set((subsets.HOME / "voc07_difficult_v2.txt").read_text().splitlines())
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
    with pytest.raises(ValueError, match="calibration is 'min_max' or 'max', got"):
        metrics.BoxIoU(calibration="clipping")
    with pytest.raises(ValueError, match="calibration is 'min_max', 'max' or 'clipping'"):
        rescale(heat, "softmax")
