"""Whether a network follows the cue is told apart from whether it sees it at all: two answers that are known by construction."""

import torch

from cam_core.data import ImageNet
from data_scripts.draw import draw, redraw
from data_scripts.redrawn import follows_cue

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
