"""Insertion, deletion, remove-and-classify and ROAD against loops over pixels; what ties, counts and known images must give."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cam_core import metrics
from cam_core.methods.control import image_seeds
from cam_core.metrics import removal, road
from cam_core.probe import Probe
from tests.nets import dense, images

SIDE = 16


def heat(count=4, seed=0):
    """Maps with distinct values, with ties, with a large zero region, and constant."""
    maps = torch.rand(count, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    maps[1] = (maps[1] * 4).floor() / 4
    maps[2, 4:] = 0
    maps[3] = 0.5
    return maps


def descending(one):
    """Pixel indices from the most to the least salient; Python's sort is stable."""
    flat = one.flatten().tolist()
    return sorted(range(len(flat)), key=lambda i: -flat[i])


def probability(classifier, image, target):
    logits = classifier(image[None])[0].tolist()
    e = [math.exp(v - max(logits)) for v in logits]
    return e[target] / sum(e)


def prediction(classifier, image):
    logits = classifier(image[None])[0].tolist()
    return max(range(len(logits)), key=logits.__getitem__)


def blurred(classifier, image):
    """RISE's substrate in loops: kernel 11, sigma 5 from a filtered dirac (mirrored borders), zeros around the normalised image."""
    weights = [math.exp(-k * k / 50) for k in range(-20, 21)]
    line = [0.0] * 11
    for place in range(11):
        for k, weight in zip(range(-20, 21), weights, strict=True):
            source = (place + k) % 22  # mirrored about the edges: 0..10 then 10..0
            if (source if source < 11 else 21 - source) == 5:
                line[place] += weight / sum(weights)
    x = ((image - classifier.mean) / classifier.std).numpy()
    out = np.zeros_like(x)
    for c in range(3):
        for i in range(SIDE):
            for j in range(SIDE):
                for a in range(11):
                    for b in range(11):
                        y, z = i + a - 5, j + b - 5
                        if 0 <= y < SIDE and 0 <= z < SIDE:
                            out[c, i, j] += line[a] * line[b] * x[c, y, z]
    return torch.from_numpy(out) * classifier.std + classifier.mean


def test_the_blur_is_rises_and_keeps_a_constant_away_from_the_border():
    classifier, batch = dense(), images(2)
    got = removal.rise_blur(Probe(classifier, batch))
    for image, one in zip(batch, got, strict=True):
        assert torch.allclose(one, blurred(classifier, image), rtol=1e-6)  # mean and std are float32 constants
    flat = removal.rise_blur(Probe(classifier, torch.full((1, 3, 32, 32), 0.7).double()))
    assert torch.allclose(flat[..., 5:-5, 5:-5], torch.tensor(0.7).double(), rtol=1e-12)


@pytest.mark.parametrize("kind", [metrics.Deletion, metrics.Insertion])
@pytest.mark.parametrize("step", [40, 64, 1000])
def test_the_curves_equal_a_loop_over_pixels(kind, step):
    classifier, batch, maps = dense(), images(4), heat()
    metric, probe = kind(step), Probe(classifier, batch, chunk=3)
    found = metric.curve(maps, probe)
    areas = []
    for image, one, row in zip(batch, maps, found, strict=True):
        target = prediction(classifier, image)
        mean = classifier.mean.double().expand(3, SIDE, SIDE)
        start, end = (image, mean) if kind is metrics.Deletion else (blurred(classifier, image), image)
        now, order = start.clone(), descending(one)
        curve = [probability(classifier, now, target)]
        for first in range(0, SIDE * SIDE, step):
            for pixel in order[first : first + step]:
                now[:, pixel // SIDE, pixel % SIDE] = end[:, pixel // SIDE, pixel % SIDE]
            curve.append(probability(classifier, now, target))
        assert row.tolist() == pytest.approx(curve, rel=1e-6)
        areas.append((sum(curve) - curve[0] / 2 - curve[-1] / 2) / (len(curve) - 1))
    metric.update(maps, probe)
    assert metric.compute() == pytest.approx(100 * sum(areas) / 4, rel=1e-6)


def test_the_whole_image_is_not_passed_again_and_few_images_exist_at_once():
    classifier, batch, maps = dense(), images(2), heat()[:2]
    probe = Probe(classifier, batch, chunk=5)
    _ = probe.logits
    passed = []
    classifier.trunk.register_forward_pre_hook(lambda _m, given: passed.append(len(given[0])))
    for metric in (metrics.Deletion(16), metrics.Insertion(16)):
        passed.clear()
        curve = metric.curve(maps, probe)
        assert curve.shape == (2, 17)
        assert sum(passed) == 2 * 16
        assert max(passed) == 5


def test_curves_of_order_alone():
    """A monotone change of the values moves nothing; the reversed map deletes what the map would keep."""
    classifier, batch = dense(), images(2)
    probe, maps = Probe(classifier, batch), heat()[:2]
    for metric in (metrics.Deletion(32), metrics.Insertion(32)):
        assert torch.equal(metric.curve(maps, probe), metric.curve(maps**3 + 1, probe))
    colour = classifier.mean.double().expand(3, SIDE, SIDE)
    empty = probability(classifier, colour, int(probe.targets[0]))
    assert metrics.Deletion(32).curve(maps, probe)[0, -1] == pytest.approx(empty, rel=1e-6)


def test_ties_are_in_scan_order_or_drawn_and_counted():
    maps = heat()
    scan, drawn = removal.ranks(maps), removal.ranks(maps, [1, 2, 3, 4])
    assert torch.equal(scan[3].flatten(), torch.arange(256))
    assert not torch.equal(drawn[3], scan[3])
    assert torch.equal(scan[0], drawn[0])  # nothing to draw
    for rank in (scan, drawn):
        assert torch.equal(rank.flatten(1).sort(1).values, torch.arange(256).expand(4, -1))
        for one, place in zip(maps, rank, strict=True):
            assert (one.flatten()[place.flatten().argsort()].diff() <= 0).all()
    tied = metrics.TiedPixels()
    counts = torch.tensor([[[1.0, 2, 2], [3, 3, 3]], [[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 0]]])
    assert tied.measure(counts, None).tolist() == pytest.approx([5 / 6, 0, 1])


def test_remove_and_classify_equals_a_loop():
    classifier, batch, maps = dense(), images(4), heat() - 0.3
    labels = torch.tensor([0, 1, 2, 3])
    labels[0] = classifier(batch[:1]).argmax()
    labels[2] = classifier(batch[2:3]).argmax()
    probe = Probe(classifier, batch, labels)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        metric = metrics.RemoveAndClassify(share)
        rows = metric.measure(maps, probe)
        count = int(share * SIDE * SIDE)
        for image, one, label, seed, row in zip(batch, maps, labels, image_seeds(probe, 0), rows, strict=True):
            chance = torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(seed)).tolist()
            for order, value in ((descending(one), row[0]), (chance, row[1])):
                erased = image.clone()
                for pixel in order[:count]:
                    erased[:, pixel // SIDE, pixel % SIDE] = classifier.mean[:, 0, 0]
                assert float(value) == float(prediction(classifier, erased) == int(label))


def gauss_31(image):
    """Sigma 15 over 31 pixels, in loops; beyond the border the image is mirrored, its edge not repeated."""
    line = [math.exp(-(((k - 15) / 15) ** 2) / 2) for k in range(31)]

    def mirrored(i):
        return -i if i < 0 else 2 * (SIDE - 1) - i if i >= SIDE else i

    once = np.zeros_like(image)
    for i in range(SIDE):
        once[:, i] = sum(w * image[:, mirrored(i + k - 15)] for k, w in enumerate(line)) / sum(line)
    twice = np.zeros_like(image)
    for j in range(SIDE):
        twice[:, :, j] = sum(w * once[:, :, mirrored(j + k - 15)] for k, w in enumerate(line)) / sum(line)
    return twice


@pytest.mark.parametrize("fill", removal.FILLS)
def test_what_is_erased_shows_one_of_the_released_fills(fill):
    classifier, batch, maps = dense(), images(4), heat()
    probe = Probe(classifier, batch, torch.tensor([0, 1, 2, 3]))
    shown, seen = {}, Probe.score_masked

    class Watch(Probe):
        def score_masked(self, masks, fill="black", *args, **options):
            shown["fill"] = self.colour(fill).expand_as(self.images)
            return seen(self, masks, fill, *args, **options)

    metric = metrics.RemoveAndClassify(0.5, fill=fill)
    rows = metric.measure(maps, Watch(classifier, batch, probe.targets))
    for b, image in enumerate(batch):
        own = image.mean((1, 2), keepdim=True).expand_as(image)
        noise = torch.randn(3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(image_seeds(probe, 0)[b]))
        want = {
            "mean": classifier.mean.expand_as(image), "black": torch.zeros_like(image), "image mean": own,
            "noise": own + 0.2 * classifier.std * noise,  # .2 of the normalised image's unit
            "blur": torch.from_numpy(gauss_31(image.numpy())),
        }[fill]  # fmt: skip
        torch.testing.assert_close(shown["fill"][b], want.double())
        gone = torch.zeros(SIDE * SIDE, dtype=torch.bool)
        gone[descending(maps[b])[: SIDE * SIDE // 2]] = True
        erased = torch.where(gone.reshape(SIDE, SIDE), want, image)
        assert float(rows[b, 0]) == float(prediction(classifier, erased) == b)
    assert metric.setting == "50%" + ("" if fill == "mean" else f" {fill}")
    assert (metric.shares == metrics.CorrectAfterRemoval(0.5).shares) == (fill == "mean")


def test_an_unknown_fill_is_refused():
    with pytest.raises(ValueError, match="fill is 'mean', 'black', 'image mean', 'noise' or 'blur', got 'grey'"):
        metrics.RemoveAndClassify(fill="grey")


@pytest.mark.parametrize(("share", "count"), [(0.1, 5017), (0.3, 15052), (0.5, 25088), (0.7, 35123), (0.9, 45158)])
def test_calms_pixel_counts(share, count):
    seen = []

    class Watch(Probe):
        def score_masked(self, masks, fill="black", *_args, **_options):
            seen.append((int((masks == 0).sum()), fill))
            return torch.zeros(1, 1, 5)

    probe = Watch(dense(), images(1, 224, 224), torch.tensor([0]))
    metrics.RemoveAndClassify(share).measure(torch.rand(1, 224, 224), probe)
    assert seen == [(count, "mean")] * 2


def test_random_erasing_is_asked_once_and_belongs_to_the_image():
    classifier, batch = dense(), images(3)
    probe, metric = Probe(classifier, batch), metrics.RemoveAndClassify(0.5)
    rows = metric.measure(torch.rand(3, SIDE, SIDE), probe)
    passed = []
    classifier.trunk.register_forward_pre_hook(lambda _m, given: passed.append(len(given[0])))
    again = metric.measure(torch.rand(3, SIDE, SIDE), probe)
    assert sum(passed) == 3
    assert torch.equal(rows[:, 1], again[:, 1])
    alone = metric.measure(torch.rand(1, SIDE, SIDE), Probe(classifier, batch[1:2]))
    assert torch.equal(alone[0, 1], rows[1, 1])


def test_the_ratio_its_counts_and_its_interval():
    rows = torch.tensor([[1.0, 1], [0, 1], [0, 1], [1, 0], [0, 1]])
    found = {}
    for kind in (metrics.RemoveAndClassify, metrics.CorrectAfterRemoval, metrics.CorrectAfterRandomRemoval):
        metric = kind(0.3)
        metric.record(rows)
        found[metric.name] = metric
    assert found["remove_and_classify"].compute() == 0.5
    assert found["correct_after_removal"].compute() == pytest.approx(40)
    assert found["correct_after_random_removal"].compute() == pytest.approx(80)
    assert len({m.shares for m in found.values()}) == 1
    low, high = found["correct_after_removal"].interval()
    assert (low, high) == pytest.approx(metrics.statistics.wilson(2, 5))
    ratio = found["remove_and_classify"]
    weights = np.array([[1.0, 1, 1, 1, 1], [2, 0, 0, 3, 0], [0, 0, 0, 2, 0]])
    assert ratio.value(rows.numpy(), weights).tolist() == [0.5, 2.5, 3.0]  # the last has no image that survived chance: (2 + 1) / 1
    low, high = ratio.interval(resamples=200)
    assert low <= 0.5 <= high
    nothing = metrics.RemoveAndClassify(0.9)
    nothing.record(torch.zeros(3, 2))
    assert nothing.compute() == 1
    assert nothing.interval(resamples=50) == (1, 1)


def imputed(image, missing):
    """ROAD's equations written out pixel by pixel, solved as a full matrix."""
    height, width = missing.shape
    unknown = [(i, j) for i in range(height) for j in range(width) if missing[i, j]]
    index = {pixel: n for n, pixel in enumerate(unknown)}
    system, right = np.zeros((len(unknown), len(unknown))), np.zeros((len(unknown), len(image)))
    for (i, j), n in index.items():
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                y, x = i + a, j + b
                if (a, b) == (0, 0) or not (0 <= y < height and 0 <= x < width):
                    continue
                weight = 1 / 6 if a == 0 or b == 0 else 1 / 12
                system[n, n] += weight
                if (y, x) in index:
                    system[n, index[y, x]] -= weight
                else:
                    right[n] += weight * image[:, y, x]
    out = image.copy()
    for (i, j), value in zip(unknown, np.linalg.solve(system, right), strict=True):
        out[:, i, j] = value
    return out


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_imputation_equals_the_equations_written_out(share):
    rng = np.random.default_rng(0)
    image = rng.random((3, 9, 13))
    missing = rng.random((9, 13)) < share
    missing[0, :2], missing[4, 4] = True, False
    assert road.impute(image, missing) == pytest.approx(imputed(image, missing), abs=1e-12)


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 10**6))
def test_imputation_of_any_shape_and_any_holes(shape, seed):
    rng = np.random.default_rng(seed)
    image, missing = rng.random((2, *shape)), rng.random(shape) < rng.random()
    missing.flat[rng.integers(missing.size)] = False
    assert road.impute(image, missing) == pytest.approx(imputed(image, missing), abs=1e-9)


@settings(max_examples=60)
@given(SHAPES, st.integers(0, 10**6))
def test_places_in_maps_of_any_shape_with_any_ties(shape, seed):
    """Scan order is Python's stable sort; a draw keeps every pixel among its equals, and depends on its own seed alone."""
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(rng.integers(-2, 1 + rng.integers(6), (3, *shape)) / 4)
    places, drawn = removal.ranks(maps), removal.ranks(maps, [1, 2, 3])
    for one, place, lot in zip(maps, places, drawn, strict=True):
        assert [int(place.flatten()[i]) for i in descending(one)] == list(range(one.numel()))
        sorted_values = one.flatten().sort(descending=True).values
        assert torch.equal(sorted_values[lot.flatten()], one.flatten())
        assert sorted(lot.flatten().tolist()) == list(range(one.numel()))
    assert torch.equal(drawn[1], removal.ranks(maps[1:2], [2])[0])


def test_known_imputations():
    ramp = np.add.outer(np.arange(8.0), 2 * np.arange(10.0))[None]
    hole = np.zeros((8, 10), bool)
    hole[2:6, 3:8] = True
    assert road.impute(ramp, hole) == pytest.approx(ramp, abs=1e-12)  # a plane is its own mean
    alone = np.ones((8, 10), bool)
    alone[7, 0] = False
    assert road.impute(ramp, alone) == pytest.approx(np.full_like(ramp, 7), abs=1e-9)
    assert np.array_equal(road.impute(ramp, np.zeros((8, 10), bool)), ramp)
    with pytest.raises(ValueError, match="no pixel is left"):
        road.impute(ramp, np.ones((8, 10), bool))


def test_road_equals_a_loop_and_its_counts_are_exact():
    classifier, batch, maps = dense(), images(4), heat()
    labels = torch.tensor([0, 1, 2, 3])
    labels[0] = classifier(batch[:1]).argmax()
    probe = Probe(classifier, batch, labels)
    for share in (0.2, 0.6):
        kinds = {kind.name: kind(share) for kind in (metrics.RoadMorf, metrics.RoadLerf, metrics.RoadCombined)}
        assert len({m.shares for m in kinds.values()}) == 1
        for metric in kinds.values():
            metric.update(maps, probe)
        correct, confidence = np.zeros((4, 2)), np.zeros((4, 2))
        for n, (image, one, label, seed) in enumerate(zip(batch, maps, labels.tolist(), image_seeds(probe, 0), strict=True)):
            shuffled = torch.randperm(SIDE * SIDE, generator=torch.Generator().manual_seed(seed)).tolist()
            flat = one.flatten().tolist()
            order = sorted(shuffled, key=lambda i: -flat[i])
            noise = np.random.default_rng(seed).normal(0, 0.01, (3, SIDE, SIDE))
            count = int(share * SIDE * SIDE)
            for o, pixels in enumerate((order[:count], order[-count:])):
                missing = np.zeros(SIDE * SIDE, bool)
                missing[pixels] = True
                missing = missing.reshape(SIDE, SIDE)
                made = torch.from_numpy(imputed(image.numpy(), missing) + missing * noise)
                correct[n, o] = prediction(classifier, made) == label
                confidence[n, o] = probability(classifier, made, label)
        assert kinds["road_morf"].compute() == pytest.approx(100 * correct[:, 0].mean())
        assert kinds["road_lerf"].compute() == pytest.approx(100 * correct[:, 1].mean())
        assert kinds["road_combined"].compute() == pytest.approx(50 * (confidence[:, 1] - confidence[:, 0]).mean(), rel=1e-8)


def test_a_constant_map_removes_by_chance():
    """ROAD's ties are drawn: a constant map removes the same scattered pixels whatever its value, not the top rows."""
    probe = Probe(dense(), images(2))
    metric = metrics.RoadMorf(0.3)
    assert torch.equal(metric.measure(torch.zeros(2, SIDE, SIDE), probe), metric.measure(torch.ones(2, SIDE, SIDE), probe))


def test_what_is_refused():
    probe = Probe(dense(), images(2))
    small = torch.rand(2, 4, 4)
    for metric in (metrics.Deletion(), metrics.RemoveAndClassify(), metrics.RoadMorf()):
        with pytest.raises(ValueError, match=f"{metric.name}: maps must have the images' size"):
            metric.update(small, probe)
    for share in (0, 1, 1.5):
        for kind in (metrics.RemoveAndClassify, metrics.RoadLerf):
            with pytest.raises(ValueError, match="share must lie between 0 and 1"):
                kind(share)
    with pytest.raises(ValueError, match="step is a number of pixels"):
        metrics.Insertion(0)


EVERY = (
    metrics.Deletion, metrics.Insertion, metrics.TiedPixels, metrics.RemoveAndClassify, metrics.CorrectAfterRemoval,
    metrics.CorrectAfterRandomRemoval, metrics.RoadMorf, metrics.RoadLerf, metrics.RoadCombined,
)  # fmt: skip


@pytest.mark.parametrize("kind", EVERY)
def test_one_image_whose_map_says_nothing_gives_a_number_and_nan_is_refused(kind):
    probe, metric = Probe(dense(), images(1)), kind()
    metric.update(torch.zeros(1, SIDE, SIDE), probe)
    low, high = metric.interval(resamples=20)
    assert low <= metric.compute() <= high
    assert np.isfinite([low, metric.compute(), high]).all()
    with pytest.raises(ValueError, match=f"{metric.name}: a map contains NaN or infinity"):
        metric.update(torch.full((1, SIDE, SIDE), float("nan")), probe)


@pytest.mark.parametrize("kind", EVERY)
def test_any_split_gives_the_bits_of_one_pass(kind):
    classifier, batch, maps = dense(), images(5), torch.cat([heat(), heat(seed=3)[:1]])
    one, pieces = kind(), []
    one.update(maps, Probe(classifier, batch), ids=range(5))
    rows = torch.from_numpy(one.per_image()[1].copy())
    for part in ([4, 0], [2], [3, 1, 2]):  # in another order, one of them twice
        piece = kind()
        piece.record(rows[part], part)
        pieces.append(piece)
    for piece in pieces[1:]:
        pieces[0].merge_state(piece)
    assert np.array_equal(pieces[0].per_image()[1], rows)
    assert pieces[0].compute() == one.compute()
    assert pieces[0].interval(resamples=30) == one.interval(resamples=30)
    for i in range(5):  # an image measured alone: float64 networks may differ in the last bits of a batch
        alone = kind().measure(maps[i : i + 1], Probe(classifier, batch[i : i + 1]))
        assert torch.allclose(alone[0], rows[i], rtol=1e-9, atol=1e-12)


def test_what_is_removed_first_among_equals_is_what_comes_first():
    """Remove-and-classify keeps scan order among ties, also under random ones: the same pixels every time, and exactly so many."""
    seen = []

    class Watch(Probe):
        def score_masked(self, masks, fill="black", *_args, **_options):
            seen.append(masks[:, 0] == 0)
            return torch.zeros(2, 1, 5)

    tied = torch.zeros(2, SIDE, SIDE)
    tied[:, 8] = 1.0
    metrics.CorrectAfterRemoval(0.25).measure(tied, Watch(dense(), images(2)))
    order = torch.cat([torch.arange(128, 144), torch.arange(48)])
    assert seen[0].flatten(1).nonzero()[:, 1].reshape(2, -1).tolist() == [sorted(order.tolist())] * 2
    assert seen[1].flatten(1).sum(1).tolist() == [64, 64]
    assert not torch.equal(seen[1][0], seen[1][1])  # drawn from the image
