"""Average Drop, Increase in Confidence, Average Gain and the map's mean against formulas written out."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cam_core import metrics
from cam_core.probe import Probe
from tests.nets import dense, images


def muted(heat, drop):
    """L-CAM's released muting of one map, as a loop: rank, threshold, surplus in scan order."""
    flat = heat.flatten().tolist()
    n = len(flat)
    rank = int(n * drop)
    if rank == 0:
        return heat
    threshold = sorted(flat)[rank - 1]
    kept = [0.0 if v < threshold else v for v in flat]
    surplus = sum(v > 0 for v in kept) - math.ceil((1 - drop) * n - 1e-9)
    for i, v in enumerate(kept):
        if surplus > 0 and v == threshold:
            kept[i], surplus = 0.0, surplus - 1
    return torch.tensor(kept, dtype=heat.dtype).reshape(heat.shape)


def softmax(logits):
    e = [math.exp(v - max(logits)) for v in logits]
    return [v / sum(e) for v in e]


@pytest.mark.parametrize("fill", ["black", "mean"])
@pytest.mark.parametrize("keep", [1.0, 0.5, 0.15])
def test_all_four_equal_their_formulas_image_by_image(keep, fill):
    classifier, batch = dense(), images(5)
    probe = Probe(classifier, batch)
    heat = torch.rand(5, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    heat[1] = (heat[1] * 4).floor() / 4  # ties
    heat[2, 4:] = 0
    found = {
        m.name: m
        for m in (k(keep, fill) for k in (metrics.AverageDrop, metrics.IncreaseInConfidence, metrics.AverageGain, metrics.MapMean))
    }
    for metric in found.values():
        metric.update(heat, probe)
    rows = []
    for image, one in zip(batch, heat, strict=True):
        full = softmax(classifier(image[None])[0].tolist())
        target = max(range(len(full)), key=full.__getitem__)
        shown = muted(one, 1 - keep)
        background = 0 if fill == "black" else classifier.mean.reshape(3, 1, 1).double()
        hidden = softmax(classifier((image * shown + (1 - shown) * background)[None])[0].tolist())
        rows.append((full[target], hidden[target], shown.mean().item()))
    y, o, m = np.array(rows).T
    assert found["average_drop"].compute() == pytest.approx(100 / 5 * sum(max(0, a - b) / a for a, b in zip(y, o, strict=True)), rel=1e-9)
    assert found["increase_in_confidence"].compute() == pytest.approx(100 / 5 * sum(b > a for a, b in zip(y, o, strict=True)))
    assert found["average_gain"].compute() == pytest.approx(
        100 / 5 * sum(max(0, b - a) / (1 - a) for a, b in zip(y, o, strict=True)), rel=1e-9
    )
    assert found["map_mean"].compute() == pytest.approx(100 * m.mean(), rel=1e-9)


@settings(max_examples=30)
@given(st.tuples(st.integers(8, 20), st.integers(8, 20)), st.integers(0, 10**6), st.sampled_from([1.0, 0.5, 0.15, 0.03]))
def test_images_of_any_shape_are_seen_through_the_muted_map(shape, seed, keep):
    """With ties of all lengths, up to a constant map."""
    rng, classifier = np.random.default_rng(seed), dense()
    probe, heat = Probe(classifier, images(1, *shape)), torch.from_numpy(rng.integers(0, 1 + rng.integers(6), shape) / 5)
    rows = metrics.AverageDrop(keep).measure(heat[None], probe)[0].tolist()
    shown, target = muted(heat, 1 - keep), int(probe.targets[0])
    seen = [softmax(classifier(image[None])[0].tolist())[target] for image in (probe.images[0], probe.images[0] * shown)]
    assert rows == pytest.approx([*seen, shown.mean().item()], rel=1e-9)


@pytest.mark.parametrize(("keep", "survivors"), [(0.5, 25088), (0.15, 7527), (1.0, 50176)])
def test_survivors_at_224_pixels(keep, survivors):
    """A map of distinct positive values: the network sees exactly the survivors (here it answers with their number)."""
    heat = (torch.randperm(50176, generator=torch.Generator().manual_seed(0)) + 1).reshape(1, 224, 224) / 50177
    seen = []
    probe = SimpleNamespace(
        images=torch.ones(1, 3, 224, 224),
        classifier=SimpleNamespace(probabilities=lambda logits: logits.softmax(-1)),
        targets=torch.tensor([0]),
        probabilities=torch.tensor([[0.5, 0.5]]),
        colour=lambda fill: fill,
        of_target=lambda scores: scores[:, 0],
        score_masked=lambda masks, *_, **__: seen.append(int((masks > 0).sum())) or torch.zeros(1, 1, 2),
    )
    metrics.AverageDrop(keep).update(heat, probe)
    assert seen == [survivors]


def test_the_numbers_of_three_known_images():
    """Y = .8, .5, 1 and O = .4, .75, 1: drops .5, 0, 0; gains 0, .5, and one image that cannot gain."""
    rows = torch.tensor([[0.8, 0.4, 0.2], [0.5, 0.75, 0.4], [1.0, 1.0, 0.6]], dtype=torch.float64)
    expected = {metrics.AverageDrop: 50 / 3, metrics.IncreaseInConfidence: 100 / 3, metrics.AverageGain: 25.0, metrics.MapMean: 40.0}
    for kind, number in expected.items():
        metric = kind()
        metric.record(rows)
        assert metric.compute() == pytest.approx(number, rel=1e-12)
    zero = metrics.AverageDrop()
    zero.record(torch.tensor([[0.0, 0.0, 0.5]]))
    assert zero.compute() == 0.0


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_top_k_under_the_mask_is_of_the_label(keep):
    """Whatever is explained: the label's place among the classes of the masked image, by sorting."""
    classifier, batch = dense(), images(6)
    labels, probe = [0, 1, 2, 3, 4, 0], Probe(classifier, batch)
    heat = torch.rand(6, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    places = []
    for image, one, label in zip(batch, heat, labels, strict=True):
        logits = classifier((image * muted(one, 1 - keep))[None])[0].tolist()
        places.append(sorted(range(5), key=lambda c: -logits[c]).index(label))
    assert len(set(places)) > 2
    for k in (1, 2, 5):
        metric = metrics.CorrectUnderMask(keep, k)
        metric.update(heat, probe, labels)
        assert metric.compute() == pytest.approx(100 * sum(place < k for place in places) / 6)
        assert metric.per_image()[1][:, 3].tolist() == places
        assert (metric.name, metric.setting) == (f"top_{k}_masked", f"{100 * keep:g}%")
        assert metric.shares == metrics.AverageDrop(keep).shares
    assert metric.compute() == 100  # of five classes
    beside = metrics.AverageDrop(keep)
    beside.update(heat, probe)
    assert np.array_equal(metric.per_image()[1][:, :3], beside.per_image()[1])
    with pytest.raises(ValueError, match=r"top_1_masked: an image of several classes has no one label \(-1\)"):
        metrics.CorrectUnderMask().update(heat, probe, [0, 1, -1, 3, 4, 0])


def test_unmasked_and_all_black():
    """The all-ones map loses nothing; the all-zeros map leaves the network's answer to a black image."""
    classifier, batch = dense(), images(4)
    probe = Probe(classifier, batch)
    ones, zeros = metrics.AverageDrop(), metrics.AverageDrop()
    ones.update(torch.ones(4, 16, 16), probe)
    assert ones.compute() == pytest.approx(0, abs=1e-10)
    zeros.update(torch.zeros(4, 16, 16), probe)
    black = classifier(torch.zeros(1, 3, 16, 16).double()).detach().softmax(1)[0]
    y = classifier(batch).detach().softmax(1)
    drops = [max(0.0, float(1 - black[int(row.argmax())] / row.max())) for row in y]
    assert zeros.compute() == pytest.approx(100 * sum(drops) / 4, rel=1e-9)


def test_maps_of_the_wrong_size_or_range_are_refused():
    probe = Probe(dense(), images(2))
    with pytest.raises(ValueError, match=r"images' size \(16, 16\), got \(2, 8, 8\)"):
        metrics.AverageDrop().update(torch.zeros(2, 8, 8), probe)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 0 to 2"):
        metrics.MapMean().update(torch.linspace(0, 2, 512).reshape(2, 16, 16), probe)
