"""Sensitivity-n, infidelity and max-sensitivity against loops; on a linear network the true worth of the cells is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cam_core import METHODS, metrics
from cam_core.classifier import Classifier
from cam_core.methods.control import image_seeds
from cam_core.metrics.agreement import losses
from cam_core.probe import Probe
from tests.nets import dense, images

GRID = 4


def linear(seed=0):
    """A network that is linear in the image, float64: four by four cells of four by four pixels."""
    head = nn.Linear(3 * GRID * GRID, 5)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return Classifier(nn.AvgPool2d(4), nn.Sequential(nn.Flatten(), head)).double().eval()


def worth(classifier, probe):
    """What each cell adds to the target's logit: weight times normalised value, summed over the colours."""
    weights = classifier.head[1].weight[probe.targets].detach().reshape(-1, 3, GRID, GRID)
    return (weights * probe.activations).sum(1)


def correlation(a, b):
    n, ma, mb = len(a), sum(a) / len(a), sum(b) / len(b)
    cov = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True)) / n
    return cov / math.sqrt(sum((x - ma) ** 2 for x in a) / n * sum((y - mb) ** 2 for y in b) / n)


def lost(classifier, image, target, cells):
    """The logit's loss when the cells [h,w] turn into the mean colour, pixel by pixel."""
    hidden, (height, width) = image.clone(), image.shape[1:]
    h, w = cells.shape
    for i in range(height):
        for j in range(width):
            if cells[i * h // height, j * w // width]:
                hidden[:, i, j] = classifier.mean[:, 0, 0]
    return float((classifier(image[None]) - classifier(hidden[None])).detach()[0, target])


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8])
def test_on_a_linear_network_the_worth_of_the_cells_is_perfect(share):
    classifier = linear()
    probe = Probe(classifier, images(3))
    perfect = worth(classifier, probe)
    for sign in (1, -1):
        metric = metrics.SensitivityN(share)
        metric.update(sign * perfect, probe)
        assert metric.compute() == pytest.approx(sign, abs=1e-9)
    for factor in (1.0, -7.3):
        rows = metrics.Infidelity().measure(factor * perfect, probe)
        assert rows[:, 1].tolist() == pytest.approx([0] * 3, abs=1e-9)
        assert (rows[:, 0] < 1e-9).all() == (factor == 1)


def test_sensitivity_n_equals_a_loop():
    classifier, batch = dense(), images(3)
    probe, maps = Probe(classifier, batch), torch.randn(3, GRID, GRID, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    metric = metrics.SensitivityN(0.3, subsets=20, seed=4)
    sets = metric.sets(GRID, GRID)
    assert sets.flatten(1).sum(1).tolist() == [round(0.3 * 16)] * 20
    rows = metric.measure(maps, probe)
    for image, one, target, row in zip(batch, maps, probe.targets.tolist(), rows, strict=True):
        sums = [float(sum(one[cells].tolist())) for cells in sets]
        drops = [lost(classifier, image, target, cells) for cells in sets]
        assert float(row) == pytest.approx(correlation(sums, drops), rel=1e-6)


@settings(max_examples=25)
@given(st.tuples(st.integers(8, 20), st.integers(8, 20)), st.tuples(st.integers(1, 8), st.integers(1, 8)), st.integers(0, 10**6))
def test_what_any_set_of_cells_of_any_grid_is_worth(shape, grid, seed):
    """Grids that do not divide the image too: a pixel belongs to the cell that its centre lies in."""
    classifier, image = dense(), images(1, *shape)
    probe, cells = Probe(classifier, image), torch.rand(2, *grid, generator=torch.Generator().manual_seed(seed)) < 0.5
    for gone, found in zip(cells, losses(probe, cells)[0].tolist(), strict=True):
        own = [[int((i + 0.5) * side / pixels) for i in range(pixels)] for pixels, side in zip(shape, grid, strict=True)]
        hidden = gone[own[0]][:, own[1]]
        assert found == pytest.approx(lost(classifier, image[0], int(probe.targets[0]), hidden), rel=1e-6, abs=1e-9)


def test_constant_maps_and_constant_scores_correlate_zero():
    probe = Probe(dense(), images(2))
    constant = torch.full((2, GRID, GRID), 0.1)
    assert metrics.SensitivityN(0.5).measure(constant, probe).tolist() == [0, 0]
    flat = Probe(linear(), linear().mean.double().expand(2, 3, 16, 16).clone())  # every removal leaves the image as it is
    assert metrics.SensitivityN(0.5).measure(torch.rand(2, GRID, GRID), flat).tolist() == [0, 0]


def test_infidelity_equals_a_loop_over_squares():
    classifier, batch = dense(), images(2)
    probe, maps = Probe(classifier, batch), torch.randn(2, GRID, GRID, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    metric = metrics.Infidelity(sides=2)
    assert len(metric.squares(GRID, GRID)) == 16 + 9
    assert len(metrics.Infidelity().squares(2, 3)) == 6 + 2  # three by three does not fit
    rows = metric.measure(maps, probe)
    for image, one, target, row in zip(batch, maps, probe.targets.tolist(), rows, strict=True):
        sums, drops = [], []
        for side in (1, 2):
            for top in range(GRID - side + 1):
                for left in range(GRID - side + 1):
                    cells = torch.zeros(GRID, GRID, dtype=torch.bool)
                    for i in range(side):
                        for j in range(side):
                            cells[top + i, left + j] = True
                    sums.append(float(one[cells].sum()))
                    drops.append(lost(classifier, image, target, cells))
        beta = sum(a * b for a, b in zip(sums, drops, strict=True)) / sum(a * a for a in sums)
        plain, scaled = (sum((s * a - b) ** 2 for a, b in zip(sums, drops, strict=True)) / len(sums) for s in (1, beta))
        assert row.tolist() == pytest.approx([plain, scaled], rel=1e-6)
        assert row[1] <= row[0]


def test_an_empty_map_is_as_unfaithful_as_the_losses_are_large():
    probe, metric = Probe(dense(), images(2)), metrics.Infidelity()
    rows = metric.measure(torch.zeros(2, GRID, GRID), probe)
    expected = losses(probe, metric.squares(GRID, GRID)).square().mean(1)
    assert torch.allclose(rows, expected[:, None].expand(-1, 2))


def test_losses_are_asked_once_for_all_methods():
    classifier = dense()
    probe, maps = Probe(classifier, images(2)), torch.rand(2, GRID, GRID)
    for metric in (metrics.SensitivityN(), metrics.Infidelity()):
        metric.measure(maps, probe)
    passed = []
    classifier.trunk.register_forward_pre_hook(lambda *_: passed.append(1))
    for metric in (metrics.SensitivityN(), metrics.Infidelity(), metrics.Infidelity(scaled=False)):
        metric.measure(maps**2, probe)
    assert not passed
    metrics.SensitivityN(seed=1).measure(maps, probe)
    assert passed


def test_max_sensitivity_equals_a_loop_and_stays_with_the_class():
    classifier, batch = dense(), images(3)
    probe, explain = Probe(classifier, batch), METHODS["hires_cam"]
    metric = metrics.MaxSensitivity(radius=0.1, samples=4, seed=2)
    rows = metric.measure(explain(probe), probe, explain)
    for image, target, seed, row in zip(batch, probe.targets, image_seeds(probe, 2), rows, strict=True):
        generator = torch.Generator().manual_seed(seed)
        start = explain(Probe(classifier, image[None], target[None]))
        largest = 0.0
        for _ in range(4):
            moved = image + 0.1 * (2 * torch.rand(3, 16, 16, generator=generator, dtype=torch.float64) - 1)
            assert float((moved - image).abs().max()) <= 0.1
            other = explain(Probe(classifier, image[None], target[None]).like(moved[None]))
            largest = max(largest, math.sqrt(sum(float(d) ** 2 for d in (other - start).flatten())))
        assert row.tolist() == pytest.approx([largest / math.sqrt(sum(float(v) ** 2 for v in start.flatten())), 1], rel=1e-9)


def test_maps_that_do_not_move_and_maps_without_content():
    probe, metric = Probe(dense(), images(2)), metrics.MaxSensitivity(samples=2)
    still = torch.rand(2, GRID, GRID)
    metric.update(still, probe, lambda _probe: still)
    assert metric.compute() == 0
    metric.reset()
    half = still.clone()
    half[1] = 0
    metric.update(half, probe, lambda _probe: still)
    assert metric.per_image()[1][:, 1].tolist() == [1, 0]
    assert metric.compute() == 0  # the empty one is left out, not counted as infinitely sensitive
    with pytest.raises(ValueError, match="max_sensitivity: a map contains NaN"):
        metric.update(still, probe, lambda _probe: still * float("nan"))


def test_what_is_refused():
    probe = Probe(dense(), images(2))
    for metric in (metrics.SensitivityN(), metrics.Infidelity()):
        with pytest.raises(ValueError, match=r"one of cells no finer than pixels"):
            metric.update(torch.rand(2, 32, 32), probe)
    for call in (lambda: metrics.SensitivityN(0), lambda: metrics.Infidelity(sides=0), lambda: metrics.MaxSensitivity(radius=0)):
        with pytest.raises(ValueError, match="must"):
            call()
