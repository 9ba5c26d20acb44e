"""Score-CAM within a budget: with every channel passed it is exact; with fewer it predicts; its own estimate is one."""

import pytest
import torch

from cam_core import maps
from cam_core.methods import METHODS, budget, method
from cam_core.probe import Probe
from tests import nets
from tests.test_methods import close


@pytest.fixture
def probe():
    return Probe(nets.dense(seed=3, channels=24), nets.images(3), torch.tensor([0, 1, 2]))


@pytest.fixture
def passed(monkeypatch):
    """How many masks pass, image by image, at each request."""
    asked, score = [], Probe.score_masked
    monkeypatch.setattr(Probe, "score_masked", lambda self, *a, **k: asked.append(k["select"].sum(1).tolist()) or score(self, *a, **k))
    return asked


def test_with_all_channels_passed_it_is_score_cam(probe):
    close(budget.score_cam_budget(probe, passes=24), METHODS["score_cam"](probe))


def test_only_the_budget_is_passed(probe, passed):
    budget.score_cam_budget(probe, passes=7)
    assert passed == [[7, 7, 7]]


def test_the_prediction_is_that_of_a_gaussian_process_written_out(probe):
    masks = maps.min_max(probe.activations).flatten(2)[0]
    chosen, y = torch.tensor([3, 8, 1, 20]), torch.tensor([0.2, 0.4, 0.3, 0.9], dtype=torch.float64)
    got = budget.predicted(masks[None], chosen[None], y[None], torch.ones(1, 24, dtype=torch.bool))[0]
    distances = [[float((masks[i] - masks[j]).norm()) for j in range(24)] for i in range(24)]
    length = torch.tensor([d for row in distances for d in row if d > 0]).double().median()
    k = lambda i, j: float(torch.exp(-(torch.tensor(distances[i][j], dtype=torch.float64) ** 2) / (2 * length**2)))  # noqa: E731
    seen = torch.tensor([[k(i, j) + (budget.NOISE if i == j else 0) for j in chosen] for i in chosen], dtype=torch.float64)
    for channel in (0, 5, 23):
        row = torch.tensor([k(channel, j) for j in chosen], dtype=torch.float64)
        assert float(got[channel]) == pytest.approx(float(y.mean() + row @ seen.inverse() @ (y - y.mean())), rel=1e-6)
    assert torch.equal(got[chosen], y)


def test_the_greedy_order_takes_the_largest_remaining_variance():
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    covariance, done = factor @ factor.T, []
    for pivot in budget._pivots(covariance, 9).tolist():
        left = covariance.diagonal().clone()
        if done:
            known = covariance[done][:, done]
            left = left - torch.einsum("ij,jk,ik->i", covariance[:, done], known.inverse(), covariance[:, done])
        left[done] = -1
        assert pivot == int(left.argmax())
        done.append(pivot)


def test_a_short_order_begins_as_the_long_one_and_names_every_channel_once(probe):
    masks = maps.min_max(probe.activations).flatten(2)
    long, short = (budget.order(probe.activations, masks, count=n) for n in (24, 5))
    assert torch.equal(long[:, :5], short[:, :5])
    assert torch.equal(short.sort(1).values, torch.arange(24).expand(3, -1))


def test_until_an_accuracy_stops_earlier_for_less(probe, passed):
    budget.score_cam_until(probe, accuracy=0.5, start=4)
    cheap = sum(map(sum, passed))
    passed.clear()
    high = budget.score_cam_until(probe, accuracy=1.1, start=4)  # never sure: everything is passed, in rounds of 4, 4, 8 and 8
    assert passed == [[4] * 3, [4] * 3, [8] * 3, [8] * 3]
    assert cheap < 3 * 24
    close(high, METHODS["score_cam"](probe))


def test_until_an_accuracy_spends_what_its_promise_asks(passed):
    """A round of 32, then one of 32 for those whose promise falls short; and the map is that of the same number of passes."""
    probe = Probe(nets.dense(seed=3, channels=80), nets.images(3), torch.tensor([0, 1, 2]))
    a, masks = probe.activations, maps.min_max(probe.activations).flatten(2)
    chosen = budget.order(a, masks)[:, :32]
    sure = budget.promised(a, masks, chosen, budget._passed(probe, chosen)) >= 0.99
    few, more = (budget.score_cam_budget(probe, passes=passes) for passes in (32, 64))
    passed.clear()
    heat = method("score_cam[until=0.99]")(probe)
    assert passed[:2] == [[32] * 3, [32] * int((~sure).sum())][: 2 - bool(sure.all())]
    assert sum(map(sum, passed)) < 3 * 80  # else the name says nothing
    for b in range(3):
        assert torch.equal(heat[b], few[b]) if sure[b] else torch.equal(heat[b], more[b])


def test_the_promise_grows_to_one_as_channels_are_passed(probe):
    a = probe.activations
    masks = maps.min_max(a).flatten(2)
    ranked = budget.order(a, masks)
    scores = budget._passed(probe, ranked)
    promises = torch.stack([budget.promised(a, masks, ranked[:, :m], scores[:, :m]) for m in (4, 12, 24)])
    assert (promises[-1] > 0.999).all()
    assert (promises <= 1 + 1e-12).all()
