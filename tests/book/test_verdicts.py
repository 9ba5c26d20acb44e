"""A statement is decided by its paired differences, over all seeds, and by nothing that chance may have done."""

import html
import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qsl

import pytest
import verdicts
from scipy import stats

from reproduce import results

from .conftest import frame, paired, rows

NBSP = "\N{NO-BREAK SPACE}"

CLAIM = {"id": "x", "paper": "l_cam", "statement": "S.", "source": "abstract", "status": "tested"}
CHECK = {"metric": "energy_pointing_game", "method": "l_cam_img", "than": "grad_cam", "direction": "higher"}


def judged(entries, rows, differences=()):
    return verdicts.judged(entries, frame(rows), frame(differences, results.DIFFERENCE))


def word(check, rows, differences=()):
    """The verdict on the only configuration of `rows`."""
    (one,) = judged([CLAIM | {"check": check}], rows, differences)
    return one.verdict


def sentence(check, rows, differences=()):
    (one,) = judged([CLAIM | {"check": check}], rows, differences)
    return verdicts.told(one)


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        (("50", "45", "55"), ("30", "25", "35"), "holds"),
        (("50", "45", "55"), ("48", "43", "53"), "not decided"),
        (("30", "25", "35"), ("50", "45", "55"), "does not hold"),
    ],
)
def test_statements_are_judged_by_direction_and_interval(own, other, verdict):
    found = rows(("l_cam_img", *own), ("grad_cam", *other), weights="resnet50_pqf_large")
    assert word(CHECK, found) == verdict
    assert verdicts.flag("stand-in weights") in sentence(CHECK, found)
    opposite = {"holds": "does not hold", "does not hold": "holds"}.get(verdict, verdict)
    assert word(CHECK | {"direction": "lower"}, found) == opposite


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
def test_statements_are_judged_by_the_paired_interval(low, high, margin, direction, verdict):
    found = rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "48", "43", "53"))
    check = CHECK | {"direction": direction} | ({"margin": margin} if margin else {})
    assert word(check, found, [paired(low, high)]) == verdict
    text = sentence(check, found, [paired(low, high)])
    decides = f"margin {margin}" if margin else "corrected p 0.034"
    assert f"[{float(low):.1f},{NBSP}{float(high):.1f}], n 40, {decides}." in text, "what decides, and nothing else"
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
def test_a_statement_about_few_seeds_must_hold_under_each_by_its_own_images(values, width, verdict):
    found = seeds_of(values, width)
    assert word(CHECK, *found) == verdict
    text = sentence(CHECK, *found)
    assert "differences under 3 seeds, n 40" in text
    assert "mean difference" not in text
    words = ["holds" if value > width else "does not hold" if value < -width else "not decided" for value in values]
    for value, said in zip(values, words, strict=True):
        seed = f"{value:+.1f} [{value - width:.1f},{NBSP}{value + width:.1f}]"
        assert (f"{seed} ({said})" if len(set(words)) > 1 else seed) in text
    assert ("(" in text.partition(": ")[2]) == (len(set(words)) > 1), "where all seeds say the same, the badge says it"


def test_from_ten_seeds_on_the_interval_over_them_decides():
    """Seeds of which none is sure by its own images, and whose mean is."""
    values = [2, 1, 3, 0, 2, 5, -1, 1, 4, 2]
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert word(CHECK, *seeds_of(values, 9)) == "holds"
    text = sentence(CHECK, *seeds_of(values, 9))
    assert f"mean difference +1.9 [{interval.low:.1f},{NBSP}{interval.high:.1f}] over 10 seeds" in text
    assert "each seed alone: not decided under 10" in text
    assert word(CHECK, *seeds_of(values[:9], 9)) == "not decided"
    lower = CHECK | {"direction": "lower", "margin": 5}
    assert word(lower, *seeds_of(values, 9)) == "holds"
    assert word(lower | {"margin": 0.1}, *seeds_of(values, 9)) == "does not hold"


def test_small_values_have_enough_digits():
    found = rows(("l_cam_img", "0.512", "0.4", "0.6"), ("grad_cam", "0.53", "0.5", "0.6"))
    assert "0.512 against 0.530, difference -0.018 [-0.030" in sentence(CHECK, found, [paired("-0.03", "-0.006")])
    assert "0.512 [0.400" in sentence(CHECK, found)


def test_a_verdict_links_to_the_rows_that_it_rests_on():
    found = rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "48", "43", "53"), setting="50%")
    told = sentence(CHECK, found, [paired("1", "3", setting="50%")])
    asked = dict(parse_qsl(html.unescape(re.search(r'href="explorer.html#([^"]+)"', told)[1])))
    place = {"paper": "l_cam", "dataset": "imagenet", "backbone": "resnet50", "metric": "energy_pointing_game", "setting": "50%"}
    assert asked == place | {"kind": "differences", "method": "l_cam_img", "than": "grad_cam"}
    assert "kind=values" in sentence(CHECK, found)


def test_without_a_paired_difference_the_intervals_of_the_values_decide_and_no_margin():
    found = rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "30", "25", "35"))
    other = [paired("1", "3", **{k: "other"}) for k in ("key", "than", "method", "metric", "setting", "profile", "protocol")]
    assert word(CHECK, found, other) == "holds"
    assert "no paired difference" in sentence(CHECK, found, other)
    assert word(CHECK | {"margin": 2}, found) == "not decided"


def test_the_same_map_few_images_and_chance_decide_nothing():
    found = rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "30", "25", "35"))
    same = [paired("0", "0", p="", p_holm="", same_as="grad_cam")]
    assert word(CHECK, found, same) == "not decided"
    assert "the same map as Grad-CAM" in sentence(CHECK, found, same)
    assert word(CHECK | {"margin": 2}, found, [paired("-1", "3", n="29")]) == "not decided"
    assert word(CHECK, found, [paired("1", "3", p_holm="0.051")]) == "not decided"


def slow(values, common):
    """A method on 200 images beside one on 60, of which 45 are paired; ``common``: the settings whose rows are of the images of both."""
    own, than = values
    found = rows(("l_cam_img", "50", "45", "55"), n="200") + rows(("grad_cam", than, "30", "60"), n="60")
    for setting, n in common:
        found += rows(("l_cam_img", own, "45", "55"), ("grad_cam", than, "30", "60"), ("random_map", "49", "1", "9"), n=n, setting=setting)
    return found


def test_means_beside_a_difference_are_over_the_images_that_both_have():
    common = [("first 30", "33"), ("first 60", "60")]
    text = sentence(CHECK, slow(("45", "43"), common), [paired("1", "3", n="60")])
    assert "45.0 against 43.0, difference +2.0 [" in text, "and not 50, the mean over all 200"
    assert "n 60, corrected p" in text
    assert verdicts.flag("a control does as well: random map, 49.0") in text, "over the same images"
    text = sentence(CHECK, slow(("45", "43"), common[:1]), [paired("1", "3", n="60")])
    assert "50.0 against 43.0 (n 200 and 60), difference +2.0 [1.0" in text
    assert "] on the 60 that both have, corrected p" in text


def test_the_count_of_a_difference_under_few_seeds_is_that_of_its_pairs():
    both, differences = seeds_of([4, 3, 5], 1, n="32")
    assert "differences under 3 seeds, n 32: " in sentence(CHECK, both, differences)
    assert "differences under 3 seeds, n 32, margin 2: " in sentence(CHECK | {"margin": 2}, both, differences)


def test_a_map_that_is_anothers_is_named():
    found = rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "30", "25", "35"), ("cam", "50", "45", "55"))
    apart, of_cam = paired("18", "22"), {"than": "cam", "p": "", "p_holm": "", "same_as": ""}
    named = "L-CAM-Img is CAM here"
    assert verdicts.flag(named) in sentence(CHECK, found, [apart, paired("-0.05", "0.05", **of_cam)])
    assert verdicts.flag(named) in sentence(CHECK, found, [apart, paired("0", "0.3", **(of_cam | {"same_as": "cam"}))])
    assert named not in sentence(CHECK, found, [apart, paired("0", "0.3", **of_cam)])
    other_metric = paired("1", "3", **of_cam, metric="average_drop")
    assert named not in sentence(CHECK, found, [apart, paired("-0.05", "0.05", **of_cam), other_metric]), "another metric tells them apart"


def test_methods_are_compared_only_within_a_run():
    a, b = rows(("l_cam_img", "50", "45", "55")), rows(("grad_cam", "30", "25", "35"), key="other")
    assert judged([CLAIM | {"check": CHECK}], a + b) == []


def seeds_apart(values):
    both, differences = seeds_of(values, 1)
    return [row | {"weights": "plain network"} if row["method"] == "grad_cam" else row for row in both], differences


def test_two_networks_trained_once_each_are_not_comparable():
    """They differ by chance, too; the maps of one network are another matter, and so are several trainings of each."""
    assert word(CHECK, *seeds_of([20], 2)) == "holds"
    assert word(CHECK, *seeds_apart([20])) == "not comparable"
    assert word(CHECK, *seeds_apart([0])) == "not decided"
    assert word(CHECK, *seeds_apart([20, 21, 22])) == "holds"
    assert verdicts.flag("another network for each method") in sentence(CHECK, *seeds_apart([20, 21, 22]))


def test_a_control_that_does_as_well_stands_beside_a_statement_that_holds():
    found = rows(
        ("l_cam_img", "50", "45", "55"),
        ("grad_cam", "30", "25", "35"),
        ("random_l_cam", "51.26", "45", "55"),
        ("random_map", "9", "5", "15"),
    )
    text = sentence(CHECK, found, [paired("18", "22")])
    assert verdicts.flag("a control does as well: untrained L-CAM, 51.3") in text
    assert "random map" not in text
    assert "a control" not in sentence(CHECK | {"direction": "lower"}, found, [paired("18", "22")])


def test_a_training_that_failed_is_named():
    both, differences = seeds_of([4, 3, 5], 1)
    for seed, accuracy in enumerate(("80", "79", "5")):
        both += rows(("l_cam_img", accuracy, "1", "9"), key=f"x-s{seed}", seed=str(seed), metric="accuracy")
    assert verdicts.flag("L-CAM-Img failed to train under seed 2: 5.0 % right") in sentence(CHECK, both, differences)


def test_other_levels_that_say_otherwise_are_named():
    both = [one for level in ("15%", "50%") for one in rows(("l_cam_img", "50", "45", "55"), ("grad_cam", "48", "43", "53"), setting=level)]
    text = sentence(CHECK | {"setting": "15%"}, both, [paired("1", "3", setting="15%"), paired("-3", "-1", setting="50%")])
    assert verdicts.flag("judged at 15%; at 50% it does not hold") in text
    assert verdicts.flag("no other level decides it so (50%)") in text
    agreeing = sentence(CHECK | {"setting": "15%"}, both, [paired("1", "3", setting="15%"), paired("1", "3", setting="50%")])
    assert "level" not in agreeing


def named(*words):
    return [SimpleNamespace(verdict=one) for one in words]


@pytest.mark.parametrize(
    ("words", "overall"),
    [
        ([], "not run"),
        (["not comparable"], "not comparable"),
        (["holds", "holds", "not decided"], "holds"),
        (["holds", "not decided", "not decided"], "not decided"),
        (["holds", "holds", "holds", "does not hold"], "not decided"),
        (["does not hold", "not decided"], "does not hold"),
    ],
)
def test_several_configurations_decide_by_half_of_them_and_no_contradiction(words, overall):
    assert verdicts.overall(named(*words)) == overall


@pytest.fixture(scope="module")
def published():
    """The statements, and what the published results say of them."""
    import assemble

    options = assemble._parser().parse_args(["--results", str(Path(assemble.BOOK.parent / "results"))])
    options.read = []
    return assemble.statements(), assemble.judged(options)


def test_the_first_sentences_count_what_the_matrix_shows(published):
    """On the published numbers: counted again from the lines of the matrix."""
    entries, found = published
    text = verdicts.finding(entries, found)
    lines = re.findall(r"<tr><th scope=\"row\">.*?</tr>", verdicts.matrix(entries, found))
    about = {entry["id"]: entry.get("about", "maps") for entry in entries}
    for side, (kind, said) in enumerate(zip(("photographs", "drawn images"), re.findall("Of .*?undecided[.]", text), strict=True)):
        cells = [(line, line.split("<td>")[1 + side]) for line in lines if "flag-ours" not in line]
        badges = [(line, re.search(r"</span> ([a-z ]+?)(?: <small>|</span>)", cell)[1], cell) for line, cell in cells]
        tested = [one for one in badges if one[1] != "not run"]
        held = [one for one in tested if one[1] == "holds"]
        ours = sum("our reading" in line for line, *_ in tested)
        assert said.startswith(f"Of {len(tested)} statements tested on {kind}")
        assert f"({len(tested) - ours} the papers' claims, {ours} our reading), **{len(held)} hold**" in said
        against = sum(one[1] == "does not hold" for one in tested)
        assert f"; {against} {'does' if against == 1 else 'do'} not" in said
        of = [about[re.search('href="#([^"]+)"', line)[1]] for line, *_ in held]
        assert {what: int(count) for count, what in re.findall(r"(\d+) about (\w+)", said)} == {what: of.count(what) for what in of}
        for words in ("does as well", "is Grad-CAM there"):
            assert (words in said) == any(words in cell for *_, cell in held)


def test_what_stands_against_a_statement_stands_beside_it_wherever_it_is_said_to_hold(published):
    entries, found = published
    (near,) = (entry for entry in entries if entry["id"] == "increment-near-score-cam")
    held = [one for one in found if one.entry is near and one.kind == "photographs" and one.verdict == "holds"]
    assert {one.backbone for one in held} == {"efficientnet_lite0"}
    assert all("Increment-CAM is Grad-CAM here" in one.flags for one in held)
    assert not any("is Grad-CAM here" in words for one in found if one.backbone != "efficientnet_lite0" for words in one.flags)
    line = next(line for line in verdicts.matrix(entries, found).split("\n") if near["id"] in line)
    photographs = line.split("<td>")[1]
    for words in (verdicts.CONTROL, "Increment-CAM is Grad-CAM there"):
        assert verdicts.flag(words) in photographs
    told = "(Increment-CAM, our reading; a control does as well; Increment-CAM is Grad-CAM there)"
    assert f"{near['statement']}* {told}" in verdicts.holding(entries, found)


def test_printed_means_have_the_printed_difference(published):
    """Both are over the same images, on all that is published."""
    for one in published[1]:
        for seed in one.seeds:
            assert seed.value - seed.value_than == pytest.approx(seed.value_paired, abs=1e-6), verdicts.told(one)


def test_the_matrix_says_whose_each_statement_is_and_links_to_its_fold():
    entries = [CLAIM | {"id": "a"}, CLAIM | {"id": "b", "whose": "our question"}, CLAIM | {"id": "c", "whose": "our reading"}]
    lines = re.findall(r'<a href="#(\w)">S\.</a> <span class="flag flag-(\w+)">([^<]+)</span>', verdicts.matrix(entries, []))
    assert lines == [("a", "claim", "the paper's claim"), ("b", "ours", "our question"), ("c", "claim", "our reading")]
    assert 'href="verdicts.html#b"' in verdicts.box(entries, [], "l_cam")
    folds = verdicts.details(entries, [])
    assert re.findall(r"^::::\{dropdown\} S\.\n:name: (\w)$", folds, re.MULTILINE) == ["a", "b", "c"]


def test_a_question_of_ours_is_never_called_the_papers_claim():
    import assemble

    for entry in assemble.statements():
        assert ("our question" in entry["source"]) == (entry.get("whose") == "our question"), entry["id"]


def test_published_values_stand_in_the_fold_of_their_statement():
    import assemble
    import tables

    printed = tables.load_yaml(assemble.BOOK / "published.yaml")
    told = {entry["id"]: verdicts.published(entry, printed) for entry in assemble.statements()}
    assert told["l-cam-img-drop"] == (
        "Published (from memory, unverified): 11.09 against 13.61 (ResNet-50); 12.96 against 32.12 (VGG-16).\n"
    )
    assert told["calm-cue"] == "Published (read off a picture in the authors' repository): 34.3 against 29.6.\n"
    assert told["calm-accuracy"] == "Published (printed in the authors' repository): 70.4 against 74.5 (ImageNet).\n"
    assert not any(told[of] for of in told if of.startswith("increment")), "the abstract has no numbers"
    assert told["l-cam-img-drop"] in verdicts.details(assemble.statements(), [], printed)
