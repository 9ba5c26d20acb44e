"""A claim is decided by its paired differences, over all seeds, and by nothing that chance may have done."""

import claims
import pytest
from scipy import stats

from reproduce import results

from .conftest import frame, paired, rows

CLAIM = {"id": "x", "paper": "l_cam", "statement": "S.", "source": "abstract", "status": "tested"}
CHECK = {"metric": "energy_pointing_game", "method": "l_cam_img", "than": "grad_cam", "direction": "higher"}


def judged(entries, rows, differences=()):
    return claims.claims(entries, frame(rows), frame(differences, results.DIFFERENCE))


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        (("50", "45", "55"), ("30", "25", "35"), "**holds**"),
        (("50", "45", "55"), ("48", "43", "53"), "**not decided**"),
        (("30", "25", "35"), ("50", "45", "55"), "**does not hold**"),
    ],
)
def test_claims_are_judged_by_direction_and_interval(own, other, verdict):
    found = rows(("l_cam_img", *own), ("grad_cam", *other), weights="resnet50_pqf_large")
    text = judged([CLAIM | {"check": CHECK}], found)
    assert verdict in text
    assert "stand-in" in text
    flipped = judged([CLAIM | {"check": CHECK | {"direction": "lower"}}], found)
    assert {"**holds**": "**does not hold**", "**does not hold**": "**holds**"}.get(verdict, verdict) in flipped


@pytest.mark.parametrize(
    ("low", "high", "margin", "direction", "verdict"),
    [
        ("1", "3", None, "higher", "holds"),  # though the intervals of the two overlap
        ("1", "3", None, "lower", "does not hold"),
        ("-3", "-1", None, "higher", "does not hold"),
        ("-1", "3", None, "higher", "not decided"),
        ("0", "3", None, "higher", "not decided"),
        ("-1.5", "3", 2, "higher", "holds"),
        ("-1.5", "-1", 2, "higher", "holds"),  # worse, by less than the margin
        ("-5", "-3", 2, "higher", "does not hold"),
        ("-3", "3", 2, "higher", "not decided"),
        ("-3", "1.5", 2, "lower", "holds"),
        ("3", "5", 2, "lower", "does not hold"),
    ],
)
def test_claims_are_judged_by_the_paired_interval(low, high, margin, direction, verdict):
    found = rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "48", "43", "53"))
    check = CHECK | {"direction": direction} | ({"margin": margin} if margin else {})
    text = judged([CLAIM | {"check": check}], found, [paired(low, high)])
    assert f"**{verdict}** on" in text
    assert f"[{float(low):.1f},\N{NO-BREAK SPACE}{float(high):.1f}], n 40, corrected p 0.034" in text
    assert "no paired difference" not in text


def seeds_of(values, width, **given):
    """Rows and paired differences of one configuration, a seed for each difference."""
    both, differences = [], []
    for seed, value in enumerate(values):
        where = {"key": f"x-s{seed}", "seed": str(seed)}
        both += rows(("l_cam_img", str(50 + value), "45", "55"), ("grad_cam", "50", "45", "55"), **where)
        differences.append(paired(str(value - width), str(value + width), **where, **given))
    return both, differences


@pytest.mark.parametrize(
    ("values", "width", "verdict"),
    [
        ([4, 3, 5], 1, "holds"),
        ([-4, -3, -5], 1, "does not hold"),
        ([4, 3, -1], 2, "not decided"),  # one seed that its own images leave open
        ([4, 3, -5], 1, "not decided"),  # two seeds that contradict each other
    ],
)
def test_a_claim_about_few_seeds_must_hold_under_each_by_its_own_images(values, width, verdict):
    text = judged([CLAIM | {"check": CHECK}], *seeds_of(values, width))
    told = []
    for value in values:
        said = "holds" if value > width else "does not hold" if value < -width else "not decided"
        told.append(f"{value:+.1f} [{value - width:.1f},\N{NO-BREAK SPACE}{value + width:.1f}]" + f" ({said})" * (verdict == "not decided"))
    assert f"**{verdict}** on ImageNet validation, ResNet-50 (subset), 3 seeds, n 40, differences {' · '.join(told)}" in text
    assert "mean" not in text


def test_from_ten_seeds_on_the_interval_over_them_decides():
    """Seeds of which none is sure by its own images, and whose mean is."""
    values = [2, 1, 3, 0, 2, 5, -1, 1, 4, 2]
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    told = f", 10 seeds: mean difference +1.9 [{found.low:.1f},\N{NO-BREAK SPACE}{found.high:.1f}], the interval over the seeds."
    text = judged([CLAIM | {"check": CHECK}], *seeds_of(values, 9))
    assert "**holds** on" in text
    assert f"{told} By the images of one seed: not decided under 10" in text
    assert "**not decided** on" in judged([CLAIM | {"check": CHECK}], *seeds_of(values[:9], 9))
    lower = CHECK | {"direction": "lower", "margin": 5}
    assert "**holds** on" in judged([CLAIM | {"check": lower}], *seeds_of(values, 9))
    assert "**does not hold** on" in judged([CLAIM | {"check": lower | {"margin": 0.1}}], *seeds_of(values, 9))


def test_numbers_of_a_claim_about_small_values_have_enough_digits():
    found = rows(("l_cam_img", "0.512", "0.4", "0.6"), ("grad_cam", "0.53", "0.5", "0.6"))
    assert "0.512 [0.400" in judged([CLAIM | {"check": CHECK}], found, [paired("-0.03", "-0.006")])


def test_claims_without_their_paired_difference_say_so():
    found = rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "30", "25", "35"))
    other = [paired("1", "3", **{k: "other"}) for k in ("key", "than", "method", "metric", "setting", "profile", "protocol")]
    text = judged([CLAIM | {"check": CHECK}], found, other)
    assert "**holds** on" in text
    assert "intervals of each alone, no paired difference" in text
    assert "**not judged** on" in judged([CLAIM | {"check": CHECK | {"margin": 2}}], found)
    same = judged([CLAIM | {"check": CHECK}], found, [paired("0", "0", p="", p_holm="", same_as="grad_cam")])
    assert "**not decided**" in same
    assert "the same map as Grad-CAM, counted once" in same
    few = judged([CLAIM | {"check": CHECK | {"margin": 2}}], found, [paired("-1", "3", n="29")])
    assert "**not decided**" in few
    chance = judged([CLAIM | {"check": CHECK}], found, [paired("1", "3", p_holm="0.051")])
    assert "**not decided**" in chance
    beside = judged([CLAIM | {"check": CHECK, "beside": "[the floor](#floor)"}], found)
    assert "Read beside it: [the floor](#floor)" in beside
    assert "Read beside it" not in judged([CLAIM | {"check": CHECK, "beside": "[the floor](#floor)"}], [])


def test_claims_compare_only_within_a_run():
    a, b = rows(("l_cam_img", "50", "45", "55")), rows(("grad_cam", "30", "25", "35"), key="other")
    assert "not run" in judged([CLAIM | {"check": CHECK}], a + b)
    assert "untested" in judged([CLAIM | {"status": "untested"}], a)
    assert "see [there](#there)" in judged([CLAIM | {"status": "studied", "seen": "[there](#there)"}], a)


def test_one_training_of_each_network_decides_nothing():
    """Two networks trained once differ by chance, too; the maps of one network, or of a pretrained one, are another matter."""
    found = rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "30", "25", "35"))
    told = judged([CLAIM | {"check": CHECK}], found, [paired("18", "22")])
    assert "**holds** on" in told
    found[1]["weights"] = "plain network"
    told = judged([CLAIM | {"check": CHECK}], found, [paired("18", "22")])
    assert "**not decided** on" in told
    assert "corrected p 0.034; holds by the images, but each network was trained once" in told
    assert "**holds** on" in judged([CLAIM | {"check": CHECK}], *seeds_apart([20, 21, 22]))


def seeds_apart(values):
    both, differences = seeds_of(values, 1)
    return [row | {"weights": "plain network"} if row["method"] == "grad_cam" else row for row in both], differences
