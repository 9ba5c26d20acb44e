"""Photographs explained: the maps that are kept in the repository are those that the code computes."""

import hashlib
import re
from pathlib import Path

import numpy as np
import photographs
import pytest
import torch

from cam_core.learned.shipped import about
from cam_core.pretrained import LITE
from data_scripts.photographs import PHOTOGRAPHS


@pytest.fixture(scope="module")
def classifier():
    return photographs.network()


def test_every_costly_map_is_kept(classifier):
    known = photographs.kept(classifier)
    assert set(known) == {(photograph, method) for photograph in PHOTOGRAPHS for method in photographs.SLOW}
    for heat in known.values():
        assert heat.dtype == torch.float32
        assert heat.min() >= 0
        assert heat.max() <= 1
    assert photographs.KEPT.stat().st_size < 400_000


@pytest.mark.parametrize(("method", "photograph"), [("group_cam", "camera"), ("score_cam[budget=64]", "rocket")])
def test_a_map_computed_anew_is_the_kept_one(classifier, method, photograph):
    found = photographs.explain(photographs.named(method, classifier), photographs.look(PHOTOGRAPHS[photograph], classifier))
    with np.load(photographs.KEPT) as file:
        kept = file[method][list(PHOTOGRAPHS).index(photograph)]
    steps = 255 if kept.dtype == np.uint8 else 1
    assert np.abs(photographs.packed(found) / steps - kept / steps).max() < 0.01


def test_maps_of_other_weights_or_photographs_are_not_taken(classifier, monkeypatch):
    now = photographs.provenance(classifier)
    assert now["photographs"]["coffee"] == hashlib.sha256(PHOTOGRAPHS["coffee"].path.read_bytes()).hexdigest()
    changed = {**now, "photographs": {**now["photographs"], "coffee": "another"}}
    monkeypatch.setattr(photographs, "provenance", lambda _classifier: changed)
    assert {photograph for photograph, _ in photographs.kept(classifier)} == set(PHOTOGRAPHS) - {"coffee"}
    monkeypatch.setattr(photographs, "provenance", lambda _classifier: {**now, "weights": "others"})
    assert photographs.kept(classifier) == {}


def test_a_map_is_named_after_the_first_one_like_it():
    a = torch.arange(9.0).reshape(3, 3) / 8
    heats = {"cam": a, "other": 1 - a, "grad_cam": 0.5 * a + 0.5, "fine": torch.rand(6, 6)}
    assert [photographs.same_as(one, heats) for one in heats] == [None, None, "cam", None]


def test_the_first_page_shows_cat_and_coffee_with_six_methods_and_a_control():
    page = (Path(__file__).resolve().parents[2] / "book/index.md").read_text(encoding="utf-8")
    shown = {
        one: of.split(",") for which, of in re.findall(r"^% photographs: (\S+) (\S+)$", page, re.MULTILINE) for one in which.split(",")
    }
    for photograph in ("chelsea", "coffee"):
        assert len(set(shown[photograph]) & set(photographs.EXPLAINED)) >= 6
        assert {"grad_cam", "increment_cam", "l_cam_fm", "mean_activation"} <= set(shown[photograph])
        assert (len(shown[photograph]) + 1) % 5 == 0, "whole rows of five tiles, 150 pixels wide"
    assert "L-CAM-Img was trained for three epochs only" in page
    assert about("l_cam_img", LITE)["epochs"] == 3


@pytest.mark.parametrize("paper", ["increment_cam", "l_cam", "lfi_cam", "calm"])
def test_every_papers_page_opens_with_a_photograph(paper):
    page = (Path(__file__).resolve().parents[2] / f"book/{paper}.md").read_text(encoding="utf-8")
    opening = page.partition("\n## Results")[0]
    (shown,) = re.findall(r"^% photographs: \S+ (\S+)$", opening, re.MULTILINE)
    assert {"grad_cam", "increment_cam", "l_cam_fm", "mean_activation", "center_gaussian"} <= set(shown.split(","))
