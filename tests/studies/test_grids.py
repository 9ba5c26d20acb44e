"""Grids of a network that is known: which images lie where, and what is recorded of them."""

import pytest
import torch

from cam_core import METHODS, Probe
from cam_core.methods import method
from cam_core.metrics.grids import GridLocalization, cells
from studies import grids, judging
from tests.nets import gap, images


def of_classes(count=5, each=3):
    """Class -> images that are recognised by their mean: (10 class + number) / 100."""
    return {label: [torch.full((3, 8, 8), (10 * label + n) / 100) for n in range(each)] for label in range(count)}


@pytest.mark.parametrize("setting", grids.SETTINGS)
def test_classes_differ_but_for_the_pair_of_the_disconnected_settings(setting):
    for one in grids.grids(of_classes(), setting, 12):
        shown = (100 * cells(one.image[None], 2)[0].mean((1, 2, 3))).round().int().tolist()
        labels = [value // 10 for value in shown]
        assert labels[one.cell] == one.label
        assert len(set(shown)) == 4  # never the same image twice
        assert len(set(labels)) == (4 if setting == "GridPG" else 3)
        if setting != "GridPG":
            assert labels[0] == labels[3]
            assert one.cell in (0, 3)


def test_the_surest_images_come_first_and_wrong_ones_not_at_all():
    pictures = images(12, seed=3).float()
    network = gap().float()
    answers = network(pictures).softmax(1)
    labels = answers.argmax(1).tolist()
    labels[0] = (labels[0] + 1) % 5  # one that the network gets wrong

    class Shown(list):
        pass

    examples = Shown(type("E", (), {"image": image, "label": label}) for image, label in zip(pictures, labels, strict=True))
    found = grids.surest(network, examples, batch=5)
    assert sum(map(len, found.values())) == 11
    for label, own in found.items():
        sure = [float(network(image[None]).softmax(1)[0, label].detach()) for image in own]
        assert sure == sorted(sure, reverse=True)


def test_localization_and_metrics_are_those_of_each_grid(monkeypatch):
    monkeypatch.setattr(grids, "SLOW", ("score_cam",))
    monkeypatch.setattr(grids, "STEP", 256)
    network, shown = gap(), [grids.Cell(grids.grid(images(4, seed=seed)), cell, 2) for seed, cell in ((1, 0), (2, 3), (3, 0))]
    methods = list(map(method, ("grad_cam", "score_cam", "center_gaussian")))
    table = grids.localized(network, "DiPart", shown, methods, 1, gap(seed=1))
    key = ("grid_localization", "2 x 2")
    assert [len(table.metrics[one.name, *key].per_image()[0]) for one in methods] == [3, 1, 3]
    by_hand = GridLocalization()
    for number, one in enumerate(shown):
        probe = Probe(grids.on_grid(network, "DiPart", 2, one.cell), one.image[None], [2])
        heat = torch.nn.functional.interpolate(METHODS["grad_cam"](probe)[None], (32, 32), mode="bilinear")[0]
        by_hand.update(heat, [one.cell], ids=[number])
    assert table.metrics["grad_cam", *key].compute() == pytest.approx(by_hand.compute())
    assert table.metrics["center_gaussian", *key].compute() == pytest.approx(25)
    judged = {key[1:] for key in table.metrics}
    assert judged == {key, *((one.name, one.setting) for one in judging.asking_the_network(network, 1024))}
    assert {tuple(kept.per_image()[0]) for (name, *_), kept in table.metrics.items() if name != "score_cam"} == {(0, 1, 2)}
    drops = [table.metrics["grad_cam", "average_drop", setting].compute() for setting in ("100%", "equal mean")]
    assert drops[0] != drops[1]
    assert len(grids.rows_of("gap", "DiPart", table)) == 3
    directed = {key[1:] for key, kept in table.metrics.items() if kept.higher_is_better is not None} - {key}
    assert set(zip(*(grids.agreed({"gap": table})[part] for part in ("metric", "setting")), strict=True)) == directed
