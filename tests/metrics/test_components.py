"""Boxes from component trees against OpenCV's contours, at every level."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cam_core.metrics import components
from cam_core.metrics.boxes import best_iou, largest_boxes

SHAPES = [(1, 1), (1, 7), (6, 1), (2, 2), (3, 3), (5, 4), (9, 12), (17, 16), (24, 31), (32, 32)]


def smooth(rng, shape):
    coarse = rng.random((rng.integers(2, 8), rng.integers(2, 8)))
    fine = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (255 * (fine - fine.min()) / max(np.ptp(fine), 1e-9)).astype(np.uint8)


def plateaus(rng, shape):
    return rng.choice(np.array([0, 0, 90, 170, 255], np.uint8), shape)


def rings(rng, shape):
    """Walls with holes in them, islands in the holes, some reaching the border."""
    image = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(1, 7)):
        corner = (int(rng.integers(-2, shape[1])), int(rng.integers(-2, shape[0])))
        size = rng.integers(1, 1 + max(shape), 2)
        thickness = int(rng.choice([1, 1, 2, -1]))
        cv2.rectangle(image, corner, (corner[0] + int(size[0]), corner[1] + int(size[1])), int(rng.integers(0, 256)), thickness)
    return image


def speckle(rng, shape):
    return rng.integers(0, 256, shape).astype(np.uint8) * (rng.random(shape) < 0.3)


def stripes(rng, shape):
    return np.broadcast_to(rng.integers(0, 256, shape[1]).astype(np.uint8), shape).copy()


def noise(rng, shape):
    return rng.integers(0, 256, shape).astype(np.uint8)


def border(rng, shape):
    """Plateaus that lean on the sides of the image, with nothing or something between."""
    image = np.full(shape, rng.choice([0, 0, 40]), np.uint8)
    for _ in range(rng.integers(1, 5)):
        turned = np.rot90(image, rng.integers(4))  # a view
        start, stop = np.sort(rng.integers(0, 1 + turned.shape[1], 2))
        turned[: rng.integers(1, 2 + turned.shape[0] // 3), start:stop] = rng.integers(256)
    return image


def constant(rng, shape):
    return np.full(shape, rng.choice([0, 1, 254, 255, int(rng.integers(256))]), np.uint8)


def pixel(rng, shape):
    """One pixel that differs from all others, brighter or darker."""
    ground, dot = rng.choice(256, 2, replace=False)
    image = np.full(shape, ground, np.uint8)
    image[rng.integers(shape[0]), rng.integers(shape[1])] = dot
    return image


def of_few_levels(image, rng):
    """The image with its values moved down to a dozen of levels: as many shapes, fewer levels at which OpenCV has to look."""
    levels = np.sort(np.append(rng.choice(np.arange(1, 256), 11, replace=False), 0)).astype(np.uint8)
    return levels[np.searchsorted(levels, image, side="right") - 1]


KINDS = [smooth, plateaus, rings, speckle, stripes, noise, border, constant, pixel]
EACH = 230  # maps of a kind: 2070 of all


def plain_iou(box, truth):
    """The intersection over union of two inclusive boxes, written out."""
    width = min(box[2], truth[2]) - max(box[0], truth[0]) + 1
    height = min(box[3], truth[3]) - max(box[1], truth[1]) + 1
    overlap = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, truth)]
    return overlap / (sum(areas) - overlap)


def outlines(image, level):
    """The official evaluator's boxes [n,4] of all contours at one level, by OpenCV, and the place of the largest contour."""
    contours, _ = cv2.findContours((image > level).astype(np.uint8) * 255, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((1, 4), int), 0
    largest = max(range(len(contours)), key=[cv2.contourArea(contour) for contour in contours].__getitem__)
    x, y, w, h = np.array([cv2.boundingRect(contour) for contour in contours]).T
    return np.stack([x, y, np.minimum(x + w, image.shape[1] - 1), np.minimum(y + h, image.shape[0] - 1)], 1), largest


def contour_boxes(image, level, single):
    """The boxes that compete at one level: of the largest contour alone, or of all."""
    boxes, largest = outlines(image, level)
    return [boxes[largest].tolist()] if single else boxes.tolist()


def best_of_all(boxes, truths):
    """The best intersection over union of each box with any truth, by arrays (the loops of `plain_iou` take hours on noise)."""
    a, b = boxes[:, None], np.array(truths)[None]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1, 0, None)
    areas = [(c[..., 2] - c[..., 0] + 1) * (c[..., 3] - c[..., 1] + 1) for c in (a, b)]
    overlap = sides.prod(-1)
    return (overlap / (areas[0] + areas[1] - overlap)).max(1)


def mismatches(image, truths):
    """At how many of the 2 x 255 levels, V1 and V2, our best overlap is not the evaluator's to the bit."""
    expected = np.empty((2, 255))
    for level in range(255):
        if level == 0 or (image == level).any():  # else the foreground is that of the level below
            boxes, largest = outlines(image, level)
            overlaps = best_of_all(boxes, truths)
            now = overlaps[largest], overlaps.max()
        expected[:, level] = now
    return int((np.stack([best_iou(image, truths, single) for single in (True, False)]) != expected).sum())


def random_boxes(rng, shape, count):
    x, y = np.sort(rng.integers(0, shape[1], (count, 2))), np.sort(rng.integers(0, shape[0], (count, 2)))
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_maps_up_to_48_pixels_equal_opencv_at_all_levels(kind):
    """Every third map keeps all of its levels."""
    rng = np.random.default_rng(KINDS.index(kind))
    shapes = [(1, 1), (1, 48), (48, 1), (48, 48), *(tuple(rng.integers(1, 49, 2)) for _ in range(EACH - 4))]
    wrong = 0
    for number, shape in enumerate(shapes):
        image = kind(rng, shape)
        image = image if number % 3 == 0 else of_few_levels(image, rng)
        wrong += mismatches(image, random_boxes(rng, shape, 1 + number % 3))
    assert wrong == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_maps_of_224_pixels_equal_opencv_at_all_levels(number):
    """The first nine, one of each kind, keep all of their levels."""
    rng, kind = np.random.default_rng(1000 + number), KINDS[number % len(KINDS)]
    image = kind(rng, (224, 224))
    assert mismatches(image if number < len(KINDS) else of_few_levels(image, rng), random_boxes(rng, (224, 224), 2)) == 0


def test_a_wrong_box_is_a_mismatch(monkeypatch):
    """The comparison itself, and that it looks at every level: an overlap that is off by a hair is counted wherever it is."""
    image = np.zeros((9, 9), np.uint8)
    image[2:6, 2:6] = 100
    assert mismatches(image, [[2, 2, 6, 6]]) == 0
    right = best_iou
    monkeypatch.setitem(globals(), "best_iou", lambda *given: right(*given) - 1e-9 * (np.arange(255) < 100))
    assert mismatches(image, [[2, 2, 6, 6]]) == 2 * 100


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 254, 255])))
def test_any_small_map_equals_opencv_at_the_levels_that_matter(image):
    truth = [[0, 0, image.shape[1] - 1, image.shape[0] // 2]]
    for single in (True, False):
        ours = best_iou(image, truth, single)
        for level in (0, 1, 2, 3, 253, 254):
            assert ours[level] == max(plain_iou(box, truth[0]) for box in contour_boxes(image, level, single))


def test_a_known_ring_with_an_island():
    image = np.zeros((9, 9), np.uint8)
    image[1:8, 1:8] = 200
    image[2:7, 2:7] = 50
    image[4, 4] = 255
    rows = {tuple(row[: components.AREA]) for row in components.components(image).tolist()}
    assert rows == {(0, 49, 1, 1, 7, 7), (50, 199, 1, 1, 7, 7), (50, 254, 4, 4, 4, 4)}
    hole = {tuple(row[: components.AREA]) for row in components.holes(image).tolist()}
    assert hole == {(50, 199, 1, 1, 7, 7)}  # the contour of the hole runs on the ring
    filled = components.fill_holes(image)
    assert filled[4, 4] == 255
    assert (filled[1:8, 1:8] >= 200).all()
    assert filled[0].max() == 0


def test_unimodal_and_multimodal_maps_of_the_benchmark_kind():
    """Boxes worked out by hand: foreground of img > k, right and lower side one further except at the border."""
    image = np.array([[0, 0, 0, 0, 0], [0, 100, 180, 100, 0], [0, 100, 255, 100, 0], [0, 0, 100, 0, 0]], np.uint8)
    boxes = largest_boxes(image)
    assert boxes[0].tolist() == boxes[99].tolist() == [1, 1, 4, 3]
    assert boxes[100].tolist() == boxes[179].tolist() == [2, 1, 3, 3]
    assert boxes[180].tolist() == boxes[254].tolist() == [2, 2, 3, 3]
    two = np.array([[200, 200, 0, 0, 0], [200, 200, 0, 0, 0], [0, 0, 0, 255, 255], [0, 0, 0, 255, 255]], np.uint8)
    assert largest_boxes(two)[0].tolist() == [3, 2, 4, 3]  # equal areas: the one whose first pixel comes last
    assert largest_boxes(two)[199].tolist() == [3, 2, 4, 3]


def test_a_map_without_foreground_gives_the_box_at_the_corner():
    zeros = np.zeros((7, 7), np.uint8)
    assert not largest_boxes(zeros).any()
    assert (best_iou(zeros, [[0, 0, 2, 1]]) == 1 / 6).all()
    assert (best_iou(zeros, [[1, 1, 2, 2]], single=True) == 0).all()
