"""Data sets by name: where they lie, and which of their images are train, test and held out."""

from dataclasses import replace

import pytest
from PIL import Image

from cam_core.data import ImageNet
from reproduce import sources
from training import recipes


def test_where_a_data_set_lies(monkeypatch, tmp_path):
    assert sources.find_root("cub", "somewhere").name == "somewhere"
    assert sources.find_root("drawn_cub") == sources.DRAWN
    monkeypatch.delenv("CAM_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="cub needs its images: set CAM_DATA"):
        sources.find_root("cub")
    monkeypatch.setenv("CAM_DATA", str(tmp_path))
    assert sources.find_root("cub") == tmp_path
    with pytest.raises(ValueError, match="unknown dataset 'cifar': expected one of drawn_imagenet"):
        sources.images("cifar", tmp_path)


def test_held_out_images_are_the_last_of_the_test_list_and_never_reported_on(monkeypatch, drawn):
    monkeypatch.setitem(sources.SOURCES, "imagenet", replace(sources.SOURCES["imagenet"], held_out=3))
    everything = ImageNet(drawn, "val", "squash", 224).ids
    reported, held_out = (sources.images("imagenet", drawn, split)("squash").ids for split in ("test", "held_out"))
    assert [*reported, *held_out] == everything
    assert len(held_out) == 3
    assert len(sources.images("imagenet", drawn, limit=2)("squash")) == 2
    with pytest.raises(ValueError, match="cub has no images called 'held_out': take train, full, test"):
        sources.images("cub", drawn, "held_out")


def test_the_papers_windows_are_as_large_as_the_network_s_input():
    assert {name: sources.source(name).side for name in recipes.SIDE} == recipes.SIDE


def test_cat_dog_is_cut_out_of_middle_squares(tmp_path):
    for split in ("train", "val"):
        folder = tmp_path / "Cat-Dog-128" / split / "cats"
        folder.mkdir(parents=True)
        Image.new("RGB", (180, 140)).save(folder / "0.png")
    of = sources.source("cat_dog")
    assert sources.images("cat_dog", tmp_path, "train")(of.train_view)[0].image.shape == (3, 128, 128)
    assert sources.images("cat_dog", tmp_path)(of.view)[0].image.shape == (3, 64, 64)
