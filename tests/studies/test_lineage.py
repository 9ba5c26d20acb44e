"""The study of newcomers: each beside its ancestor and the controls, at its own brightness and at one mean."""

import pytest
import torch
from torchvision import tv_tensors

from cam_core import METHODS, Probe
from cam_core.data import Example
from cam_core.methods import is_control, method
from studies import lineage
from tests import nets


class Images(torch.utils.data.Dataset):
    """Three images with a box in the upper half."""

    def __init__(self, ids=("a", "b", "c")):
        self.ids = ids

    def __len__(self):
        return len(self.ids)

    def part(self, wanted):
        return Images(self.ids[wanted])

    def __getitem__(self, index):
        box = tv_tensors.BoundingBoxes([[0.0, 0.0, 16.0, 8.0]], format="XYXY", canvas_size=(16, 16))
        return Example(self.ids[index], nets.images(3)[index], 0, boxes=box)


@pytest.fixture(scope="module")
def found():
    names = ("grad_cam", "finer_cam", "mean_activation", "increment_cam", "score_cam", "grad_pp_score_cam", "center_gaussian")
    tables = lineage.measured(nets.gap(seed=3), lambda _view: Images(), [METHODS[n] for n in names], slow=2, road=2, progress=False)
    rows = [row for setting, table in tables for row in lineage.rows(setting, table)]
    return {(row["method"], row["than"], row["metric"], row["setting"]): row for row in rows}


def test_a_newcomer_has_its_difference_from_its_ancestor_and_from_every_control(found):
    for than in ("grad_cam", "mean_activation", "center_gaussian"):
        for metric, setting in (("energy_pointing_game", "as it is"), ("average_drop", "mean 0.3"), ("road_combined", "as it is")):
            own, other = (found[name, "", metric, setting] for name in ("finer_cam", than))
            assert found["finer_cam", than, metric, setting]["value"] == pytest.approx(own["value"] - other["value"])
    assert not any(key[0] == "grad_cam" and key[1] for key in found)
    assert {key[1] for key in found if key[0] == "grad_pp_score_cam"} == {"", "increment_cam", "mean_activation", "center_gaussian"}


def test_slow_methods_and_road_see_the_first_images_alone(found):
    counts = {"finer_cam": 3, "grad_cam": 3, "score_cam": 2, "grad_pp_score_cam": 2, "increment_cam": 2}
    assert {name: found[name, "", "average_drop", "mean 0.3"]["n"] for name in counts} == counts
    assert found["finer_cam", "", "road_combined", "as it is"]["n"] == 2
    assert found["grad_pp_score_cam", "mean_activation", "average_drop", "as it is"]["n"] == 2


def test_energy_is_that_of_the_map_at_its_own_brightness_and_brought_to_one_mean(found):
    assert found["mean_activation", "", "map_mean", "mean 0.3"]["value"] == pytest.approx(30, abs=0.01)
    x = nets.images(3)
    for setting, one in (("as it is", method("finer_cam")), ("mean 0.3", method("finer_cam").at_mean(0.3))):
        heat = one(Probe(nets.gap(seed=3), x))
        low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
        heat = torch.nn.functional.interpolate(((heat - low) / (high - low))[:, None], (16, 16), mode="bilinear")[:, 0]
        want = 100 * (heat[:, :8].sum((1, 2)) / heat.sum((1, 2))).mean()
        assert found["finer_cam", "", "energy_pointing_game", setting]["value"] == pytest.approx(float(want), rel=1e-4)


def test_a_map_is_made_once_for_both_settings():
    calls = []
    counted = lineage.remembered(METHODS["cam"].__class__("cam", lambda probe: calls.append(1) or METHODS["cam"](probe), "", 0, "1"))
    probe = Probe(nets.gap(), nets.images(2))
    assert torch.equal(counted.at_mean(0.3)(probe), counted.at_mean(0.3)(probe))
    counted(probe)
    assert len(calls) == 1


def test_every_name_exists_or_is_learned():
    learned = {"l_cam_img", "tame[diagonal]", "tame[random]", "random_tame"}
    names = {*lineage.ANCESTORS, *lineage.ANCESTORS.values(), *lineage.CONTROLS, *lineage.SLOW}
    assert {name for name in names if name not in METHODS and "[power=" not in name} == learned
    assert all(map(is_control, lineage.CONTROLS))
