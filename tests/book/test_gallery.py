"""The gallery's page: a tile for every map, and the data that the script reads."""

import json
import re
from argparse import Namespace

import gallery
import numpy as np
import photographs
import pytest

from data_scripts.photographs import PHOTOGRAPHS
from reproduce import results, sources

METHODS = (*photographs.EXPLAINED, *photographs.CONTROLS)


@pytest.fixture(scope="module")
def page(root):
    return gallery.gallery(Namespace(runs=root / "runs", profile="smoke", out=root / "_site", allow_missing=False))


@pytest.fixture(scope="module")
def data(page):
    return json.loads(re.search(r'id="gallery-data">(.*?)</script>', page)[1])


def test_every_map_has_a_tile_with_an_address_and_a_description(page):
    tiles = re.findall(r'<a class="gallery-tile" id="([^"]+)" href="#([^"]+)"><img src="([^"]+)" alt="([^"]+)"', page)
    assert [address for address, *_ in tiles] == [href for _, href, *_ in tiles]
    assert {address for address, *_ in tiles} == {f"{photograph}/{method}" for photograph in PHOTOGRAPHS for method in METHODS}
    assert "_static/photographs/chelsea-score_cam-softmax.webp" in {file for _, _, file, _ in tiles}
    assert "A tabby cat called Chelsea: Grad-CAM" in {alt for *_, alt in tiles}


def test_the_data_says_what_a_method_does_and_whether_it_is_learned_or_a_control(data):
    assert set(data["methods"]) == set(METHODS)
    kinds = {kind: {m for m, of in data["methods"].items() if of["kind"] == kind} for kind in ("learned", "control")}
    assert kinds == {"learned": {"l_cam_fm", "l_cam_img"}, "control": set(photographs.CONTROLS)}
    assert data["methods"]["score_cam"] == {
        "name": "Score-CAM",
        "family": "Channels and pixels masked",
        "kind": "",
        "does": gallery.DOES["score_cam"],
        "source": "Wang et al., CVPRW, 2020",
        "cost": "about 1,281 forward passes",
    }
    assert data["methods"]["grad_cam"]["cost"] == "one forward pass with a gradient"
    assert data["methods"]["random_map"]["cost"] == "no pass of the network"
    assert not any(re.search(r"[a-z]_[a-z]", of["name"]) for of in data["methods"].values())


def test_the_answer_and_the_credit_stand_beside_each_photograph(data):
    assert list(data["pictures"]) == list(PHOTOGRAPHS)
    chelsea = data["pictures"]["chelsea"]
    assert "<strong>tabby &amp; &lt;cat&gt;</strong>, 62\N{NO-BREAK SPACE}%" in chelsea["answer"]
    assert chelsea["credit"].endswith("Stefan van der Walt</a>, CC0")
    assert chelsea["size"] == [60, 40]


def test_a_method_without_a_family_is_named(root, monkeypatch):
    monkeypatch.setitem(gallery.FAMILIES, "Activations alone", ("cam",))
    with pytest.raises(ValueError, match=r"no place for eigen_cam, eigen_cam\[centred\]"):
        gallery.gallery(Namespace(runs=root / "runs", profile="smoke", out=root / "_site", allow_missing=False))


def test_a_gallery_without_photographs_is_refused_or_says_so(tmp_path):
    options = Namespace(runs=tmp_path, profile="smoke", out=tmp_path, allow_missing=False)
    with pytest.raises(ValueError, match="run `make photographs` first"):
        gallery.gallery(options)
    options.allow_missing = True
    assert "not been explained here" in gallery.gallery(options)


def test_a_drawn_picture_says_what_each_network_answers(tmp_path):
    images = sources.images("drawn_imagenet", sources.find_root("drawn_imagenet"), limit=20)("squash")
    run = tmp_path / "runs/smoke/lfi_cam/drawn_imagenet-resnet8-s0"
    run.mkdir(parents=True)
    heat, classes = np.linspace(0, 1, 20 * 49).reshape(20, 7, 7), np.arange(20) % len(images.classes)
    answers = {"lfi_cam": (classes, np.linspace(0.31, 0.5, 20))}
    results.write_maps(run / "maps.npz", (images.ids, {"lfi_cam": heat, "abn": heat}), answers)
    (tmp_path / "site/src/_static/photographs").mkdir(parents=True)
    found = gallery.drawn(Namespace(runs=tmp_path / "runs", profile="smoke", out=tmp_path / "site"))
    assert list(found) == ["object-1", "object-2", "object-3"]
    for picture, index in zip(found.values(), gallery.DRAWN[0][3], strict=True):
        said = images.classes[classes[index]]
        assert f"The networks say: LFI-CAM: {said}, {31 + index}\N{NO-BREAK SPACE}%." in picture["answer"]
        assert f"<strong>{images.classes[images[index].label]}</strong>" in picture["answer"]
