"""The choice goes by Average Drop at 50 % over all networks; what chooses is measured on held-out images alone."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from cam_core.learned import LCam, lfi_backbone
from data_scripts.draw import draw
from reproduce import sources
from studies import l_cam_recipe
from training import recipes
from training.batches import in_memory
from training.recipes import L_CAM


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


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "drawn", small=True, processes=1, progress=False)


@pytest.fixture
def root(drawn, monkeypatch):
    """Drawn objects in ImageNet's place, and a small random network for any pretrained one."""
    torch.manual_seed(0)
    classifier = lfi_backbone("resnet8", 8).eval()
    monkeypatch.setattr(l_cam_recipe, "load_classifier", lambda _name: classifier)
    monkeypatch.setitem(sources.SOURCES, "imagenet", replace(sources.SOURCES["drawn_imagenet"], held_out=5))
    return drawn


@pytest.fixture
def fitted(monkeypatch):
    """What `fit` is given and gives, one (model, first weights, recipe, labels, updates) a training."""
    taken, fit = [], l_cam_recipe.fit

    def noted(model, recipe, data, **how):
        first = model.attention.weight.detach().clone()
        taken.append((model, first, recipe, data["labels"], fit(model, recipe, data, **how)["updates"]))

    monkeypatch.setattr(l_cam_recipe, "fit", noted)
    monkeypatch.setattr(l_cam_recipe, "in_memory", lambda images: in_memory(images.part(slice(4)), progress=False))
    monkeypatch.setattr(l_cam_recipe, "CONTROLS", ("random_map",))
    return taken


def test_numbers_of_epochs_are_compared_on_the_held_out_images(root, monkeypatch):
    taken, fit = [], l_cam_recipe.fit
    monkeypatch.setattr(l_cam_recipe, "fit", lambda model, recipe, data, **how: taken.append(recipe) or fit(model, recipe, data, **how))
    frame = l_cam_recipe.lengths("resnet8", root, [1, 3])
    assert {"1 epochs", "3 epochs", *l_cam_recipe.CONTROLS} == set(frame.method)
    assert set(frame[frame.metric == "average_drop"].n) == {5}
    assert [(recipe.epochs, recipe.lr) for recipe in taken] == [(1, recipes.L_CAM_FEW["lr"]), (3, recipes.L_CAM_FEW["lr"])]
    drops = frame[(frame.metric == "average_drop") & (frame.setting == "100%")].set_index("method").value
    assert drops["1 epochs"] != drops["3 epochs"]


@pytest.mark.parametrize("variant", ["fm", "img"])
def test_every_masks_and_rate_is_tried_from_the_same_start(root, fitted, monkeypatch, variant):
    """The variation of own masks is N = 64 times the released one, which balances N maps an image, or, "as printed", the released one."""
    monkeypatch.setitem(l_cam_recipe.EPOCHS, variant, 1)
    monkeypatch.setattr(l_cam_recipe, "RATES", (0.1, 0.3))
    frame = l_cam_recipe.tries("resnet8", root, variant)
    assert {model.variant for model, *_ in fitted} == set(frame.variant) == {variant}
    assert L_CAM.batch == 64
    expected = [
        ("batch", 0.01, 0.1), ("batch", 0.01, 0.3), ("own", 0.64, 0.1), ("own", 0.64, 0.3), ("own", 0.01, 0.1), ("own", 0.01, 0.3),
    ]  # fmt: skip
    assert [(model.masks, model.variation, recipe.lr) for model, _, recipe, *_ in fitted] == expected
    assert all(torch.equal(first, fitted[0][1]) for _, first, *_ in fitted)
    rows = frame[["method", "masks", "rate"]].drop_duplicates().set_index("method")
    named = {(masks, rate) for masks in ("batch", "own", "own as printed") for rate in (0.1, 0.3)}
    assert {tuple(row) for row in rows.drop("random_map").itertuples(index=False)} == named
    assert all(name == f"{row.masks}, {row.rate:g}" for name, row in rows.drop("random_map").iterrows())
    assert rows.loc["random_map"].masks == ""
    assert pd.isna(rows.loc["random_map"].rate)
    drops = frame[(frame.metric == "average_drop") & (frame.setting == "100%") & (frame.masks != "")].value
    assert drops.nunique() == len(drops) == 6
    assert set(frame.epochs) == {1}


def test_more_views_are_shown_over_as_many_updates(root, fitted, monkeypatch):
    """Four images in batches of two, four epochs of one view: eight updates, and eight of two views and of four."""
    monkeypatch.setitem(l_cam_recipe.EPOCHS, "fm", 4)
    monkeypatch.setitem(recipes.L_CAM_FEW, "batch", 2)
    frame = l_cam_recipe.views("resnet8", root, (1, 2, 4))
    assert [(recipe.epochs, len(labels), updates) for _, _, recipe, labels, updates in fitted] == [(4, 4, 8), (2, 8, 8), (1, 16, 8)]
    assert {(model.masks, recipe.lr) for model, _, recipe, *_ in fitted} == {(recipes.L_CAM_MASKS, recipes.L_CAM_FEW["lr"])}
    assert list(frame.method.unique()) == ["1 view", "2 views", "4 views", "random_map"]


def places_of(view, image):
    """Where the window lies in the image, and whether it is mirrored."""
    height, width = view.shape[1:]
    windows = [(y, x) for y in range(image.shape[1] - height + 1) for x in range(image.shape[2] - width + 1)]
    pieces = {(y, x): image[:, y : y + height, x : x + width] for y, x in windows}
    return [
        (*at, mirrored)
        for at, piece in pieces.items()
        for mirrored in (False, True)
        if torch.equal(view, piece.flip(-1) if mirrored else piece)
    ]


@pytest.mark.parametrize("variant", ["fm", "img"])
def test_several_cached_views_are_the_centre_and_augmented_windows_under_the_centres_label(variant):
    """Each window is a piece of its own image, some mirrored; its cached activations are those of the trunk on it."""
    classifier = lfi_backbone("resnet8", 7).eval()
    images = torch.randint(0, 256, (5, 3, 232, 240), dtype=torch.uint8)
    data = l_cam_recipe.prepared(LCam(classifier, variant), images, L_CAM.shortened(1, **recipes.L_CAM_FEW), 3)
    middle = images[:, :, 4:228, 8:232]
    views = torch.cat([middle, *l_cam_recipe.windows(images, 2)])
    assert data["activations"].shape[0] == len(views) == 15
    torch.testing.assert_close(data["activations"].float(), classifier.activations(views / 255), rtol=2e-3, atol=2e-3)
    assert torch.equal(data["labels"], classifier(middle / 255).argmax(1).repeat(3))
    assert ("images" in data) == (variant == "img")
    if variant == "img":
        assert torch.equal(data["images"], views)
    found = [places_of(view, image) for view, image in zip(views[5:], images.repeat(2, 1, 1, 1), strict=True)]
    assert all(len(places) == 1 for places in found)
    places = [place for (place,) in found]
    assert len(set(places)) > 5
    assert {mirrored for *_, mirrored in places} == {False, True}
