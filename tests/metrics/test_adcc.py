"""Coherency, complexity and ADCC against loops, and where one of them is zero."""

import math

import numpy as np
import pytest
import torch

from cam_core import METHODS, maps, metrics
from cam_core.probe import Probe
from tests.metrics.test_agreement import correlation
from tests.nets import dense, images


def explain(probe):
    return maps.upsample(maps.min_max(METHODS["grad_cam"](probe)), (16, 16))


def every():
    return [metrics.Coherency(), metrics.Complexity(), metrics.ADCC(), metrics.ADCC("means")]


def test_all_equal_their_formulas_image_by_image():
    classifier, batch = dense(), images(5)
    probe = Probe(classifier, batch)
    heat = explain(probe)
    found = every()
    for metric in found:
        metric.update(heat, probe, explain)
    rows = []
    for image, one in zip(batch, heat, strict=True):
        y = classifier(image[None])[0].detach().softmax(0)
        target = int(y.argmax())
        mean = classifier.mean.double()
        x = (image - mean) / classifier.std.double()
        shown = x * one * classifier.std.double() + mean  # the normalised image is multiplied
        o = classifier(shown[None])[0].detach().softmax(0)
        again = explain(Probe(classifier, shown[None], torch.tensor([target])))[0]
        a, b = one.flatten().tolist(), again.flatten().tolist()
        coherency = (1 + correlation(a, b)) / 2 if min(b) < max(b) else 0.0
        complexity = sum(a) / len(a)
        drop = max(0.0, float((y[target] - o[target]) / y[target]))
        rows.append((coherency, 1 - complexity, 1 - drop))
    means = [sum(column) / 5 for column in zip(*rows, strict=True)]
    assert all(min(row) > 0 for row in rows)
    per_image = sum(3 / sum(1 / v for v in row) for row in rows) / 5
    expected = [means[0], 1 - means[1], per_image, 3 / sum(1 / v for v in means)]
    assert [metric.compute() for metric in found] == pytest.approx([100 * v for v in expected], rel=1e-6)


def test_known_values_and_zeros():
    rows = torch.tensor([[0.8, 0.4, 0.5, 0.5], [0.5, 0.6, 1.0, 0.0], [0.5, 0.5, 0.0, 0.2], [0.5, 0.0, 1.0, 0.1]], dtype=torch.float64)
    found = every()
    for metric in found:
        metric.record(rows)
    coherency, complexity, per_image, of_means = (metric.compute() for metric in found)
    assert coherency == pytest.approx(62.5)
    assert complexity == pytest.approx(20)
    assert per_image == pytest.approx(100 * (0.5 + 1 + 0 + 0) / 4)  # any part that is 0 gives 0
    drops = np.mean([0.5, 0, 0, 1])
    assert of_means == pytest.approx(300 / (1 / 0.625 + 1 / 0.8 + 1 / (1 - drops)))
    weights = np.array([[1.0, 1, 1, 1], [0, 2, 2, 0]])
    for metric in found:
        both = metric.value(rows.numpy(), weights)
        assert both.shape == (2,)
        assert both[0] == pytest.approx(metric.compute())
    assert found[2].value(rows.numpy(), weights)[1] == pytest.approx(50)


def test_the_same_map_again_is_coherent_and_its_negative_is_not():
    probe, heat = Probe(dense(), images(2)), torch.rand(2, 16, 16).double()
    rows = metrics.ADCC().measure(heat, probe, lambda _probe: heat)
    assert rows[:, 2].tolist() == pytest.approx([1, 1])
    rows = metrics.ADCC().measure(heat, probe, lambda _probe: 1 - heat)
    assert rows[:, 2].tolist() == pytest.approx([0, 0], abs=1e-12)
    constant = torch.full((2, 16, 16), 0.3)
    assert metrics.ADCC().measure(constant, probe, lambda _probe: heat)[:, 2].tolist() == [0, 0]


def test_the_class_stays_and_one_second_explanation_serves_all():
    classifier, batch = dense(), images(2)
    probe = Probe(classifier, batch, torch.tensor([3, 1]))
    asked = []

    def spy(other):
        asked.append((other.targets.tolist(), math.isclose(float(other.images.mean()), float(batch.mean()))))
        return explain(other)

    metrics.Coherency().measure(explain(probe), probe, spy)
    assert asked == [([3, 1], False)]
    assert len({metric.shares for metric in every()}) == 1


def test_what_is_refused():
    probe = Probe(dense(), images(2))
    with pytest.raises(ValueError, match=r"adcc: maps must lie in \[0, 1\]"):
        metrics.ADCC().update(torch.full((2, 16, 16), 1.5), probe, explain)
    with pytest.raises(ValueError, match=r"complexity: maps must have the images' size"):
        metrics.Complexity().update(torch.rand(2, 4, 4), probe, explain)
    with pytest.raises(ValueError, match="coherency: a map contains NaN"):
        metrics.Coherency().update(torch.rand(2, 16, 16), probe, lambda _probe: torch.full((2, 16, 16), float("nan")))
    with pytest.raises(ValueError, match="averaging is 'images' or 'means'"):
        metrics.ADCC("median")
