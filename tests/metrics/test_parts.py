"""FunnyBirds' scores: a linear network whose parts are worth what is known, and every number once more by brute force."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from cam_core.metrics import parts as of_parts
from cam_core.metrics.parts import (
    THRESHOLDS,
    BackgroundIndependence,
    Completeness,
    ControlledCheck,
    DeletionCheck,
    Distractibility,
    PairDeletion,
    PreservationCheck,
    Removal,
    SingleDeletion,
    TargetSensitivity,
    within,
)

WORTH = np.array([5.0, -1.0, 3.0, 0.5])  # of the four parts to class 0
SIDE = 12


def squares(count, row=0):
    """Masks of squares of 2 x 2 pixels with two pixels between them, so that the grown ones do not touch."""
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for number in range(count):
        y, x = divmod(number, 3)
        masks[number, row + 4 * y + 1 : row + 4 * y + 3, 4 * x + 1 : 4 * x + 3] = True
    return masks


def linear(worth=WORTH, others=((1.0, 0, 0, 0), (0, 2.0, 1.0, 0)), bias=(4.0, 3.0, 2.0), around=(0.1, 2.0)):
    """A network that adds up the worth of what it sees: every fall is known. Two things lie behind, worth ``around`` to class 0."""
    weights = np.array([worth, *others])  # [C,P]
    seen = np.array([[1 - (s >> p & 1) for p in range(4)] for s in range(16)])
    behind = np.array([[around[0] + around[1], 0, 0]])
    logits = seen @ weights.T + bias + behind
    without = logits[0] - np.array([[one, 0, 0] for one in around])
    return Removal(squares(4), logits, squares(6)[4:], without, [(0,), (1, 2)])


def exact(removal, worth=WORTH):
    """The map that holds what every part is worth, spread over its pixels."""
    return sum(float(w) * mask.double() / mask.sum() for w, mask in zip(worth, removal.parts, strict=True))


def measured(metric, heat, removal):
    metric.update(heat[None], [removal])
    return metric.compute()


def test_the_map_that_holds_what_each_part_is_worth_is_perfect():
    removal = linear()
    assert removal.falls([[p] for p in range(4)], 0).tolist() == pytest.approx(WORTH.tolist())
    assert within(exact(removal), removal.parts).tolist() == pytest.approx(WORTH.tolist())
    for metric in (SingleDeletion(), PairDeletion()):
        assert measured(metric, exact(removal), removal) == pytest.approx(100)
        metric.reset()
        assert measured(metric, -exact(removal), removal) == pytest.approx(0)
        metric.reset()
        assert measured(metric, torch.zeros(SIDE, SIDE), removal) == 50


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlations_are_spearmans(seed):
    random = np.random.default_rng(seed)
    heat = torch.from_numpy(random.normal(size=(SIDE, SIDE)))
    logits = random.normal(size=(16, 3))
    removal = Removal(squares(4), logits, squares(6)[4:], logits[:2])
    target = int(logits[0].argmax())
    sums = [float(heat[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].sum()) for y, x in ((0, 0), (0, 1), (0, 2), (1, 0))]
    for metric, size in ((SingleDeletion(), 1), (PairDeletion(), 2)):
        sets = list(combinations(range(4), size))
        falls = [logits[0, target] - logits[sum(2**p for p in one), target] for one in sets]
        expected = spearmanr([sum(sums[p] for p in one) for one in sets], falls).statistic
        assert measured(metric, heat, removal) == pytest.approx(50 * (1 + expected))


def by_hand(heat, removal, threshold):
    """The four scores at one threshold, by loops over sets."""
    whole = float(heat.clamp(min=0).sum())
    share = lambda masks: [float(v) / whole for v in within(heat, masks)]  # noqa: E731
    inside, behind = share(removal.parts), share(removal.around)
    important = {p for p, s in enumerate(inside) if s > threshold}
    index = lambda parts: sum(2**p for p in parts)  # noqa: E731
    target, base = int(removal.logits[0].argmax()), removal.logits[0].max()
    keeps = removal.logits[index({0, 1, 2, 3} - important)].argmax() == target
    changes = removal.logits[index(important)].argmax() != target
    falls = [base - removal.logits[2**p, target] for p in range(4)] + [base - row[target] for row in removal.around_logits]
    irrelevant = [abs(fall) < 0.05 * abs(base) or fall < 0 for fall in falls]
    called = [s > threshold for s in inside + behind]
    wrong = sum(a and b for a, b in zip(irrelevant, called, strict=True))
    check = max(len(set(one) & important) / len(one) for one in removal.sufficient)
    return [check, float(keeps), float(changes), 1 - wrong / sum(irrelevant)]


def test_completeness_and_its_parts_share_the_best_threshold():
    random = np.random.default_rng(3)
    removals = [linear(others=random.normal(size=(2, 4)) * 2, bias=(4, 6 * random.random(), 5)) for _ in range(6)]
    removals = [one for one in removals if one.prediction == 0]
    heats = torch.from_numpy(random.normal(size=(len(removals), SIDE, SIDE)))
    every = np.mean([[by_hand(h, r, t) for t in THRESHOLDS] for h, r in zip(heats, removals, strict=True)], 0)  # [80,4]
    complete = (every[:, :3].mean(1) + every[:, 3]) / 2
    best = int(complete.argmax())
    found = {}
    for kind in (ControlledCheck, PreservationCheck, DeletionCheck, Distractibility, Completeness):
        metric = kind()
        metric.update(heats, removals)
        found[kind.name] = metric.compute()
    expected = dict(zip(("controlled_check", "preservation_check", "deletion_check", "distractibility"), 100 * every[best], strict=True))
    assert found == pytest.approx(expected | {"completeness": 100 * complete[best]})
    assert len({kind().shares for kind in (ControlledCheck, Completeness)}) == 2  # no removals in common
    known = {"1": removals[0]}
    assert ControlledCheck(known).shares == Completeness(known).shares


def test_a_map_that_calls_nothing_important_is_not_distracted_and_not_complete():
    removal = linear()
    assert measured(Distractibility(), torch.zeros(SIDE, SIDE), removal) == 100
    assert measured(DeletionCheck(), torch.zeros(SIDE, SIDE), removal) == 0


def test_the_background_is_independent_as_far_as_it_can_go():
    removal = linear()  # the logit is 13.6: a thing worth 0.1 is irrelevant, one worth 2 is not
    assert measured(BackgroundIndependence(), torch.zeros(SIDE, SIDE), removal) == 50


def test_target_sensitivity_by_brute_force():
    random = np.random.default_rng(5)
    same = torch.from_numpy(random.random((4, 4, 4)) < 0.5)
    same = same | same.transpose(0, 1)
    hits, shares = 0, []
    for _ in range(60):
        weights = random.normal(size=(4, 4))
        logits = np.array([[1 - (s >> p & 1) for p in range(4)] for s in range(16)]) @ weights.T
        removal = Removal(squares(4), logits, squares(6)[4:], logits[:2])
        heat = torch.from_numpy(random.normal(size=(4, SIDE, SIDE)))
        own, k, trials = within(heat, removal.parts), removal.prediction, []
        for a, b in product(range(4), repeat=2):
            ahead = [p for p in range(4) if same[k, a, p] and not same[k, b, p]]
            behind = [p for p in range(4) if same[k, b, p] and not same[k, a, p]]
            if k in (a, b) or not ahead or not behind:
                continue
            agrees = weights[a, ahead].sum() > weights[a, behind].sum() and weights[b, behind].sum() > weights[b, ahead].sum()
            if agrees:  # every pair comes in both orders and is asked about its first class
                trials.append(own[a, ahead].sum() > own[b, ahead].sum())
        metric = TargetSensitivity(same=same)
        metric.update(heat[None], [removal])
        hits += len(trials)
        shares += [np.mean(trials)] if trials else []
        assert metric.compute() == pytest.approx(100 * np.mean(trials) if trials else 0)
        flat = TargetSensitivity(same=same)
        flat.update(heat[:1].expand(4, -1, -1)[None], [removal])
        assert flat.compute() == 0  # one map for all classes favours nothing
    assert hits > 10
    assert 0 < np.mean(shares) < 1


def test_an_image_that_the_network_gets_wrong_has_no_truth():
    from cam_core.data import Example

    metric = SingleDeletion({"7": linear()})
    assert metric.truth(Example("7", torch.zeros(3, SIDE, SIDE), 0), 0) is not None
    assert metric.truth(Example("7", torch.zeros(3, SIDE, SIDE), 1), 1) is None
    assert metric.truth(Example("8", torch.zeros(3, SIDE, SIDE), 0), 0) is None


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"size of the parts' masks \(12, 12\), got \(6, 6\)"):
        SingleDeletion().update(torch.zeros(1, 6, 6), [linear()])


def test_masks_grow_by_a_pixel():
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 2, 2] = True
    assert of_parts.within(torch.ones(5, 5), mask).tolist() == [9]
