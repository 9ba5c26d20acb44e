"""Whether a network follows the cue is told apart from whether it sees it at all: two answers that are known by construction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cam_core.classifier import Classifier
from cam_core.data import ImageNet
from cam_core.data.transforms import view
from data_scripts import birds
from data_scripts.draw import draw, redraw, scene
from data_scripts.redrawn import follows_cue, removals

NAME = "drawn_imagenet"


class Stub:
    """Stands in for a classifier: ``answer`` says the logits of the three variants [3,3,H,W] of the image whose turn it is."""

    def __init__(self, answer):
        self.answer, self.turn = answer, -1

    def frozen(self):
        return self

    def __call__(self, variants):
        self.turn += 1
        return self.answer(self.turn, variants)


def test_one_that_reads_the_cue_and_one_that_never_changes_its_mind(tmp_path):
    data = ImageNet(draw(tmp_path / "drawn", small=True, progress=False), "val", "squash", 64, 6)
    count = len(data.classes)
    labels = [item.label for item in data.annotations]

    def reads(turn, variants):
        """Knows every redrawn image: the class whose cue is drawn, whatever the surroundings."""
        known = {c: data.transform(redraw(NAME, data.ids[turn], "cue", target=c), None, None, None)[0] for c in range(count)}
        drawn = next(c for c, image in known.items() if c != labels[turn] and torch.equal(image, variants[1]))
        return torch.eye(count)[[labels[turn], drawn, labels[turn]]]

    shares = follows_cue(Stub(reads), data, NAME, count=6).set_index("metric")
    assert shares["value"].to_dict() == {"follows_cue": 100.0, "keeps_class": 100.0}
    assert set(shares["n"]) == {6}

    stubborn = follows_cue(Stub(lambda turn, _: torch.eye(count)[[labels[turn]] * 3]), data, NAME, count=6).set_index("metric")
    assert stubborn["value"].to_dict() == {"follows_cue": 0.0, "keeps_class": 100.0}

    wrong = follows_cue(Stub(lambda turn, _: torch.eye(count)[[(labels[turn] + 1) % count] * 3]), data, NAME, count=6)
    assert set(wrong["n"]) == {1}  # an answer that was wrong before cannot follow or stay: nothing is known
    assert (wrong["ci_high"] - wrong["ci_low"] == 100).all()


def test_removals_hold_the_answer_to_every_combination_of_parts(monkeypatch):
    monkeypatch.setattr(birds, "REGIONS", ("head", "tail", "wing"))  # three, to be quick
    data = SimpleNamespace(ids=["50004"], transform=view("squash", 32))
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    one = Classifier(nn.Identity(), mean, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    [first, second] = removals([one, one], data, 0, batch=5)
    whole = scene("drawn_cub", data.ids[0])
    assert first.parts.shape == (3, 32, 32)
    assert first.logits.shape == (8, 3)
    assert len(first.around) == len(first.around_logits) == len(whole.around)
    assert np.array_equal(first.logits, second.logits)
    for number in (0, 1, 5, 7):
        without = [region for place, region in enumerate(birds.REGIONS) if number & 2**place]
        picture = data.transform(redraw("drawn_cub", data.ids[0], without=without), None, None, None)[0]
        np.testing.assert_allclose(first.logits[number], picture.mean((1, 2)).numpy(), rtol=1e-6)
        np.testing.assert_array_equal(first.without([p for p in range(3) if number & 2**p]), first.logits[number])
    name, mask = list(whole.around.items())[-1]
    picture = data.transform(redraw("drawn_cub", data.ids[0], without=[name]), None, None, None)[0]
    np.testing.assert_allclose(first.around_logits[-1], picture.mean((1, 2)).numpy(), rtol=1e-6)
    assert float(first.around[-1].float().mean()) == pytest.approx(mask.mean(), abs=0.02)
    assert first.sufficient == [tuple(map(birds.REGIONS.index, one)) for one in birds.sufficient_regions(whole.label)]
