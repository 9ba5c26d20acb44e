"""Cue localization: pairs, cells and the score, against CUB's facts and small drawings."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cam_core import metrics
from cam_core.metrics.cues import PARTS, bird_in_view, part_of
from cam_core.metrics.pixels import average_precision

CUB_POINTS = ["back", "beak", "belly", "breast", "crown", "forehead", "left_eye", "left_leg"]
CUB_POINTS += ["left_wing", "nape", "right_eye", "right_leg", "right_wing", "tail", "throat"]


def points(**visible):
    rows = torch.zeros(15, 3)
    for name, (x, y) in visible.items():
        rows[CUB_POINTS.index(name)] = torch.tensor([x, y, 1.0])
    return rows


def test_parts_by_the_words_of_an_attribute():
    expected = {
        "has_bill_shape::dagger": "head",
        "has_nape_color::red": "head",
        "has_under_tail_color::red": "tail",
        "has_wing_pattern::solid": "wing",
        "has_leg_color::grey": "leg",
        "has_back_pattern::striped": "back",
        "has_shape::long-legged-like": "leg",
        "has_upperparts_color::blue": None,
        "has_underparts_color::blue": None,
        "has_primary_color::black": None,
        "has_size::medium_(9_-_16_in)": None,
    }
    assert {name: part_of(name) for name in expected} == expected


def test_pairs_differ_by_parts_not_by_attributes():
    names = ["has_bill_shape::dagger", "has_crown_color::red", "has_wing_color::red", "has_primary_color::red"]
    levels = [[60, 10, 50, 90], [10, 70, 50, 10], [10, 70, 49.9, 10], [10, 70, 49, 10]]
    pairs = metrics.class_pairs(levels, names)
    assert [(p.first, p.second, sorted(p.parts)) for p in pairs] == [
        (0, 1, ["head"]),
        (1, 2, ["wing"]),
        (1, 3, ["wing"]),
        (0, 2, ["head", "wing"]),
        (0, 3, ["head", "wing"]),
    ]


@pytest.mark.real_data
def test_pair_counts_of_the_official_attributes(cam_data):
    home = cam_data / "CUB_200_2011/attributes"
    levels = np.loadtxt(home / "class_attribute_labels_continuous.txt")
    names = [line.split(" ", 1)[1] for line in (home / "attributes.txt").read_text().splitlines()]
    pairs = metrics.class_pairs(levels, names, counts=range(8))
    assert Counter(len(p.parts) for p in pairs) == {0: 1, 1: 31, 2: 64, 3: 96, 4: 445, 5: 1564, 6: 5988, 7: 11711}
    assert Counter(next(iter(p.parts)) for p in pairs if len(p.parts) == 1) == {"head": 27, "wing": 3, "back": 1}
    first_ten = metrics.class_pairs(levels[:10], names)
    assert [(p.first + 1, p.second + 1, len(p.parts)) for p in first_ten] == [(4, 9, 2), (4, 10, 2), (9, 10, 2), (1, 3, 3)]


def test_cells_are_the_nearest_visible_point_within_the_bird():
    bird = torch.zeros(40, 50, dtype=torch.bool)
    bird[5:35, 5:45] = True
    where = points(beak=(6, 10), crown=(10, 6.9), tail=(44.9, 30), left_wing=(25, 12), right_wing=(25, 28), belly=(24.2, 20))
    cue = metrics.cue(3, where, bird)
    named = [("head", (8, 8)), ("belly", (24, 20)), ("tail", (44, 30)), ("wing", (25, 12)), ("wing", (25, 28))]
    for y in range(40):
        for x in range(50):
            nearest = min(named, key=lambda item: (x - item[1][0]) ** 2 + (y - item[1][1]) ** 2)[0]  # min keeps the first of equals
            assert cue.cells[y, x] == (PARTS.index(nearest) if bird[y, x] else -1)
    assert cue.visible == {"head", "belly", "tail", "wing"}
    assert (metrics.cue(0, torch.zeros(15, 3), bird).cells == -1).all()


def keys(t):
    """Keys' cubic kernel with a = -1/2, Pillow's."""
    t = abs(t)
    return 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


@pytest.mark.parametrize(
    ("row", "bird"),
    [
        ([0, 0, 255, 0], [True, True]),  # a share of .12 of it reaches the left half: 31
        ([0, 0, 0, 255], [False, True]),  # there the kernel is negative
        ([0, 0, 4, 0], [False, True]),  # .48 rounds to 0
        ([0, 0, 5, 0], [True, True]),  # .60 rounds to 1
    ],
)
def test_the_bird_is_resized_softly_and_cut_afterwards(row, bird):
    """Four pixels become two: the kernel, twice as wide, reaches over all four."""
    weights = [[keys((x + 0.5 - (2 * out + 1)) / 2) for x in range(4)] for out in range(2)]
    values = [sum(w * v for w, v in zip(of, row, strict=True)) / sum(of) for of in weights]
    assert [round(value) > 0 for value in values] == bird
    assert bird_in_view(torch.tensor([row, row], dtype=torch.uint8), (2, 2)).tolist() == [bird] * 2


@settings(max_examples=30)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(0, 10**6))
def test_cells_of_any_shape_and_any_visible_points(shape, seed):
    """The head is the mean of its visible points, every other point stands for itself; equal distances go to the first part."""
    rng = np.random.default_rng(seed)
    where = np.column_stack([rng.random(15) * shape[1], rng.random(15) * shape[0], rng.random(15) < 0.4])
    bird = rng.random(shape) < 0.8
    found = metrics.cue(1, torch.from_numpy(where), torch.from_numpy(bird))
    head = [where[i, :2] for i in (1, 4, 5, 6, 9, 10, 14) if where[i, 2]]
    named = [("head", np.mean(head, axis=0))] if head else []
    order = [("back", 0), ("belly", 2), ("breast", 3), ("tail", 13), ("leg", 7), ("leg", 11), ("wing", 8), ("wing", 12)]
    named += [(part, where[i, :2]) for part, i in order if where[i, 2]]
    for y in range(shape[0]):
        for x in range(shape[1]):
            away = [(x - int(px)) ** 2 + (y - int(py)) ** 2 for _, (px, py) in named]
            expected = PARTS.index(named[away.index(min(away))][0]) if bird[y, x] and named else -1
            assert found.cells[y, x] == expected
    assert found.visible == {part for part, _ in named}


def brute_ap(score, truth):
    """Precision times gain in recall over the thousand thresholds, from the top."""
    low, high = score.min(), score.max()
    score = (score - low) / (high - low)
    edges, area, recall = [*np.arange(0, 1, 0.001), 1.0], 0.0, 0.0
    for threshold in reversed(edges):
        chosen = score >= threshold
        if chosen.any():
            gained = (chosen & truth).sum() / truth.sum()
            area, recall = area + (chosen & truth).sum() / chosen.sum() * (gained - recall), gained
    return 100 * area


PAIRS = [
    metrics.ClassPair(0, 1, frozenset({"head"})),
    metrics.ClassPair(0, 2, frozenset({"tail", "wing"})),
    metrics.ClassPair(1, 2, frozenset({"back"})),
]


def two_birds():
    bird = torch.zeros(30, 30, dtype=torch.bool)
    bird[4:26, 3:27] = True
    first = metrics.cue(0, points(beak=(5, 5), tail=(25, 25), left_wing=(15, 14)), bird)
    second = metrics.cue(1, points(beak=(8, 20), tail=(20, 6), belly=(14, 14)), bird)
    return first, second


def read_as(metric, variant, parts=None):
    """The same rows, read in another way."""
    options = {"thresholds": metric.thresholds, "calibration": metric.calibration, "variant": variant}
    other = metrics.CueLocalization(metric.pairs, parts, metric.inside, **options)
    other.ids, other.rows, other._update_count = metric.ids, metric.rows, metric._update_count
    return other


def by_pair(metric):
    """For each pair with a positive pixel its PxAP in percent and its number of images."""
    _, rows = metric.per_image()
    return {
        metric.pairs[number]: (float(average_precision(negative, positive)), int((rows[:, 1] == number).sum()))
        for number, negative, positive in metric.counts(rows)
        if positive.any()
    }


def test_the_score_of_one_image_is_the_pixel_precision_of_the_difference():
    first, second = two_birds()
    maps = torch.rand(2, 3, 30, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    metric = metrics.CueLocalization(PAIRS)
    metric.update(maps, [first, second], ids=[4, 9])
    ids, rows = metric.per_image()
    assert ids.tolist() == [12, 13, 27]  # image * 3 + pair; the second bird shows no back, so its third pair is left out
    assert metric.groups(ids).tolist() == [4, 4, 9]
    tail_or_wing = np.isin(first.cells.numpy(), [PARTS.index("tail"), PARTS.index("wing")])
    difference = (maps[0, 0] - maps[0, 2]).abs().numpy()
    assert by_pair(metric)[PAIRS[1]] == (pytest.approx(brute_ap(difference, tail_or_wing), rel=1e-9), 1)
    assert rows[:, 2:].sum(1).tolist() == [900.0] * 3  # every pixel counts, zeros too
    two_parts = metrics.CueLocalization(PAIRS, parts=2)
    two_parts.update(maps, [first, second], ids=[4, 9])
    assert two_parts.compute() == by_pair(metric)[PAIRS[1]][0]
    assert metric.compute() == pytest.approx(np.mean([ap for ap, _ in by_pair(metric).values()]))


def test_the_true_cue_scores_100_and_a_constant_map_its_share():
    first, second = two_birds()
    head = torch.stack([(c.cells == PARTS.index("head")).double() for c in (first, second)])
    maps = torch.zeros(2, 3, 30, 30, dtype=torch.float64)
    maps[:, 0] = head
    metric = metrics.CueLocalization(PAIRS, parts=1)
    metric.update(maps, [first, second])
    assert by_pair(metric)[PAIRS[0]] == (100.0, 2)
    constant = metrics.CueLocalization(PAIRS, parts=1)
    constant.update(torch.ones(2, 3, 7, 7), [first, second])
    assert constant.compute() == pytest.approx(100 * head.mean().item())
    assert constant.interval(resamples=100)[0] <= constant.compute()


def test_names_settings_and_refusals():
    assert (metrics.CueLocalization(PAIRS).name, metrics.CueLocalization(PAIRS, inside="box").name) == (
        "cue_localization",
        "cue_localization_box",
    )
    assert [metrics.CueLocalization(PAIRS, parts=n).setting for n in (None, 1, 2)] == ["all pairs", "1 part", "2 parts"]
    with pytest.raises(ValueError, match="no pair of classes differs in 3 parts"):
        metrics.CueLocalization(PAIRS, parts=3)
    with pytest.raises(ValueError, match=r"points \[15,3\]"):
        metrics.cue(0, torch.zeros(14, 3), torch.ones(4, 4))


# ---------------------------------------------------------------- calibrations, thresholds, variants


def released_evaluator(pairs, maps, cues, thresholds, calibrate, reset=False):
    """The released script, restated: pair by pair, image by image; returns the value printed after each pair."""
    edges = np.array([*thresholds, 1.0, 2.0, 3.0])
    positive, negative, values = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1), []
    for first, second, differing in pairs:
        if reset:
            positive, negative = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
        for score, (label, cells, visible) in zip(maps.numpy(), cues, strict=True):
            if label not in (first, second) or not visible & differing:
                continue
            truth = np.zeros(cells.shape, bool)
            for part in differing:
                truth |= cells.numpy() == PARTS.index(part)
            heat = calibrate(np.abs(score[first] - score[second]))
            positive += np.histogram(heat[truth], edges)[0]
            negative += np.histogram(heat[~truth], edges)[0]
        hits = seen = recall = area = 0.0
        for p, n in zip(positive[::-1], negative[::-1], strict=True):
            hits, seen = hits + p, seen + p + n
            if seen:
                area, recall = area + hits / seen * (hits / positive.sum() - recall), hits / positive.sum()
        values.append(100 * area)
    return values


CALIBRATE = {
    "min_max": lambda m: np.clip((m - m.min()) / (m.max() - m.min()), 0, 1),
    "max": lambda m: np.clip(m / m.max(), 0, 1),
    "clipping": lambda m: np.clip(m, 0, 1),
}
EDGES = {"even": np.arange(0, 1, 0.001), "log": 10 ** -np.arange(0, 7, 0.007)[::-1]}
SEEN_PAIRS = PAIRS[:2]  # the third has no image in `two_birds`


def sparse_maps(zeros=0.5):
    """Differences over many magnitudes, a share of them exactly zero, some above 1."""
    generator = torch.Generator().manual_seed(1)
    maps = 10 ** (-9 * torch.rand(2, 3, 30, 30, dtype=torch.float64, generator=generator)) * 2
    return maps * (torch.rand(2, 1, 30, 30, generator=generator) > zeros)


@pytest.mark.parametrize("thresholds", ["even", "log"])
@pytest.mark.parametrize("calibration", ["min_max", "max", "clipping"])
def test_the_released_evaluator_and_its_reset_form(thresholds, calibration):
    birds, maps = two_birds(), sparse_maps()
    metric = metrics.CueLocalization(SEEN_PAIRS, thresholds=thresholds, calibration=calibration, variant="released")
    metric.update(maps, birds, ids=[0, 1])
    running = released_evaluator(SEEN_PAIRS, maps, birds, EDGES[thresholds], CALIBRATE[calibration])
    each = released_evaluator(SEEN_PAIRS, maps, birds, EDGES[thresholds], CALIBRATE[calibration], reset=True)
    assert metric.compute() == pytest.approx(np.mean(running), rel=1e-12)
    assert read_as(metric, "released", 2).compute() == pytest.approx(running[1], rel=1e-12)  # the group before is still in it
    assert read_as(metric, "per pair").compute() == pytest.approx(np.mean(each), rel=1e-12)
    assert read_as(metric, "per pair", 1).compute() == pytest.approx(each[0], rel=1e-12)
    assert [score for score, _ in by_pair(read_as(metric, "per pair")).values()] == pytest.approx(each, rel=1e-12)
    assert running[1] != pytest.approx(each[1], rel=1e-3)
    kept = read_as(metric, "zeros kept").compute()
    if thresholds == "even":  # nothing falls below the first threshold
        assert kept == read_as(metric, "per pair").compute()
    else:
        assert kept != pytest.approx(read_as(metric, "per pair").compute(), rel=1e-3)


def test_what_vanishes_flatters_a_sparse_map():
    """Lit on a tenth of the cue and nowhere else: the released bins see nothing but hits; with zeros kept the other nine tenths count."""
    birds = two_birds()
    maps = torch.zeros(2, 3, 30, 30, dtype=torch.float64)
    for i, bird in enumerate(birds):
        rows, columns = torch.nonzero(bird.cells == PARTS.index("head"), as_tuple=True)
        maps[i, 0, rows[::10], columns[::10]] = 1
    metric = metrics.CueLocalization(SEEN_PAIRS, 1, thresholds="log", calibration="clipping")
    metric.update(maps, birds)
    assert read_as(metric, "per pair", 1).compute() == 100
    assert 10 < metric.compute() < 30


def test_one_measure_serves_variants_and_parts_but_not_calibrations():
    log = metrics.CueLocalization(PAIRS, thresholds="log", variant="released", calibration="clipping")
    assert log.setting == "all pairs, released, log, clipping"
    assert metrics.CueLocalization(PAIRS, 2).setting == "2 parts"
    assert log.shares == metrics.CueLocalization(PAIRS, 1, thresholds="log", calibration="clipping").shares
    assert log.shares != metrics.CueLocalization(PAIRS, 1, thresholds="log").shares != metrics.CueLocalization(PAIRS).shares
    for option, word in (("thresholds", "linear"), ("calibration", "softmax"), ("variant", "reset")):
        with pytest.raises(ValueError, match=f"{option} is .*, got '{word}'"):
            metrics.CueLocalization(PAIRS, **{option: word})


def test_the_released_form_is_resampled():
    metric = metrics.CueLocalization(SEEN_PAIRS, thresholds="log", variant="released")
    metric.update(sparse_maps(0.2), two_birds(), ids=[5, 2])
    _, rows = metric.per_image()
    weights = np.array([[2.0, 2.0, 0.0], [1.0, 1.0, 1.0]])  # the first image has two pairs
    twice = np.repeat(rows, [2, 2, 0], axis=0)
    assert metric.value(rows, weights) == pytest.approx([metric.summary(twice), metric.compute()], rel=1e-12)


def test_the_mean_over_all_pairs_weighs_the_groups_by_their_pairs():
    """As in the published table, whose mean column is that of 31, 64 and 96 pairs, not of three columns."""
    birds, maps = two_birds(), sparse_maps(0.2)
    pairs = [*SEEN_PAIRS, metrics.ClassPair(1, 3, frozenset({"head", "tail"}))]
    metric = metrics.CueLocalization(pairs)
    metric.update(torch.cat([maps, maps[:, :1] / 2], 1), birds)
    one, two = (read_as(metric, "zeros kept", parts).compute() for parts in (1, 2))
    assert metric.compute() == pytest.approx((one + 2 * two) / 3, rel=1e-12)
    assert metric.compute() != pytest.approx((one + two) / 2, rel=1e-3)
