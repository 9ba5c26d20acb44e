"""Data sets by name: where they lie, and which of their images are train, test and held out."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from cam_core.data import DataError, ImageNet
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


@pytest.fixture
def listed(tmp_path, drawn):
    """A list of three drawn validation images and one that is not there."""
    path = tmp_path / "few.txt"
    path.write_text("".join(f"val/{one}.JPEG 0\n" for one in [*ImageNet(drawn).ids[4:7], "ILSVRC2012_val_00049999"]))
    return path


def test_a_list_that_is_partly_there_is_refused_unless_that_is_allowed(drawn, listed):
    with pytest.raises(DataError, match=r"ILSVRC2012: has 3 of the 4 images of .*few\.txt; pass allow_partial to take these"):
        sources.images("drawn_imagenet", drawn, subset=listed)("squash")
    part = sources.images("drawn_imagenet", drawn, limit=2, subset=listed, allow_partial=True)("squash")
    assert part.ids == ImageNet(drawn).ids[4:6]
    assert sources.coverage("drawn_imagenet", part, listed) == {"used": 2, "present": 3, "list": "few", "of": 4}
    whole = [line for line in listed.read_text().splitlines() if "49999" not in line]
    listed.write_text("\n".join(whole))
    assert len(sources.images("drawn_imagenet", drawn, subset=listed)("squash")) == 3
    listed.write_text("ILSVRC2012_val_00049999\n")
    with pytest.raises(DataError, match=r"has 0 of the 1 images of .*few\.txt$"):
        sources.images("drawn_imagenet", drawn, subset=listed, allow_partial=True)("squash")
    with pytest.raises(DataError, match="cub_pairs_v1 lists pairs, not images"):
        sources.images("drawn_cub", drawn, subset="cub_pairs_v1")("squash")
    with pytest.raises(ValueError, match="is a list of test images; leave it out for train"):
        sources.images("drawn_imagenet", drawn, "train", subset=listed)


def test_how_many_of_the_listed_images_are_there(monkeypatch, drawn, tmp_path):
    for name, present in (("drawn_imagenet", len(ImageNet(drawn))), ("drawn_voc", 20), ("drawn_cub", 20)):
        data = sources.images(name, drawn, limit=2)("squash")
        assert sources.coverage(name, data) == {"used": 2, "present": present, "list": data.split, "of": present}
    assert sources.coverage("voc07", sources.images("voc07", drawn, limit=2)("squash"))["of"] == 4952
    monkeypatch.setitem(sources.SOURCES, "imagenet", replace(sources.SOURCES["imagenet"], held_out=3))
    shutil.copytree(drawn / "ILSVRC2012", tmp_path / "ILSVRC2012")
    facts = sources.coverage("imagenet", sources.images("imagenet", tmp_path)("squash"))
    assert facts == {"used": len(ImageNet(drawn)) - 3, "present": len(ImageNet(drawn)), "list": "val", "of": 50_000}
    cut = {"subset": {"name": "lists/mine.txt", "present": len(ImageNet(drawn)), "of": 77}}  # as `get imagenet --subset` leaves it
    (tmp_path / "ILSVRC2012/manifest.json").write_text(json.dumps(cut))
    facts = sources.coverage("imagenet", sources.images("imagenet", tmp_path)("squash"))
    assert (facts["list"], facts["of"]) == ("mine", 77)


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
