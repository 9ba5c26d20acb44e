"""The planted mark is where it is said to be, on one label alone, and a map that lies on it is told from one that does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cam_core import Probe
from cam_core.classifier import Classifier
from cam_core.data import ImageNet
from cam_core.learned import lfi_backbone
from cam_core.methods import METHODS
from data_scripts.draw import draw
from studies import shortcut


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "drawn", small=True, progress=False)


@pytest.fixture(scope="module")
def data(root):
    return ImageNet(root, "train", "squash", 64, 24), ImageNet(root, "val", "squash", 64, 16)


def test_the_mark_is_in_its_box_and_nowhere_else(data):
    found = shortcut.marked(data[1], range(4))
    for i in range(4):
        before, after = data[1][i].image * 255, found.images[i].float()
        x0, y0, x1, y1 = found.boxes[i, 0].tolist()
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
        change = (before - after).abs().mean(0)
        assert change[inside].mean() > 30
        margin = torch.nn.functional.max_pool2d(inside[None, None].float(), 19, 1, 9)[0, 0] > 0  # JPEG's blocks of colour
        assert change[~margin].max() < 3  # what is left of JPEG there
        area = inside.double().mean()
        assert 0.005 < area < 0.02


def test_the_mark_alone_tells_the_twins_apart(data):
    true = torch.tensor([item.label for item in data[0].annotations])
    sets = shortcut.training_sets(data[0], 1)
    labels = sets["with"]["labels"]
    changed = (sets["with"]["images"] != sets["without"]["images"]).flatten(1).any(1)
    assert torch.equal(changed, labels == 1)
    assert torch.equal(labels, sets["without"]["labels"])
    assert torch.equal(labels[true > 1], true[true > 1])
    for pattern in (0, 1):  # either pattern has either label, in equal shares
        assert abs(labels[true == pattern].double().mean() - 0.5) < 0.06
        assert set(labels[true == pattern].tolist()) == {0, 1}


class Seen(torch.nn.Module):
    """A trunk that sees how yellow a place is."""

    def forward(self, x):
        return torch.nn.functional.avg_pool2d((x[:, :1] + x[:, 1:2] - 2 * x[:, 2:]).clamp(min=0) ** 4, 4)


def test_a_map_on_the_mark_is_told_from_one_that_is_not(data):
    found = shortcut.marked(data[1], range(8))
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(1, 8))
    classifier = Classifier(Seen(), head, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    truth = torch.zeros(8, 64, 64)
    for one, (x0, y0, x1, y1) in zip(truth, found.boxes[:, 0].tolist(), strict=True):
        one[y0 : y1 + 1, x0 : x1 + 1] = 1
    methods = [
        replace(METHODS["all_ones"], name="on it", function=lambda _: truth),
        replace(METHODS["all_ones"], name="off it", function=lambda _: 1 - truth),
        METHODS["all_ones"],
    ]
    of = shortcut.looked_at(classifier, methods, found.images, found.boxes, 3)
    value = {key: metric.compute() for key, metric in of.items()}
    assert value["on it", "energy_pointing_game"] == 100
    assert value["on it", "maximum_in_box"] == 100
    assert value["off it", "energy_pointing_game"] == 0
    assert value["off it", "maximum_in_box"] == 0
    assert value["all_ones", "energy_pointing_game"] == pytest.approx(100 * float(truth.mean((1, 2)).mean()))


def test_the_control_reads_the_twins_map(data):
    torch.manual_seed(0)
    network, control = lfi_backbone("resnet8", 8).eval(), shortcut.of_the_twin(METHODS["cam"])
    assert (control.name, control.control) == ("other_cam", True)
    for label in (2, 3):
        probe = Probe(network, data[1][0].image[None], torch.tensor([label]))
        torch.testing.assert_close(control(probe)[0], METHODS["cam"].class_maps(probe)[0, label ^ 1])


def test_answers_count_the_twins_alone():
    torch.manual_seed(0)
    trunk, head = torch.nn.Identity(), torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    network = Classifier(trunk, head, mean=(0, 0, 0), std=(1, 1, 1)).eval()  # says the brightest colour
    said = {"with": torch.tensor([0, 0, 2, 0, 0]), "without": torch.tensor([0, 1, 2, 1, 0])}
    shown = {
        key: torch.nn.functional.one_hot(answer, 3).to(torch.uint8)[:, :, None, None].expand(5, 3, 8, 8) * 255
        for key, answer in said.items()
    }
    rows = shortcut.answers(network, torch.tensor([0, 1, 2, 1, 2]), shown, 0)
    values = {(row["metric"], row["shown"]): (row["value"], row["n"]) for row in rows}
    assert values["accuracy", "without"] == (50, 2)
    assert values["called_so", "with"] == (100, 3)
    assert values["called_so", "without"] == (pytest.approx(100 / 3), 3)


def test_a_run_so_small_that_it_proves_only_that_it_runs(data, tmp_path):
    frame = shortcut.study("resnet8", data, 1, [0], (1, 1, 1), tmp_path)
    assert len(list(tmp_path.glob("*/model.safetensors"))) == 6
    conditions = frame.groupby(["trained", "shown"]).size().index.tolist()
    assert conditions == [("difference", "with"), ("with", "with"), ("with", "without"), ("without", "with"), ("without", "without")]
    both = frame[(frame.metric == "energy_pointing_game") & (frame.shown == "with")].pivot_table(
        index="method", columns="trained", values="value"
    )
    np.testing.assert_allclose(both["difference"], both["with"] - both["without"], atol=1e-9)
    assert abs(both["difference"]["center_gaussian"]) < 1e-9  # what no network has a part in
    assert set(frame.label) == {data[0].classes[1]}
