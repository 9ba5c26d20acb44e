"""The choice goes by Average Drop at 50 % over all networks; what chooses is measured on held-out images alone."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from cam_core.data import sources
from cam_core.learned import lfi_backbone, plans
from data_scripts.draw import draw
from studies import l_cam_recipe


def test_the_choice_is_the_least_mean_drop_at_half_the_map_over_the_networks():
    rows = [
        {"masks": masks, "rate": rate, "backbone": backbone, "metric": metric, "setting": setting, "value": value}
        for masks, rate, drops in (("own", 0.1, (50, 60)), ("own", 0.3, (40, 75)), ("batch", 0.1, (90, 90)), ("", None, (1, 1)))
        for backbone, value in zip(("one", "other"), drops, strict=True)
        for metric, setting in (("average_drop", "50%"),)
    ]
    best_elsewhere = {"masks": "batch", "rate": 0.1, "backbone": "one", "value": 0}
    rows += [{**best_elsewhere, "metric": "average_drop", "setting": "100%"}, {**best_elsewhere, "metric": "map_mean", "setting": "50%"}]
    assert l_cam_recipe.choice(pd.DataFrame(rows)) == ("own", 0.1)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Drawn objects in ImageNet's place, and a small random network for any pretrained one."""
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", 8).eval()
    monkeypatch.setattr(l_cam_recipe, "load_classifier", lambda _name: classifier)
    monkeypatch.setitem(sources.SOURCES, "imagenet", replace(sources.SOURCES["drawn_imagenet"], held_out=5))
    return draw(tmp_path / "drawn", small=True, progress=False)


def test_numbers_of_epochs_are_compared_on_the_held_out_images(root, monkeypatch):
    taken, fit = [], l_cam_recipe.fit
    monkeypatch.setattr(l_cam_recipe, "fit", lambda model, recipe, data, **how: taken.append(recipe) or fit(model, recipe, data, **how))
    frame = l_cam_recipe.lengths("resnet8", root, [1, 3])
    assert {"1 epochs", "3 epochs", *l_cam_recipe.CONTROLS} == set(frame.method)
    assert set(frame[frame.metric == "average_drop"].n) == {5}
    assert [(recipe.epochs, recipe.lr) for recipe in taken] == [(1, plans.L_CAM_FEW["lr"]), (3, plans.L_CAM_FEW["lr"])]
    drops = frame[(frame.metric == "average_drop") & (frame.setting == "100%")].set_index("method").value
    assert drops["1 epochs"] != drops["3 epochs"]
