"""The fixed lists, held against their rules and against the official annotations where these are at hand."""

import hashlib
from collections import Counter

import pytest

from cam_core.data import DataError
from data_scripts import subsets
from data_scripts.subsets import make


def lines(name):
    return (subsets.HOME / f"{name}.txt").read_text().splitlines()


def test_every_list_is_there_and_sorted():
    sizes = {name: len(lines(name)) for name in subsets.RULES}
    assert sizes == {
        "imagenet_val_5000_v1": 5000,
        "imagenet_energy_500_v1": 500,
        "voc07_test_v1": 4952,
        "voc07_difficult_v2": 2230,
        "cub_pairs_v1": 191,
    }
    for name in ("imagenet_val_5000_v1", "imagenet_energy_500_v1", "voc07_test_v1"):
        assert subsets.read(name) == sorted(set(lines(name)))


def test_the_imagenet_list_is_its_rule():
    ids = [f"ILSVRC2012_val_{number:08}" for number in range(1, 50_001)]
    keys = {one: hashlib.sha256(b"v1 " + one.encode()).digest() for one in ids}
    limit = sorted(keys.values())[4999]
    assert lines("imagenet_val_5000_v1") == [one for one in ids if keys[one] <= limit]


def test_pairs_are_of_test_images_and_of_two_classes():
    tests = set(lines("voc07_test_v1"))
    pairs = [line.split() for line in lines("voc07_difficult_v2")]
    assert {image for image, _ in pairs} <= tests
    assert len({name for _, name in pairs}) == 20
    assert len({tuple(pair) for pair in pairs}) == len(pairs)
    counts = Counter(line.split()[2] for line in lines("cub_pairs_v1"))
    assert counts == {"1": 31, "2": 64, "3": 96}  # CALM's numbers


@pytest.mark.real_data
def test_lists_from_the_official_annotations(real):
    assert make.energy_500(real / "ILSVRC2012/wsolevaluation/test") == lines("imagenet_energy_500_v1")
    assert make.cub_pairs(real / "CUB_200_2011") == lines("cub_pairs_v1")
    ids, pairs = make.voc07(real / "VOCdevkit/VOC2007")
    assert set(ids) <= set(lines("voc07_test_v1"))
    assert set(pairs) == {line for line in lines("voc07_difficult_v2") if line.split()[0] in set(ids)}


def test_what_is_no_list_is_said(tmp_path):
    with pytest.raises(DataError, match=r"'l_cam_2000': L-CAM's 2000 test images; .* give its path"):
        subsets.read("l_cam_2000")
    with pytest.raises(DataError, match="'imagenet_1': expected the path of a list, or one of imagenet_val_5000_v1"):
        subsets.read("imagenet_1")
    (tmp_path / "mine.txt").write_text("val/a.JPEG 3\nb.JPEG 4\n")
    assert subsets.read(tmp_path / "mine.txt") == ["a", "b"]
    (tmp_path / "mine.txt").write_text("a.JPEG 3\na.JPEG 4\n")
    with pytest.raises(DataError, match="lists a more than once"):
        subsets.read(tmp_path / "mine.txt")
    (tmp_path / "mine.txt").write_text("\n")
    with pytest.raises(DataError, match="lists nothing"):
        subsets.read(tmp_path / "mine.txt")
