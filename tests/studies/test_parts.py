"""The study of parts on two drawn birds and an untrained network: what is asked, and of which images."""

import numpy as np
import torch

from cam_core.data import Example
from cam_core.data.example import Annotation
from cam_core.data.transforms import view
from cam_core.learned import lfi_backbone
from cam_core.methods import method
from cam_core.metrics.parts import Removal
from data_scripts import birds
from data_scripts.draw import redraw
from studies import parts


def test_two_species_look_alike_in_the_parts_that_no_cue_is_in():
    same = parts.same_looks()
    for a in range(len(birds.CLASSES)):
        for b in range(len(birds.CLASSES)):
            differ = {region for region, alike in zip(birds.REGIONS, same[a, b].tolist(), strict=True) if not alike}
            assert differ == set(birds.cue_regions(a, b))


class Pictures:
    """Stands in for the data set: three birds under a view of 32 pixels."""

    def __init__(self):
        self.ids, self.transform = ["50001", "50002", "50003"], view("squash", 32)
        self.annotations = [Annotation(None, label) for label in (0, 1, 2)]

    def __getitem__(self, index):
        return Example(self.ids[index], torch.zeros(3, 32, 32), self.annotations[index].label)


def removal(label, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(128, 10))
    logits[0, label] = 9
    masks = torch.zeros(7, 32, 32, dtype=torch.bool)
    for number in range(7):
        masks[number, 4 * number : 4 * number + 2] = True
    return Removal(masks, logits, masks[:2], logits[:2], [(0,)])


def test_only_images_that_the_network_gets_right_are_scored_as_they_are_drawn():
    pictures, known = Pictures(), [removal(0), removal(7), removal(2, seed=1)]  # the second is called 7
    shown, here = parts.right(pictures, known)
    assert shown.ids == ["50001", "50003"]
    assert list(here) == shown.ids
    drawn = pictures.transform(redraw("drawn_cub", "50003"), None, None, None)[0]
    assert torch.equal(shown[1].image, drawn)
    assert len(parts.right(pictures, known, 1)[0]) == 1
    torch.manual_seed(0)
    table = parts.scored(lfi_backbone("resnet8", 10).eval(), pictures, known, list(map(method, ("grad_cam", "all_ones"))))
    rows = parts.score_rows("resnet8", 0, table)
    assert {row["n"] for row in rows} == {2}
    told = {(row["method"], row["metric"]): row["value"] for row in rows}
    assert told["all_ones", "target_sensitivity"] == 0
    assert {"completeness", "pair_deletion", "background_independence", "target_sensitivity"} <= {metric for _, metric in told}
