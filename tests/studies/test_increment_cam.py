"""Increment-CAM's study: as many tries on both sides, each pass once, and the literal reading is the method itself."""

from dataclasses import replace

import pytest
import torch

from cam_core import METHODS, Probe, load_classifier, maps
from cam_core.methods import increment
from reproduce import jobs
from studies import increment_cam
from studies.increment_cam import Passes, grad_cams, knowledge, reading, readings, weights
from tests import nets


def test_grad_cam_gets_as_many_tries_each_of_its_own():
    passes = Passes()
    tried = dict(readings(passes, ("", "relu1"), (0, 8, 16)))
    rivals = dict(grad_cams(passes, ("", "relu1"), len(tried)))
    assert len(tried) == len(rivals) == 2 * 5 * 2 * 3 * 12  # layers, resolutions and paths, masks, selections, weights and merges
    assert len({one.name for one in [*tried, *rivals]}) == 2 * len(tried)


def test_the_literal_reading_is_the_method_and_its_rival_is_grad_cam():
    probe, passes = Probe(nets.gap(), nets.images(2)), Passes()
    literal = reading(passes, "", "literal", "map", "increment", "sum")
    torch.testing.assert_close(literal(probe), METHODS["increment_cam"](probe))
    found = {(o["gradients"], o["share"], o["exponent"]): one for one, o in grad_cams(passes, ("",), 12)}
    for exponent in (1, 2):
        want = maps.min_max(METHODS["grad_cam"](probe)) ** exponent
        torch.testing.assert_close(found["mean", 1.0, exponent](probe), want)


@pytest.mark.parametrize("masks", ["channel", "gated"])
@pytest.mark.parametrize("select", ["positive", "strongest", "all"])
def test_a_selection_combined_from_all_scores_is_the_one_that_alone_was_passed(masks, select):
    probe, passes = Probe(nets.dense(seed=3, channels=24), nets.images(2)), Passes()
    chosen = increment_cam.SELECTIONS[select](probe.gradients().mean((2, 3)))
    alone = increment.score(probe, resolution=8, path="direct", masks=masks, select=chosen)
    for weight in ("increment", "softmax", "permuted increment"):
        combined = reading(passes, "", 8, "direct", weight, "sum", masks, select)(probe)
        torch.testing.assert_close(combined, increment.phases(probe, alone, weight=weights(probe, alone, weight)).merged)
    scored = {
        which: passes.score("", 8, "direct", masks, probe).narrowed(which).selected.sum() for which in ("strongest", "positive", "all")
    }
    assert 0 < scored["strongest"] < scored["positive"] < scored["all"]


def test_permuted_weights_are_the_same_weights_elsewhere():
    probe = Probe(nets.dense(seed=3, channels=12), nets.images(2))
    scores = increment.score(probe)
    for name in ("increment", "softmax"):
        plain, dealt = (increment.phases(probe, scores, weight=weights(probe, scores, w)).increments for w in (name, f"permuted {name}"))
        assert torch.equal(plain.isnan(), dealt.isnan())
        for a, b in zip(plain, dealt, strict=True):
            assert torch.equal(a[~a.isnan()].sort().values, b[~b.isnan()].sort().values)
        assert not torch.equal(plain.nan_to_num(0.0), dealt.nan_to_num(0.0))
    equal = increment.phases(probe, scores, weight=weights(probe, scores, "equal")).low_resolution_score_cam
    torch.testing.assert_close(equal, (probe.activations * scores.selected[:, :, None, None]).sum(1))


def test_passes_are_made_once_for_an_image_whoever_asks(monkeypatch):
    asked = []
    score = increment.score

    def counted(probe, **options):
        asked.append(options)
        return score(probe, **options)

    monkeypatch.setattr(increment, "score", counted)
    passes, base = Passes(), Probe(nets.gap(), nets.images(3))
    for method in dict(readings(passes, ("", "relu1"), (0, 8))):
        for images in (torch.tensor([0, 1]), torch.tensor([2])):
            method(base.pairs(images, base.targets[images]))
    assert len(asked) == 2 * 2 * 3 * 2  # layers x batches x (map, and 8 along either path) x masks


def test_weights_at_the_finest_resolution_agree_with_themselves():
    passes, probe = Passes(), Probe(nets.gap(), nets.images(3))
    for method in dict(readings(passes, ("",), (0, 8, 16))):
        method(probe)
    rows = knowledge(passes).set_index(["method", "metric"])
    assert rows.value["last, 16, direct", "spearman"] == pytest.approx(1)
    assert rows.value["last, map, map", "spearman"] < 1
    assert rows.value.xs("effective_share", level="metric").between(0, 1, inclusive="right").all()


def test_increments_of_zero_have_no_effective_number():
    passes, probe = Passes(), Probe(nets.gap(), nets.images(3))
    for method in dict(readings(passes, ("",), (0, 8), ("channel",))):
        method(probe)
    silent = passes.scores["", 0, "map", "channel"]
    for image, one in silent.items():
        silent[image] = replace(one, probability=torch.full_like(one.probability, 0.1))  # what a constant network answers
    rows = knowledge(passes)
    assert rows[rows.method == "last, map, map"].set_index("metric").value.to_dict() == {"spearman": 0, "rank": 0}
    assert rows.metric[rows.method == "last, 8, map"].tolist() == ["spearman", "effective_share", "rank"]
    assert rows.value.notna().all()


def test_the_study_reports_the_best_of_its_tries_on_images_that_chose_nothing(monkeypatch):
    torch.manual_seed(0)
    classifier = load_classifier("resnet8", None, num_classes=10)
    monkeypatch.setattr(jobs, "network", lambda *_args, **_kwargs: (classifier, {}))
    monkeypatch.setattr(increment_cam, "LAYERS", {})
    monkeypatch.setattr(increment_cam, "WEIGHTS", ("increment",))
    frame = increment_cam.study("drawn_imagenet", "resnet8", 8, 0, (0, 8))
    tried = frame[frame.role == "tried"].set_index("method").value
    assert len(tried) == 2 * 3 * 2 * 3 * 4  # both sides x resolutions and paths x masks x selections x merges
    for method, prefix in (("increment_cam_tuned", "increment_cam["), ("grad_cam_tuned", "grad_cam[")):
        chosen = frame[(frame.role == "chosen") & (frame.method == method)].iloc[0]
        assert chosen.value == tried[tried.index.str.startswith(prefix)].max()
    assert {"increment_cam", "phase 2 alone", "increment_cam_tuned, weights equal"} <= set(frame[frame.role == "reported"].method)
    assert frame[frame.role == "difference"].n.max() == 4
