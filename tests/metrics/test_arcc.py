"""ARCC and F-Fidelity by brute force on tiny networks."""

import numpy as np
import pytest
import torch

from cam_core import METHODS, Probe, metrics
from cam_core.metrics.arcc import ARCC
from cam_core.metrics.f_fidelity import FFidelityMinus, FFidelityPlus
from cam_core.protocol import finish
from tests.nets import gap, images


def explain(probe):
    return finish(METHODS["grad_cam"](probe), probe.images.shape[-2:], "min_max_bilinear")


def test_arcc_is_the_harmonic_mean_of_three():
    probe = Probe(gap(), images(3, seed=4))
    heat = explain(probe)
    metric = ARCC()
    metric.update(heat, probe, explain)
    coherency, complexity = metrics.Coherency(), metrics.Complexity()
    for one in (coherency, complexity):
        one.update(heat, probe, explain)
    road = [metrics.RoadCombined(share) for share in (0.2, 0.4, 0.6, 0.8)]
    for one in road:
        one.update(heat, probe)
    expected = []
    for i in range(3):
        clear = np.mean([2 * one.unit / 100 * one.each(one.per_image()[1])[i] for one in road])
        parts = [coherency.each(coherency.per_image()[1])[i], 1 - complexity.each(complexity.per_image()[1])[i], max(0.0, clear)]
        expected.append(3 / sum(1 / part for part in parts) if min(parts) > 0 else 0.0)
    assert metric.each(metric.per_image()[1]).tolist() == pytest.approx(expected)
    assert metric.compute() == pytest.approx(100 * np.mean(expected))
    assert 0 < max(expected) < 1


def test_arcc_of_fake_cam_is_nothing_because_it_shows_everything():
    probe = Probe(gap(), images(2))
    metric = ARCC()
    metric.update(METHODS["fake_cam"](probe), probe, METHODS["fake_cam"])
    assert metric.compute() < 2


def test_f_fidelity_removes_within_the_explanation_and_within_the_rest():
    """With every cell of a set drawn (share 1) nothing is random, and both numbers follow by hand."""
    network, surrogate = gap(), gap(seed=5)
    pictures = images(2)
    probe = Probe(network, pictures)
    heat = METHODS["grad_cam"](probe)  # [2,8,8]
    options = {"sizes": (0.25, 0.5), "share": 1.0, "most": 0.6, "samples": 2}
    plus, minus = FFidelityPlus(surrogate, **options), FFidelityMinus(surrogate, **options)
    plus.update(heat, probe)
    minus.record(plus.measure(heat, probe))
    assert plus.counts(64) == [(16, 16, 38), (32, 32, 32)]
    assert plus.shares == minus.shares
    # size 0.5: the explanation goes as a whole, and so does the rest
    rank = heat.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(1).reshape(2, 8, 8)
    for rows, inside in ((plus.per_image()[1][:, 2], True), (minus.per_image()[1][:, 4], False)):
        gone = (rank < 32) == inside
        large = gone.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None]
        shown = torch.where(large, network.mean, pictures)
        expected = surrogate(shown).double().softmax(1)[[0, 1], probe.targets]
        assert rows.tolist() == pytest.approx(expected.tolist())
    whole = surrogate(pictures).softmax(1)[[0, 1], probe.targets].tolist()
    assert plus.per_image()[1][:, 0].tolist() == pytest.approx(whole)
    assert plus.compute() == pytest.approx(100 * float(np.mean(np.array(whole) - plus.per_image()[1][:, 1:3].mean(1))))
    assert minus.compute() == pytest.approx(100 * float(np.mean(np.array(whole) - plus.per_image()[1][:, 3:5].mean(1))))


def test_f_fidelity_never_removes_more_than_the_surrogate_can_bear():
    plus = FFidelityPlus(gap(), most=0.3)
    assert plus.counts(196) == [(20, 10, 58), (59, 30, 58), (98, 49, 49)]
    kept = plus._kept(torch.randperm(196, generator=torch.Generator().manual_seed(1)), seed=7)
    assert kept.shape == (2 * 3 * 8, 196)
    assert int((kept == 0).sum(1).max()) == 58
    assert torch.equal(kept, plus._kept(torch.randperm(196, generator=torch.Generator().manual_seed(1)), seed=7))
