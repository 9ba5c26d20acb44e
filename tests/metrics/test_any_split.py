"""Every metric in any split of the images; any shape; one image; maps that say nothing; NaN."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cam_core import metrics
from cam_core.metrics.pixels import BINS
from cam_core.metrics.stability import KINDS
from cam_core.metrics.statistics import bootstrap
from cam_core.protocol import PROTOCOLS
from reproduce.accuracy import Accuracy, MeanAveragePrecision

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


def given_points(n, rng):
    """Hard ones among them; the first always, else there may be no trial at all."""
    pairs = zip(rng.integers(0, 4, n).tolist(), boxes(n, rng), rng.random(n) < 0.5, strict=True)
    return maps(n, rng), [metrics.Present(label, box, bool(hard) or i == 0) for i, (label, box, hard) in enumerate(pairs)]


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


def given_cue_rows(n, rng):
    head = np.stack([np.arange(n), rng.integers(0, 2, n)], 1)
    return torch.from_numpy(np.concatenate([head, rng.integers(0, 50, (n, 2 * BINS))], 1).astype(float))


def plain(columns, ones=()):
    """Draws rows of so many numbers (0: one without a dimension) in [0, 1); those in columns ``ones`` are 0 or 1."""

    def rows(n, rng):
        drawn = rng.random((n, columns) if columns else n)
        drawn[..., list(ones)] = drawn[..., list(ones)].round()
        return torch.from_numpy(drawn)

    return rows


def given_scores(n, rng):
    """With ties; two of the three classes are there everywhere, else a resample may have none."""
    return torch.from_numpy(np.stack([rng.random((n, 3)).round(1), np.stack([*np.ones((2, n)), rng.random(n).round()], 1)], 1))


MEASURED = [  # what is handed to `update`
    *((lambda t=t, top1=top1: metrics.LocalizationError(t, top1=top1), given_correct) for t in (0.15, 0.2) for top1 in (False, True)),
    (lambda: metrics.BoxIoU(0.5, calibration="max"), given_correct),
    (metrics.EnergyPointingGame, given_boxes),
    (metrics.MaxBoxAcc, given_boxes),
    (metrics.MaxBoxAccV2, given_boxes),
    (metrics.PixelPrecision, given_boxes),
    (metrics.MaximumInBox, given_boxes),
    (metrics.FalseActivation, given_boxes),
    (lambda: metrics.FalseActivation(of="active"), given_boxes),
    (metrics.PointingGame, given_points),
    (lambda: metrics.PointingGame(tolerance=2, hard_only=True), given_points),
    (metrics.PxAP, given_masks),
    (lambda: metrics.CueLocalization(PAIRS), given_cues),
    *(
        (lambda v=v, t=t: metrics.CueLocalization(PAIRS, thresholds=t, calibration="max", variant=v), given_cues)
        for v in ("released", "per pair")
        for t in ("even", "log")
    ),
    *((lambda kind=kind: metrics.Stability(kind), given_trainings) for kind in KINDS),
]
RECORDED = [  # what asks the network: rows as its measure gives them, handed to `record`
    *((lambda k=k, keep=keep: k(keep), plain(3)) for k in (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.AverageGain,
      metrics.MapMean) for keep in (1.0, 0.15)),
    (lambda: metrics.AverageDrop(0.5, "mean", "score_cam"), plain(4)),
    (lambda: metrics.CorrectUnderMask(0.5, 2), plain(4)),
    *((kind, plain(0)) for kind in (metrics.Insertion, metrics.Deletion, metrics.TiedPixels, metrics.SensitivityN)),
    *((kind, plain(2, (0, 1))) for kind in (metrics.RemoveAndClassify, metrics.CorrectAfterRemoval, metrics.CorrectAfterRandomRemoval)),
    *((kind, plain(4, (0, 1))) for kind in (metrics.RoadMorf, metrics.RoadLerf, metrics.RoadCombined)),
    *((kind, plain(4)) for kind in (metrics.Coherency, metrics.Complexity, metrics.ADCC, lambda: metrics.ADCC("means"))),
    *((kind, plain(2)) for kind in (metrics.Infidelity, lambda: metrics.Infidelity(scaled=False))),
    (metrics.MaxSensitivity, plain(2, (1,))),
    (Accuracy, plain(1, (0,))),
    (MeanAveragePrecision, given_scores),
    (lambda: metrics.CueLocalization(PAIRS, parts=2), given_cue_rows),
]  # fmt: skip


def chosen(part, index):
    return [part[i] for i in index] if isinstance(part, list) else part[torch.as_tensor(index)]


def feeding(which, n, rng):
    """A new metric of the case, and a function that gives it the images at some places."""
    if which < len(MEASURED):
        make, draw = MEASURED[which]
        parts = draw(n, rng)
        return make, lambda metric, index: metric.update(*(chosen(part, index) for part in parts), ids=index)
    make, draw = RECORDED[which - len(MEASURED)]
    rows = draw(n, rng)

    def record(metric, index):
        some = rows[index].clone()
        if isinstance(metric, metrics.CueLocalization):
            some[:, 0] = torch.arange(len(some))  # the position in the batch
        metric.record(some, index)

    return make, record


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@settings(max_examples=8)
@given(st.data())
@pytest.mark.parametrize("which", range(len(MEASURED) + len(RECORDED)))
def test_any_split_gives_the_bits_of_one_pass(which, data):
    n = data.draw(st.integers(3, 10))
    make, give = feeding(which, n, np.random.default_rng(data.draw(st.integers(0, 99))))
    order = np.array(data.draw(st.permutations(range(n))))
    batches = [batch.tolist() for batch in np.split(order, sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))) if len(batch)]
    one, merged = make(), make()
    give(one, list(range(n)))
    for batch in [*batches, batches[0]]:  # a sampler that pads shows some images twice
        give(piece := make(), batch)
        merged.merge_state(piece)
    (ids, rows), (other_ids, other_rows) = one.per_image(), merged.per_image()
    skip = int(isinstance(one, metrics.CueLocalization))  # the position in the batch
    assert np.array_equal(ids, other_ids)
    assert np.array_equal(rows[..., skip:], other_rows[..., skip:])
    assert one.compute() == merged.compute()
    interval = one.interval(resamples=30)
    assert interval == merged.interval(resamples=30)
    assert interval[0] <= interval[1]
    assert np.isfinite([one.compute(), *interval]).all()


@pytest.mark.parametrize("which", range(len(MEASURED)))
def test_one_image_and_maps_that_say_nothing(which):
    make, draw = MEASURED[which]
    parts = draw(1, np.random.default_rng(0))
    metric = make()
    metric.update(torch.zeros_like(parts[0]), *parts[1:])
    assert np.isfinite(metric.compute())
    low, high = metric.interval(resamples=20)
    assert low <= metric.compute() <= high


SEVERAL = [  # under "energy_present" every class with a box is a row of its own, kept under image * stride + class
    metrics.EnergyPointingGame,
    metrics.PixelPrecision,
    metrics.MaximumInBox,
    metrics.FalseActivation,
]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@settings(max_examples=8)
@given(st.data())
@pytest.mark.parametrize("kind", SEVERAL)
def test_classes_of_an_image_are_drawn_together_in_any_split(kind, data):
    n = data.draw(st.integers(3, 10))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    heat, corners = given_boxes(2 * n, rng)
    one, merged = kind(protocol="energy_present"), kind(protocol="energy_present")
    keys = torch.tensor([image * one.stride + label for image in range(n) for label in rng.choice(20, 2, replace=False)])
    one.update(heat, corners, ids=keys)
    cuts = sorted(data.draw(st.lists(st.integers(0, 2 * n), max_size=3)))  # an image's classes may fall apart
    for batch in np.split(np.array(data.draw(st.permutations(range(2 * n)))), cuts):
        if len(batch):
            piece = kind(protocol="energy_present")
            piece.update(*(chosen(part, batch.tolist()) for part in (heat, corners)), ids=keys[batch])
            merged.merge_state(piece)
    ids, rows = one.per_image()
    assert np.array_equal(rows, merged.per_image()[1])
    assert one.compute() == merged.compute()
    interval = one.interval(resamples=30)
    assert interval == merged.interval(resamples=30)
    groups = one.groups(ids)
    assert np.array_equal(np.bincount(groups), np.full(n, 2))
    assert interval == bootstrap(rows, one.value, groups=groups, resamples=30)  # not Wilson's, whose trials must be independent


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def plain_rows(name, heat, box):
    """A metric's row of one map and one box, pixel by pixel."""
    height, width = heat.shape
    inside = [[box[0] <= x <= box[2] and box[1] <= y <= box[3] for x in range(width)] for y in range(height)]
    pixels = [(float(heat[y, x]), inside[y][x]) for y in range(height) for x in range(width)]
    share = sum(within for _, within in pixels) / len(pixels)
    if name == "energy_pointing_game":
        return [sum(v for v, within in pixels if within), sum(v for v, _ in pixels)]
    if name == "maximum_in_box":
        return [float(max(pixels, key=lambda pixel: pixel[0])[1]), share]  # `max` keeps the first of equals
    if name == "false_activation":
        lit = [within for v, within in pixels if v > 0.2]
        return [lit.count(False) / len(pixels), len(lit) / len(pixels), share]
    precision, hits = 0.0, sum(within for _, within in pixels)
    for level in {v for v, _ in pixels}:
        shown = [within for v, within in pixels if v >= level]
        precision += shown.count(True) / len(shown) * sum(within for v, within in pixels if v == level) / hits
    return [precision, share]


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 10**6))
@pytest.mark.parametrize("kind", SEVERAL)
def test_maps_of_any_shape_beside_plain_loops(kind, shape, seed):
    """With ties and constant maps; one pixel and one row among the shapes."""
    rng = np.random.default_rng(seed)
    heat = rng.integers(0, 1 + rng.integers(6), shape) / 5  # 0.2, the threshold, among them
    (x0, x1), (y0, y1) = (np.sort(rng.integers(0, side, 2)).tolist() for side in shape[::-1])
    metric = kind()
    rows = metric.measure(torch.from_numpy(heat)[None], [torch.tensor([[x0, y0, x1, y1]])])
    assert rows[0].tolist() == pytest.approx(plain_rows(metric.name, heat, (x0, y0, x1, y1)), abs=1e-12)


@pytest.mark.parametrize("which", range(len(MEASURED)))
def test_nan_is_refused_in_one_sentence(which):
    make, draw = MEASURED[which]
    heat, *rest = draw(2, np.random.default_rng(0))
    heat = heat.clone()
    heat.reshape(-1)[5] = float("nan")
    with pytest.raises(ValueError, match=f"{make().name}: a map contains NaN or infinity"):
        make().update(heat, *rest)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("make", [make for make, _ in (*MEASURED, *RECORDED)])
def test_each_says_what_it_is(make):
    metric = make()
    assert metric.protocol in (*PROTOCOLS, "network")
    assert metric.needs
    assert metric.name == metric.name.lower().replace(" ", "_")
    hash(metric.shares)
    with pytest.raises(ValueError, match="nothing was recorded"):
        metric.compute()
