"""What notebooks show: tables and pictures keep what they are given."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from cam_core import METHODS, Probe, figures, maps
from reproduce import report
from tests import nets


def records():
    rows = [
        ("grad_cam", "average_drop", "100%", 30.0, 28.0, 32.0, 9),
        ("grad_cam[power=2]", "average_drop", "100%", 40.0, 38.0, 42.0, 9),
        ("increment_cam", "average_drop", "100%", 20.0, 18.0, 22.0, 9),
        ("increment_cam", "average_drop", "100% first 3", 21.0, 11.0, 31.0, 3),
        ("grad_cam", "empty_maps", "", 0.0, None, None, 9),
    ]
    return pd.DataFrame(rows, columns=["method", "metric", "setting", "value", "ci_low", "ci_high", "n"])


def test_the_table_puts_controls_last_and_keeps_the_first_images_apart():
    table = report.table(records(), ["average_drop"])
    assert list(table.index) == ["grad_cam", "increment_cam", "grad_cam[power=2]"]
    assert table.loc["grad_cam", "average drop 100%"] == "30.0 [28.0, 32.0]"
    assert report.table(records(), ["average_drop"], first=3).loc["increment_cam", "average drop 100%"] == "21.0 [11.0, 31.0]"


def test_the_surest_mistakes_come_first():
    probe = Probe(nets.gap(), nets.images(8))
    said, sure = probe.logits.argmax(1), probe.logits.softmax(1).amax(1)
    labels = said.clone()
    labels[[1, 4, 6]] = (said[[1, 4, 6]] + 1) % 5
    found = report.mistakes(probe, labels).tolist()
    assert sorted(found) == [1, 4, 6]
    assert found == sorted(found, key=lambda i: -float(sure[i]))
    assert report.mistakes(probe, labels, 2).tolist() == found[:2]
    with pytest.raises(ValueError, match="all 8 images were classified right"):
        report.errors(probe, said, [METHODS["cam"]], "abcde")


def test_an_error_stands_with_the_maps_of_both_classes(monkeypatch):
    probe = Probe(nets.gap(), nets.images(6))
    said = probe.logits.argmax(1)
    labels = (said + torch.tensor([0, 1, 0, 2, 0, 0])) % 5
    drawn = {}
    monkeypatch.setattr(figures, "grid", lambda images, shown, **more: drawn.update(images=images, shown=shown, **more))
    report.errors(probe, labels, [METHODS["cam"]], ["ant", "bee", "cow", "doe", "elk"], boxes=[torch.full((1, 4), i) for i in range(6)])
    index = report.mistakes(probe, labels)
    assert torch.equal(drawn["images"], probe.images[index])
    for what, classes in (("predicted", said), ("true", labels)):
        own = METHODS["cam"](Probe(nets.gap(), nets.images(6), classes))[index]
        assert torch.allclose(drawn["shown"][f"cam\n{what} class"], maps.upsample(maps.min_max(own), (16, 16)))
    assert [int(box[0, 0]) for box in drawn["boxes"]] == index.tolist()
    names = ["ant", "bee", "cow", "doe", "elk"]
    assert drawn["titles"][0].startswith(names[said[index[0]]])
    assert drawn["titles"][0].endswith(f"is {names[labels[index[0]]]}")


def test_intervals_stand_in_order_of_their_values():
    figure = report.intervals(records(), "average_drop", setting="100%", published={"grad_cam": 13.6})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["Grad-CAM (power=2)", "Grad-CAM", "Increment-CAM"]
    plt.close("all")
