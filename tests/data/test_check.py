"""The check of a data root lists everything that is wrong at once, also for machines."""

import json
import shutil

import pytest

from cam_core.data import ImageNet
from data_scripts import check
from data_scripts.check import main


def test_everything_is_listed_for_machines(drawn, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(drawn, root)
    main([str(root)])
    assert "0 problems" in capsys.readouterr().out
    images = sorted((root / "ILSVRC2012/val").iterdir())
    images[2].write_bytes(b"")
    images[5].write_bytes(images[5].read_bytes()[:700])
    (root / "VOCdevkit/VOC2007/Annotations/050003.xml").write_text("<annotation>")
    voc = root / "VOCdevkit/VOC2007/JPEGImages/050004.jpg"
    voc.write_bytes(voc.read_bytes()[:500])
    with pytest.raises(SystemExit) as stopped:
        main([str(root), "--json"])
    assert stopped.value.code == 1
    said = json.loads(capsys.readouterr().out)["splits"]
    assert [images[n].name in line for n, line in zip((2, 5), said["ILSVRC2012 val"]["problems"], strict=True)] == [True, True]
    broken = said["VOCdevkit/VOC2007 test"]["problems"]
    assert any("050003.xml: cannot be read" in line for line in broken)
    assert any("050004.jpg: cannot be decoded" in line for line in broken)  # images are looked at although the annotations stop the reader
    assert said["CUB_200_2011 test"] == {"images": 20, "problems": []}


def test_an_image_listed_twice_is_named(drawn, tmp_path):
    shutil.copytree(drawn / "ILSVRC2012", tmp_path / "ILSVRC2012")
    listed = tmp_path / "ILSVRC2012/val.txt"
    listed.write_text(listed.read_text() + listed.read_text().splitlines()[0] + "\n")
    problems = {name: found for name, _, found in check.findings(tmp_path, progress=False)}["ILSVRC2012 val"]
    assert [line.partition(": ")[2] for line in problems] == ["ILSVRC2012_val_00000001 is listed 2 times"]


@pytest.mark.real_data
def test_permuted_labels_are_told_by_known_images_and_by_a_network(real, tmp_path, capsys):
    home = tmp_path / "ILSVRC2012"
    home.mkdir()
    for name in ("val", "LOC_synset_mapping.txt"):
        (home / name).symlink_to(real / "ILSVRC2012" / name)
    rows = [line.split() for line in (real / "ILSVRC2012/val.txt").read_text().splitlines()]
    (home / "val.txt").write_text("".join(f"{name} {label}\n" for name, label in rows))
    assert check.labels(tmp_path, 40) == []
    assert check._numbering(ImageNet(tmp_path)) == []
    (home / "val.txt").write_text("".join(f"{name} {(int(label) * 7 + 3) % 1000}\n" for name, label in rows))
    assert "look permuted" in check.labels(tmp_path, 40)[0]
    assert "another order (permuted)" in check._numbering(ImageNet(tmp_path))[0]
    assert "EfficientNet-Lite0: top-1" in capsys.readouterr().out


def test_every_bad_annotation_is_listed_not_the_first_alone(drawn, tmp_path):
    shutil.copytree(drawn / "VOCdevkit", tmp_path / "VOCdevkit")
    notes = tmp_path / "VOCdevkit/VOC2007/Annotations"
    (notes / "050001.xml").write_text("<annotation>")
    (notes / "050002.xml").write_bytes(b"\xff\xfe\x00")
    (notes / "050005.xml").unlink()
    problems = {name: found for name, _, found in check.findings(tmp_path, progress=False)}["VOCdevkit/VOC2007 test"]
    assert [line.split(": ")[0][-10:] for line in problems] == ["050001.xml", "050002.xml", "050005.xml"]


def test_a_text_file_in_another_encoding_is_named(drawn, tmp_path):
    shutil.copytree(drawn / "CUB_200_2011", tmp_path / "CUB_200_2011")
    path = tmp_path / "CUB_200_2011/classes.txt"
    path.write_text(path.read_text() + "11 Grünfink\n", encoding="latin-1")
    problems = {name: found for name, _, found in check.findings(tmp_path, progress=False)}["CUB_200_2011 test"]
    assert len(problems) == 1
    assert "classes.txt: is no text in UTF-8" in problems[0]
