"""Fixed thresholds, pixels, calibrated cues and stability in any split of the images; one image; empty masks; NaN."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cam_core import metrics
from cam_core.protocol import PROTOCOLS

PAIRS = [metrics.ClassPair(0, 1, frozenset({"head"})), metrics.ClassPair(1, 2, frozenset({"wing", "tail"}))]
SIDE = 12


def boxes(n, rng):
    corners = np.sort(rng.integers(0, SIDE, (n, 2, 2)), axis=1)
    return [torch.from_numpy(one.reshape(1, 4)) for one in corners]


def maps(n, rng):
    """Maps in [0, 1] with ties, plateaus, and now and then nothing at all."""
    heat = rng.integers(0, 7, (n, SIDE, SIDE)) / 6 * (rng.random((n, 1, 1)) > 0.2)
    return torch.from_numpy(heat)


def given_boxes(n, rng):
    return maps(n, rng), boxes(n, rng)


def given_correct(n, rng):
    return *given_boxes(n, rng), torch.from_numpy(rng.random(n) < 0.5)


def given_masks(n, rng):
    masks = torch.from_numpy(rng.integers(-1, 2, (n, SIDE, SIDE)))
    masks[:, 0, 0] = 1
    return maps(n, rng), masks


def given_cues(n, rng):
    where = torch.zeros(15, 3)
    where[4], where[8], where[13] = torch.tensor([2.0, 2, 1]), torch.tensor([8.0, 3, 1]), torch.tensor([6.0, 9, 1])
    cues = [metrics.cue(i % 3, where, torch.ones(SIDE, SIDE, dtype=torch.bool)) for i in range(n)]
    return torch.stack([maps(n, rng) for _ in range(3)], 1), cues


def given_trainings(n, rng):
    return maps(n, rng), maps(n, rng), maps(n, rng)


CASES = [
    *((lambda t=t, top1=top1: metrics.LocalizationError(t, top1=top1), given_correct) for t in (0.15, 0.2) for top1 in (False, True)),
    (lambda: metrics.BoxIoU(0.5, calibration="max"), given_correct),
    (metrics.PixelPrecision, given_boxes),
    (metrics.FalseActivation, given_boxes),
    (lambda: metrics.FalseActivation(of="active"), given_boxes),
    (metrics.PxAP, given_masks),
    *(
        (lambda v=v, t=t: metrics.CueLocalization(PAIRS, thresholds=t, calibration="max", variant=v), given_cues)
        for v in ("released", "per pair")
        for t in ("even", "log")
    ),
    *((lambda kind=kind: metrics.Stability(kind), given_trainings) for kind in ("iou", "iou_script", "iou_area", "correlation")),
]


def chosen(part, index):
    return [part[i] for i in index] if isinstance(part, list) else part[torch.as_tensor(index)]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@settings(max_examples=8)
@given(st.data())
@pytest.mark.parametrize("which", range(len(CASES)))
def test_any_split_of_the_maps_gives_the_bits_of_one_pass(which, data):
    make, draw = CASES[which]
    n = data.draw(st.integers(3, 10))
    parts = draw(n, np.random.default_rng(data.draw(st.integers(0, 99))))
    order = data.draw(st.permutations(range(n)))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    one, merged = make(), make()
    one.update(*parts, ids=torch.arange(n))
    for batch in np.split(np.array(order), cuts):
        if len(batch):
            piece = make()
            piece.update(*(chosen(part, batch.tolist()) for part in parts), ids=torch.from_numpy(batch))
            merged.merge_state(piece)
    (ids, rows), (other_ids, other_rows) = one.per_image(), merged.per_image()
    skip = int(isinstance(one, metrics.CueLocalization))  # the position in the batch
    assert np.array_equal(ids, other_ids)
    assert np.array_equal(rows[:, skip:], other_rows[:, skip:])
    assert one.compute() == merged.compute()
    assert one.interval(resamples=30) == merged.interval(resamples=30)
    assert np.isfinite([one.compute(), *one.interval(resamples=30)]).all()


@pytest.mark.parametrize("which", range(len(CASES)))
def test_one_image_and_maps_that_say_nothing(which):
    make, draw = CASES[which]
    parts = draw(1, np.random.default_rng(0))
    metric = make()
    metric.update(torch.zeros_like(parts[0]), *parts[1:])
    assert np.isfinite(metric.compute())
    low, high = metric.interval(resamples=20)
    assert low <= metric.compute() <= high


@pytest.mark.parametrize("which", range(len(CASES)))
def test_nan_is_refused_in_one_sentence(which):
    make, draw = CASES[which]
    heat, *rest = draw(2, np.random.default_rng(0))
    heat = heat.clone()
    heat.reshape(-1)[5] = float("nan")
    with pytest.raises(ValueError, match=f"{make().name}: a map contains NaN or infinity"):
        make().update(heat, *rest)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("which", range(len(CASES)))
def test_each_says_what_it_is(which):
    metric = CASES[which][0]()
    assert metric.protocol in PROTOCOLS
    assert metric.needs
    assert metric.name == metric.name.lower().replace(" ", "_")
    hash(metric.shares)
    with pytest.raises(ValueError, match="nothing was recorded"):
        metric.compute()
