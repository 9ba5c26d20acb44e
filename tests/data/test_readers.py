"""The readers on drawn data in the official layouts: what was drawn must come back, whatever the view."""

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from cam_core.data import CUB200, VOC2007, DataError, Example, ImageFolder, ImageNet, collate, inclusive_boxes, wsol_boxes
from cam_core.data.cub import families
from cam_core.data.voc import OFFICIAL
from data_scripts import birds, draw, village
from data_scripts.check import check, findings
from data_scripts.check import main as check_main
from training.batches import multi_hot

READERS = [(ImageNet, "val", "imagenet"), (VOC2007, "test", "voc"), (CUB200, "test", "cub")]


def boxes_of(masks):
    return [[np.where(m)[1].min(), np.where(m)[0].min(), np.where(m)[1].max(), np.where(m)[0].max()] for m in masks]


@pytest.mark.parametrize(("reader", "split", "kind"), READERS)
def test_boxes_and_labels_are_those_of_the_drawing(drawn, reader, split, kind):
    dataset = reader(drawn, split, view="original")
    for index in range(0, len(dataset), 3):
        example, drawing = dataset[index], draw.scene(kind, dataset.ids[index])
        assert example.size == drawing.pixels.shape[:2]
        assert inclusive_boxes(example.boxes).tolist() == boxes_of(thing.mask for thing in drawing.objects)
        assert example.box_labels.tolist() == [thing.label for thing in drawing.objects]
        assert example.label == drawing.label
        worst = np.abs(example.image.numpy().transpose(1, 2, 0) - drawing.image / 255).mean()
        assert worst < 0.03  # JPEG only


def test_families_end_in_the_same_word():
    kin = families(["Sky Warbler", "Finch", "Night Warbler", "Night tailed Finch"])
    assert kin.int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]


def test_voc_flags(drawn):
    dataset = VOC2007(drawn, "test", view="original")
    assert dataset.classes == village.CLASSES
    hard = 0
    for index, image_id in enumerate(dataset.ids):
        things = draw.scene("voc", image_id).objects
        assert dataset.annotations[index].difficult.tolist() == [thing.difficult for thing in things]
        assert dataset.present(index) == sorted({thing.label for thing in things if not thing.difficult})
        hard += sum(thing.difficult for thing in things)
        lists = drawn / "VOCdevkit/VOC2007/ImageSets/Main"
        for label, name in enumerate(dataset.classes):
            flag = dict(line.split() for line in (lists / f"{name}_test.txt").read_text().splitlines())[image_id]
            expected = -1 if label not in {thing.label for thing in things} else int(label in dataset.present(index))
            assert int(flag) == expected
    assert hard > 0
    targets = multi_hot([dataset[0]], len(dataset.classes))[0]
    assert targets.nonzero().flatten().tolist() == sorted({thing.label for thing in draw.scene("voc", dataset.ids[0]).objects})


def test_cub_parts_masks_and_attributes(drawn):
    dataset = CUB200(drawn, "test", view="original")
    assert dataset.classes == birds.CLASSES
    assert dataset.class_ids == list(range(1, 11))
    assert dataset.part_names == list(birds.PARTS)
    seen = 0
    for index in range(len(dataset)):
        example, drawing = dataset[index], draw.scene("cub", dataset.ids[index])
        assert (example.segmentation.numpy() == drawing.objects[0].mask).all()
        assert (example.official_mask.numpy() == 255 * drawing.objects[0].mask).all()
        for x, y, visible in example.parts[example.parts[:, 2] > 0].tolist():
            assert visible == 1
            assert example.segmentation[int(y), int(x)]
            seen += 1
    assert seen > 10 * len(dataset)  # of 15, one eye and one wing are always turned away
    binary = dataset.class_attributes >= 50
    for label in range(10):
        named = {name for name, true in zip(dataset.attribute_names, binary[label].tolist(), strict=True) if true}
        look = birds.looks(label)
        assert f"has_wing_color::{look['wing'][0]}" in named
        assert f"has_breast_pattern::{look['breast'][1]}" in named
        assert len([name for name in named if name.startswith("has_wing_")]) == 2


def calm_parts(names: list[str], binary: torch.Tensor, a: int, b: int) -> set[str]:
    """CALM's grouping of attributes into parts by substrings, written down on its own."""
    words = {"head": ("bill", "crown", "eye", "forehead", "head", "nape", "throat")} | {w: (w,) for w in birds.REGIONS[1:]}
    differing = [name for name, differs in zip(names, (binary[a] != binary[b]).tolist(), strict=True) if differs]
    return {part for part, keys in words.items() for name in differing if any(key in name for key in keys)}


def test_class_pairs_differ_in_one_two_and_three_parts(drawn):
    dataset = CUB200(drawn, "test")
    binary, counts = dataset.class_attributes >= 50, []
    for a in range(10):
        for b in range(a + 1, 10):
            parts = calm_parts(dataset.attribute_names, binary, a, b)
            assert parts == set(birds.cue_regions(a, b))  # the attribute files say what the pictures show
            counts.append(len(parts))
    assert min(counts) == 1
    assert all(counts.count(n) >= 5 for n in (1, 2, 3))


@pytest.mark.parametrize(("reader", "split", "kind"), READERS)
@pytest.mark.parametrize("size", [112, 224])
def test_views_move_boxes(drawn, reader, split, kind, size):
    original, squash, crop = (reader(drawn, split, view=name, size=size) for name in ("original", "squash", "crop"))
    for index in range(0, len(original), 5):
        plain, height, width = original[index], *original[index].size
        boxes = plain.boxes.as_subclass(torch.Tensor).double().numpy()
        side = np.array([width, height, width, height])
        assert np.abs(squash[index].boxes.numpy() - boxes * size / side).max() < 1e-3
        short = round(size * 256 / 224)  # torchvision truncates the long side
        new = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        left, top = (round((new[0] - size) / 2), round((new[1] - size) / 2))
        moved = boxes * np.array([new[0], new[1]] * 2) / side - np.array([left, top] * 2)
        moved = moved.clip(0, size)
        stays = (moved[:, 2] - moved[:, 0] >= 1) & (moved[:, 3] - moved[:, 1] >= 1)
        got = crop[index]
        assert np.abs(got.boxes.numpy() - moved[stays]).max(initial=0) < 1e-3
        assert got.box_labels.tolist() == plain.box_labels[torch.from_numpy(stays)].tolist()
        assert got.image.shape == (3, size, size)
        if plain.parts is not None:
            x = plain.parts[:, 0].double() * new[0] / width - left
            flag = (plain.parts[:, 2] > 0) & (x >= 0) & (x < size)
            assert (got.parts[:, 2] > 0).tolist() == (flag & (got.parts[:, 2] > 0)).tolist()
            assert (got.parts[:, 0].double() - x)[got.parts[:, 2] > 0].abs().max() < 1e-3
            assert abs(squash[index].segmentation.float().mean() - plain.segmentation.float().mean()) < 0.01


def test_boxes_that_leave_the_crop_go_with_their_labels(tmp_path, drawn):
    """A wide image with boxes at the far left, in the middle and across the crop's left edge, all by hand."""
    home = tmp_path / "VOCdevkit/VOC2007"
    shutil.copytree(drawn / "VOCdevkit/VOC2007/ImageSets", home / "ImageSets")
    (home / "JPEGImages").mkdir()
    (home / "Annotations").mkdir()
    (home / "ImageSets/Main/test.txt").write_text("000001\n")
    Image.new("RGB", (512, 256)).save(home / "JPEGImages/000001.jpg")  # 224 crop: no scaling, columns 144..367, rows 16..239
    boxes = [("kite", 0, (1, 101, 100, 200)), ("car", 1, (201, 101, 300, 200)), ("tree", 0, (101, 1, 160, 256))]
    objects = "".join(
        f"<object><name>{n}</name><difficult>{d}</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for n, d, b in boxes
    )
    (home / "Annotations/000001.xml").write_text(f"<annotation>{objects}</annotation>")
    dataset = VOC2007(tmp_path, "test", view="crop")
    example = dataset[0]
    assert example.boxes.tolist() == [[56, 84, 156, 184], [0, 0, 16, 224]]
    assert [dataset.classes[k] for k in example.box_labels.tolist()] == ["car", "tree"]
    assert example.difficult.tolist() == [True, False]
    assert example.official_boxes.tolist() == [list(b) for *_, b in boxes]
    assert isinstance(example.boxes, tv_tensors.BoundingBoxes)
    assert dataset.present(0) == [3, 5]  # kite and tree; presence is a fact of the image, not of the view


def test_a_difficult_pair_by_the_union_of_its_boxes(tmp_path, drawn):
    """An image of 100 x 100: overlapping boxes count once, flagged ones cover too, and a flagged class is no other class."""
    home = tmp_path / "VOCdevkit/VOC2007"
    shutil.copytree(drawn / "VOCdevkit/VOC2007/ImageSets", home / "ImageSets")
    (home / "JPEGImages").mkdir()
    (home / "Annotations").mkdir()
    boxes = {
        "1": [("kite", 0, (1, 1, 49, 50)), ("kite", 0, (1, 1, 50, 49)), ("car", 0, (1, 1, 2, 2))],  # 2499 of 2500, though their sum is 4900
        "2": [("kite", 0, (1, 1, 50, 50)), ("car", 0, (1, 1, 2, 2))],
        "3": [("kite", 0, (1, 1, 2, 2)), ("kite", 1, (1, 1, 50, 50)), ("car", 0, (1, 1, 2, 2))],
        "4": [("kite", 0, (1, 1, 2, 2)), ("car", 1, (1, 1, 2, 2))],
    }
    for image_id, things in boxes.items():
        Image.new("RGB", (100, 100)).save(home / f"JPEGImages/{image_id}.jpg")
        corners = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
        objects = (f"<object><name>{n}</name><difficult>{d}</difficult>{corners.format(*b)}</object>" for n, d, b in things)
        (home / f"Annotations/{image_id}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")
    (home / "ImageSets/Main/test.txt").write_text("\n".join(boxes))
    dataset = VOC2007(tmp_path, "test")
    kite, car = dataset.classes.index("kite"), dataset.classes.index("car")
    assert [dataset.hard(index) for index in range(4)] == [{kite, car}, {car}, {car}, set()]


def test_inclusive_and_wsol_boxes_by_hand():
    assert inclusive_boxes(torch.tensor([[3.0, 4.0, 8.0, 5.0], [0.2, 0.0, 1.7, 2.0000002]])).tolist() == [[3, 4, 7, 4], [0, 0, 1, 1]]
    example = Example("x", torch.zeros(3, 2, 2), 0, size=(375, 500), official_boxes=torch.tensor([[45, 49, 499, 162], [1, 1, 500, 375]]))
    # 45*224/500 = 20.16, 49*224/375 = 29.27, 499*224/500 = 223.55, 162*224/375 = 96.77; the full width ends in the last pixel
    assert wsol_boxes(example).tolist() == [[20, 29, 223, 96], [0, 0, 223, 223]]
    with pytest.raises(ValueError, match="x has no boxes"):
        wsol_boxes(Example("x", torch.zeros(3, 2, 2), 0))


def test_collate(drawn):
    dataset = ImageNet(drawn, "train", "squash", 64, 6)
    batch = collate([dataset[i] for i in range(6)])
    assert torch.equal(batch["images"], torch.stack([dataset[i].image for i in range(6)]))
    assert batch["images"].shape == (6, 3, 64, 64)
    assert batch["labels"].tolist() == [dataset.annotations[i].label for i in range(6)]
    assert 0 <= batch["images"].min() < batch["images"].max() <= 1


def test_imagenet_labels_without_val_txt(drawn, tmp_path):
    shutil.copytree(drawn / "ILSVRC2012", tmp_path / "ILSVRC2012")
    with_list = ImageNet(tmp_path)
    (tmp_path / "ILSVRC2012/val.txt").unlink()
    without = ImageNet(tmp_path)
    assert without.ids == with_list.ids
    assert [a.label for a in without.annotations] == [a.label for a in with_list.annotations]
    with (tmp_path / "ILSVRC2012/LOC_val_solution.csv").open() as lines:
        wnid = next(csv.DictReader(lines))["PredictionString"].split()[0]
    assert without.wnids[without.annotations[0].label] == wnid
    assert without.digest() == with_list.digest()
    assert ImageNet(tmp_path, limit=5).digest() != without.digest()


def by_class(drawn, root):
    """The drawn ImageNet with its validation images in folders by class."""
    shutil.copytree(drawn / "ILSVRC2012", root / "ILSVRC2012")
    flat = ImageNet(root)
    for item in flat.annotations:
        folder = item.path.parent / flat.wnids[item.label]
        folder.mkdir(exist_ok=True)
        item.path.rename(folder / item.path.name)
    return flat, root / "ILSVRC2012"


def test_imagenet_validation_images_in_folders_by_class(drawn, tmp_path):
    flat, home = by_class(drawn, tmp_path)
    (home / "val/.ipynb_checkpoints").mkdir()
    assert ImageNet(tmp_path).digest() == ImageNet(drawn).digest()  # in the order of val.txt, with the boxes
    (home / "val.txt").unlink()
    alone = ImageNet(tmp_path)
    assert {i: a.label for i, a in zip(alone.ids, alone.annotations, strict=True)} == {
        i: a.label for i, a in zip(flat.ids, flat.annotations, strict=True)
    }
    assert [a.label for a in alone.annotations] == sorted(a.label for a in flat.annotations)
    (home / "LOC_val_solution.csv").unlink()
    assert ImageNet(tmp_path).ids == alone.ids


def test_imagenet_labels_that_contradict_each_other_are_refused(drawn, tmp_path):
    flat, home = by_class(drawn, tmp_path)
    first, other = flat.annotations[0].label, (flat.annotations[0].label + 1) % len(flat.classes)
    listed = (home / "val.txt").read_text()
    (home / "val.txt").write_text(listed.replace(f"{flat.ids[0]}.JPEG {first}", f"{flat.ids[0]}.JPEG {other}"))
    with pytest.raises(
        DataError, match=rf"{flat.ids[0]}\.JPEG: its label is {other} \(n\d+\), but its folder or boxes say {flat.wnids[first]}"
    ):
        ImageNet(tmp_path)
    (home / "LOC_val_solution.csv").unlink()
    with pytest.raises(DataError, match="its folder or boxes say"):
        ImageNet(tmp_path)


def test_imagenet_without_its_mapping_is_told_by_a_thousand_folders_alone(drawn, tmp_path):
    _, home = by_class(drawn, tmp_path)
    for name in ("LOC_synset_mapping.txt", "val.txt", "LOC_val_solution.csv"):
        (home / name).unlink()
    count = len(list((home / "val").iterdir()))
    with pytest.raises(
        DataError, match=f"val: {count} class folders do not tell which of the 1000 classes they are: put LOC_synset_mapping"
    ):
        ImageNet(tmp_path)
    for number in range(1000 - count):
        (home / f"val/n0{number:07}").mkdir()
    dataset = ImageNet(tmp_path)
    assert (dataset.classes[0], dataset.classes[-1]) == ("tench", "toilet tissue")
    assert min(a.label for a in dataset.annotations) == 1000 - count  # the drawn classes' names begin with n9


def test_stray_lists_are_no_classes_of_voc(drawn, tmp_path):
    shutil.copytree(drawn / "VOCdevkit", tmp_path / "VOCdevkit")
    lists = tmp_path / "VOCdevkit/VOC2007/ImageSets/Main"
    split = (lists / "test.txt").read_text()
    for name in ("train_aug.txt", "trainval_test.txt", "._kite_test.txt", "kite_test_old.txt", "kite_test.txt.bak"):
        (lists / name).write_text((lists / "kite_test.txt").read_text() if "old" in name else split)
    assert VOC2007(tmp_path, "test").classes == village.CLASSES
    shutil.rmtree(lists.parent.parent / "Annotations")
    (lists.parent.parent / "Annotations").mkdir()
    (lists / "test.txt").write_text("000001\n")
    (lists.parent.parent / "JPEGImages/000001.jpg").touch()
    (lists.parent.parent / "Annotations/000001.xml").write_text("<annotation/>")
    for name in OFFICIAL:
        (lists / f"{name}_test.txt").write_text("000001 -1\n")
    assert VOC2007(tmp_path, "test").classes == sorted(OFFICIAL)  # the kite has a list, but the twenty are there


def test_kaggle_folders_and_official_place_of_attribute_names(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "root")
    home = tmp_path / "root/ILSVRC2012"
    (home / "ILSVRC/Data/CLS-LOC").mkdir(parents=True)
    (home / "val").rename(home / "ILSVRC/Data/CLS-LOC/val")
    assert ImageNet(home, "val")[0].image.shape == (3, 224, 224)  # the dataset's own folder is a root as well
    cub = tmp_path / "root/CUB_200_2011"
    names = CUB200(cub).attribute_names
    (cub / "attributes/attributes.txt").rename(cub.parent / "attributes.txt")
    assert CUB200(cub).attribute_names == names
    assert len(names) == 11 * 15 + 5 * 4


def spoil(root: Path) -> list[str]:
    """Damage one file of each dataset in a different way; the names that must be reported."""
    images = sorted((root / "ILSVRC2012/val").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:900])  # cut short
    images[1].write_text("<html>not found</html>")  # an error page under an image's name
    xml = root / "VOCdevkit/VOC2007/Annotations/050002.xml"
    xml.write_text(xml.read_text().replace("<xmax>", "<xmax>9", 1))
    bird = next((root / "CUB_200_2011/images").glob("*/*_50001.jpg"))
    bird.unlink()
    return [images[0].name, images[1].name, "050002.jpg", bird.name]


def test_damaged_data_is_named(drawn, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(drawn, root)
    assert [problems for *_, problems in findings(root, progress=False)] == [[]] * 6
    names = spoil(root)
    imagenet = ImageNet(root, "val")
    with pytest.raises(DataError, match=names[0]):
        imagenet[0]
    assert [any(name in line for line in check(imagenet)) for name in names[:2]] == [True, True]
    assert len(check(imagenet)) == 2
    voc = VOC2007(root, "test", view="original")
    with pytest.raises(DataError, match=r"050002\.jpg: box 0 .* outside the image"):
        voc[voc.ids.index("050002")]
    with pytest.raises(DataError, match=f"{names[3]}: listed or annotated, but the file is missing") as caught:
        CUB200(root, "test")
    assert len(caught.value.problems) == 1
    with pytest.raises(SystemExit) as stopped:
        check_main(["--root", str(root)])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert all(name in said.err for name in names)


def test_the_check_looks_where_cam_data_says_and_names_what_it_saw(drawn, tmp_path, monkeypatch, capsys):
    shutil.copytree(drawn / "CUB_200_2011", tmp_path / "CUB_200_2011")
    monkeypatch.setenv("CAM_DATA", str(tmp_path))
    monkeypatch.delenv("CAM_WEIGHTS", raising=False)
    check_main([])
    said = capsys.readouterr().out
    count = len(CUB200(drawn, "train")) + len(CUB200(drawn, "test"))
    assert f"looking below {tmp_path} (CAM_DATA)" in said
    assert f"{count} images in 2 splits below {tmp_path}: 0 problems" in said
    assert "VOCdevkit/VOC2007: not there, skipped" in said
    check_main(["--root", str(tmp_path / "CUB_200_2011/..")])
    assert "(--root)" in capsys.readouterr().out
    monkeypatch.setenv("CAM_WEIGHTS", str(tmp_path / "nope"))
    with pytest.raises(SystemExit) as stopped:
        check_main([])
    assert stopped.value.code == 1
    assert f"CAM_WEIGHTS is {tmp_path / 'nope'}, which is no folder" in capsys.readouterr().err


def test_bad_annotations_are_named(drawn, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(drawn, root)
    xml = root / "VOCdevkit/VOC2007/Annotations/050001.xml"
    good = xml.read_text()
    xml.write_text(good.replace("<xmin>", "<xmin>999", 1))
    with pytest.raises(DataError, match=r"050001\.xml: box 0 .* has xmin 999"):
        VOC2007(root, "test")
    xml.write_text(good[:300])
    with pytest.raises(DataError, match=r"050001\.xml: cannot be read"):
        VOC2007(root, "test")
    solution = root / "ILSVRC2012/LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace("n90000001", "n00000000", 1))
    with pytest.raises(DataError, match=r"LOC_val_solution\.csv: ILSVRC2012_val_00000001"):
        ImageNet(root)
    splits = root / "CUB_200_2011/train_test_split.txt"
    splits.write_text(splits.read_text() + "777 1\n")
    with pytest.raises(DataError, match="do not list the same images: 1 differ, as 777"):
        CUB200(root)
    for reader, message in ((ImageNet, "LOC_synset_mapping.txt"), (VOC2007, "ImageSets/Main"), (CUB200, "images.txt")):
        with pytest.raises(FileNotFoundError, match=message):
            reader(tmp_path / "nothing")
    with pytest.raises(ValueError, match="unknown split 'vaal'"):
        ImageNet(root, "vaal")
    with pytest.raises(ValueError, match="unknown view 'middle'"):
        VOC2007(root, "test", view="middle")


def test_digest_is_stable_and_notices_an_annotation(drawn, tmp_path):
    first = VOC2007(drawn, "test").digest()
    assert first == VOC2007(drawn, "test", view="crop").digest()
    assert len(bytes.fromhex(first)) == hashlib.sha256().digest_size
    shutil.copytree(drawn / "VOCdevkit", tmp_path / "VOCdevkit")
    xml = tmp_path / "VOCdevkit/VOC2007/Annotations/050001.xml"
    assert VOC2007(tmp_path, "test").digest() == first
    xml.write_text(xml.read_text().replace("<difficult>0", "<difficult>1", 1))
    assert VOC2007(tmp_path, "test").digest() != first


@pytest.fixture(scope="module")
def copy(drawn, tmp_path_factory):
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(drawn, root, dirs_exist_ok=True)
    return root


def last_line(**words):
    """A change of an annotation file: the words at these places of its last line, counted from the end."""
    return lambda text: "\n".join([*text.splitlines()[:-1], " ".join([*text.split("\n")[-2].split()[: words["at"]], words["by"]])])


VOC_NOTES, CUB_HOME = "VOCdevkit/VOC2007/Annotations/050001.xml", "CUB_200_2011"


def read_all(data):
    return [data[i] for i in range(len(data))]


@pytest.mark.parametrize(
    ("reader", "name", "change", "words"),
    [
        (VOC2007, VOC_NOTES, lambda t: t.replace("<xmin>", "<xmin>999", 1), r"050001\.xml: box 0 .* has xmin 999"),
        (VOC2007, VOC_NOTES, lambda t: t.replace("<ymax>", "<ymax>inf", 1), r"050001\.xml: cannot be read \(found 'inf\d+' where a number"),
        (VOC2007, VOC_NOTES, lambda t: t.replace("<ymax>", "<ymax>9", 1), r"050001\.jpg: box 0 .* lies outside the image"),
        (VOC2007, VOC_NOTES, lambda t: '<?xml version="1.0" encoding="none"?>' + t, r"050001\.xml: cannot be read \(unknown encoding"),
        (CUB200, f"{CUB_HOME}/images.txt", lambda t: t + t.splitlines()[0], r"images\.txt: lists 1 more than once"),
        (CUB200, f"{CUB_HOME}/images.txt", lambda t: t.replace(".jpg", "", 1), r"images\.txt: '.*' is no image by its name"),
        (CUB200, f"{CUB_HOME}/image_class_labels.txt", last_line(at=1, by="x"), r"labels\.txt: line 60: found 'x' where a number"),
        (CUB200, f"{CUB_HOME}/image_class_labels.txt", last_line(at=1, by="77"), r"classes\.txt: does not list class 77"),
        (CUB200, f"{CUB_HOME}/bounding_boxes.txt", last_line(at=3, by="0 9"), r"\.jpg: box 0 .* is empty; fix its annotation"),
        (CUB200, f"{CUB_HOME}/bounding_boxes.txt", last_line(at=3, by="-5 9"), r"\.jpg: box 0 .* is empty; fix its annotation"),
        (CUB200, f"{CUB_HOME}/bounding_boxes.txt", last_line(at=1, by="1 2 nan 4"), r"line 60: found 'nan' where a number"),
        (CUB200, f"{CUB_HOME}/parts/part_locs.txt", last_line(at=1, by="16 1 1 1"), r"has a part 16, but parts\.txt lists 15"),
        (ImageNet, "ILSVRC2012/val.txt", last_line(at=1, by="1.5"), r"val\.txt: line \d+: found '1\.5' where a whole number"),
        (ImageNet, "ILSVRC2012/LOC_val_solution.csv", lambda t: t.replace(" ", " x", 1), r"solution\.csv: line 2: found 'x\d+' where a"),
        (ImageNet, "ILSVRC2012/LOC_val_solution.csv", lambda t: t + t.splitlines()[1], r"line \d+: ILSVRC2012_val_\d+1 has a second row"),
        (ImageNet, "ILSVRC2012/LOC_val_solution.csv", lambda t: t.replace("ImageId", "Image"), r"expected 'wnid x0 y0 x1 y1 \.\.\.' in"),
        (ImageNet, "ILSVRC2012/LOC_synset_mapping.txt", lambda t: t + t.splitlines()[0], r"mapping\.txt: lists n\d+ more than once"),
    ],
)  # fmt: skip
def test_each_wrong_annotation_is_one_sentence(copy, reader, name, change, words):
    path = copy / name
    good = path.read_text()
    path.write_text(change(good))
    try:
        with pytest.raises(DataError, match=words) as caught:
            read_all(reader(copy, view="original"))
    finally:
        path.write_text(good)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("encoding", "fine"), [("utf-8-sig", True), ("utf-16", False), ("latin-1", False)])
@pytest.mark.parametrize(("reader", "name"), [(CUB200, f"{CUB_HOME}/classes.txt"), (ImageNet, "ILSVRC2012/LOC_synset_mapping.txt")])
def test_text_in_another_encoding(copy, reader, name, encoding, fine):
    path, before = copy / name, reader(copy).classes
    good = path.read_text()
    path.write_text(good if fine else good.rstrip() + "ü\n", encoding=encoding)
    try:
        if fine:  # as Windows saves it
            assert reader(copy).classes == before
        else:
            with pytest.raises(DataError, match=r"is no text in UTF-8 .* save it again in that encoding"):
                reader(copy)
    finally:
        path.write_text(good)


def test_hidden_files_are_neither_images_nor_classes(copy, recwarn):
    before = [
        reader(copy, split).digest() for reader, split in ((ImageNet, "val"), (ImageNet, "train"), (VOC2007, "test"), (CUB200, "test"))
    ]
    for folder in (
        "ILSVRC2012/val",
        "ILSVRC2012/train",
        "ILSVRC2012/train/n90000001",
        "VOCdevkit/VOC2007/ImageSets/Main",
        CUB_HOME + "/images",
    ):
        for name in (".DS_Store", "._a.JPEG"):
            (copy / folder / name).write_bytes(b"\0")
        (copy / folder / ".ipynb_checkpoints").mkdir()
    (copy / "ILSVRC2012/val.txt").rename(copy / "ILSVRC2012/kept")  # then the folder or the csv lists the images
    after = [
        reader(copy, split).digest() for reader, split in ((ImageNet, "val"), (ImageNet, "train"), (VOC2007, "test"), (CUB200, "test"))
    ]
    (copy / "ILSVRC2012/kept").rename(copy / "ILSVRC2012/val.txt")
    assert after == before
    assert not recwarn


def test_opening_a_data_set_reads_no_image(drawn, monkeypatch):
    def refuse(*_):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)
    for reader, split, _ in READERS:
        assert reader(drawn, split).digest()
    ImageFolder(drawn / "ILSVRC2012", "train").digest()


def test_a_split_that_was_opened_before_is_indexed_again_only_if_a_file_changed(drawn, tmp_path):
    shutil.copytree(drawn / "ILSVRC2012", tmp_path / "ILSVRC2012")
    first, again = ImageNet(tmp_path), ImageNet(tmp_path, view="squash", limit=3)
    assert all(one.boxes is other.boxes for one, other in zip(first.annotations, again.annotations, strict=False))  # not read again
    assert (len(again), len(ImageNet(tmp_path))) == (3, len(first))
    names = tmp_path / "ILSVRC2012/val.txt"
    names.write_text("".join(line + "\n" for line in names.read_text().splitlines()[1:]))
    assert ImageNet(tmp_path).ids == first.ids[1:]
    first.annotations[-1].path.unlink()
    with pytest.raises(DataError, match=f"{first.ids[-1]}.JPEG: listed or annotated, but the file is missing"):
        ImageNet(tmp_path)


def test_what_is_changed_in_one_opened_imagenet_is_not_in_the_next(drawn):
    one = ImageNet(drawn, "val")
    one.annotations[0].boxes = None
    one.ids.pop()
    other = ImageNet(drawn, "val")
    assert other.annotations[0].boxes is not None
    assert len(other.ids) == len(one.ids) + 1
