"""Every way to spend a budget is told by its name: what it passes, in which order, and that it ends in the exact map."""

import torch

from cam_core import METHODS, Probe, maps
from cam_core.methods import budget
from cam_core.methods.perturbation import channel_scores
from studies import score_cam_budget
from tests import nets
from tests.test_methods import close


def test_channels_go_by_their_norm_or_by_their_variance():
    a = torch.zeros(1, 3, 2, 2)
    a[0, 0], a[0, 1], a[0, 2, 0, 0] = 9.0, torch.tensor([[4.0, 5.0], [5.0, 4.0]]), 3.0  # constant; large and even; small and uneven
    assert {name: ranked.tolist() for name, ranked in score_cam_budget.by_size(a).items()} == {"norm": [[1, 2, 0]], "spread": [[2, 1, 0]]}


def test_whatever_the_order_all_channels_give_score_cam():
    probe = Probe(nets.dense(seed=3, channels=24), nets.images(3), torch.tensor([0, 1, 2]))
    useful = ~maps.is_empty(probe.activations)
    masks, scores = maps.min_max(probe.activations).flatten(2), channel_scores(probe, useful)
    for ranked in score_cam_budget.by_size(probe.activations).values():
        weights = budget.predicted(masks, ranked, scores.gather(1, ranked), useful)
        close(torch.einsum("bk,bkhw->bhw", weights, probe.activations).relu(), METHODS["score_cam"](probe))


def test_a_way_spends_what_it_says(monkeypatch):
    monkeypatch.setattr(score_cam_budget, "BUDGETS", (4, 8, 24))
    probe = Probe(nets.dense(seed=3, channels=24), nets.images(1), torch.tensor([0]))
    scores = channel_scores(probe, ~maps.is_empty(probe.activations)).double()
    found = {way: weights for way, weights, _ in score_cam_budget.ways(probe, scores)}
    assert torch.equal(found["exact", 24], scores)
    assert torch.equal(found["equal weights", 0], torch.ones(1, 24, dtype=torch.float64))
    for order in ("norm", "chance", "gradient (gScoreCAM)"):
        alone = found[f"alone, {order}", 4]
        assert int((alone != 0).sum()) <= 4
        assert torch.equal(alone[alone != 0], scores[alone != 0])
    for order in ("norm", "spread", "variance", "chance"):
        assert int((found[f"predicted, {order}", 8] == scores).sum()) >= 8
