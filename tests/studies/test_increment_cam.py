"""Increment-CAM's study: as many tries on both sides, each pass once, and the literal reading is the method itself."""

import torch

from cam_core import METHODS, Probe
from cam_core.methods import increment
from studies.increment_cam import Passes, grad_cams, knowledge, reading, readings
from tests import nets


def test_grad_cam_gets_as_many_tries_each_of_its_own():
    passes = Passes()
    tried = dict(readings(passes, ("", "relu1"), (0, 8, 16)))
    rivals = dict(grad_cams(passes, ("", "relu1"), len(tried)))
    assert len(tried) == len(rivals) == 2 * 5 * 12
    assert len({one.name for one in [*tried, *rivals]}) == 2 * len(tried)


def test_the_literal_reading_is_the_method_and_its_rival_is_grad_cam():
    probe, passes = Probe(nets.gap(), nets.images(2)), Passes()
    literal = reading(passes, "", "literal", "map", "increment", "sum")
    assert torch.equal(literal(probe), METHODS["increment_cam"](probe))
    plain = next(one for one, options in grad_cams(passes, ("",), 9) if options == {"layer": "", "gradients": "mean", "share": 1.0})
    torch.testing.assert_close(plain(probe), METHODS["grad_cam"](probe))


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
    assert len(asked) == 2 * 2 * 3  # layers x batches x (map, and 8 along either path)


def test_weights_at_the_finest_resolution_agree_with_themselves():
    passes, probe = Passes(), Probe(nets.gap(), nets.images(3))
    for method in dict(readings(passes, ("",), (0, 8, 16))):
        method(probe)
    rows = knowledge(passes).set_index(["method", "metric"])
    assert rows.value["last, 16, direct", "spearman"] == 1
    assert rows.value["last, map, map", "spearman"] < 1
    assert rows.value.xs("effective_share", level="metric").between(0, 1, inclusive="right").all()
