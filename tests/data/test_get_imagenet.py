"""The drawn ImageNet in every layout in which people have the real one, and cut to a subset."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from cam_core.data import DataError, ImageNet
from data_scripts.get import imagenet


@pytest.fixture
def flat(drawn, tmp_path):
    shutil.copytree(drawn / "ILSVRC2012", tmp_path / "copy")
    return tmp_path / "copy"


def facts(root, split="val"):
    data = ImageNet(root, split, view="original")
    return {one: (item.label, item.official_boxes.tolist()) for one, item in zip(data.ids, data.annotations, strict=True)}


def relaid(copy, layout, labels):
    """The copy in another layout, without the lists that this layout does not have."""
    items = [(path, labels.wnids[labels.annotations[labels.ids.index(path.stem)].label]) for path in sorted((copy / "val").iterdir())]
    if layout == "folders":
        for path, wnid in items:
            (copy / "val" / wnid).mkdir(exist_ok=True)
            path.rename(copy / "val" / wnid / path.name)
        (copy / "val.txt").unlink()
    elif layout == "kaggle":
        (copy / "ILSVRC/Data/CLS-LOC").mkdir(parents=True)
        (copy / "val").rename(copy / "ILSVRC/Data/CLS-LOC/val")
        (copy / "val.txt").unlink()
    elif layout == "tar":
        with tarfile.open(copy / "ILSVRC2012_img_val.tar", "w") as tar:
            for path, _ in items:
                tar.add(path, path.name)
        shutil.rmtree(copy / "val")
    elif layout == "parquet":
        rows = [
            {"image": {"bytes": p.read_bytes(), "path": f"{p.stem}_{wnid}.JPEG"}, "label": labels.wnids.index(wnid)} for p, wnid in items
        ]
        (copy / "data").mkdir()
        pq.write_table(pa.Table.from_pylist(rows), copy / "data/validation-00000-of-00001.parquet")
        shutil.rmtree(copy / "val")
        (copy / "val.txt").unlink()


@pytest.mark.parametrize("layout", ["flat", "folders", "kaggle", "tar", "parquet"])
@pytest.mark.parametrize("how", ["link", "copy"])
def test_every_layout_becomes_the_same_data_set(drawn, flat, tmp_path, layout, how):
    relaid(flat, layout, ImageNet(drawn))
    if how == "link" and layout in ("tar", "parquet"):
        with pytest.raises(DataError, match="lies in an archive, which cannot be linked to"):
            imagenet.cut(str(flat), tmp_path / "root", how=how, progress=False)
        assert not (tmp_path / "root/ILSVRC2012").exists()
        return
    made = imagenet.cut(str(flat), tmp_path / "root", how=how, progress=False)
    assert facts(tmp_path / "root") == facts(drawn)
    assert ImageNet(tmp_path / "root").classes == ImageNet(drawn).classes
    assert all(path.is_symlink() == (how == "link") for path in (made / "val").iterdir())
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"ILSVRC2012"}


def test_the_training_tar_of_tars(drawn, tmp_path):
    source = tmp_path / "copy"
    source.mkdir()
    with tarfile.open(source / "ILSVRC2012_img_train.tar", "w") as outer:
        for folder in sorted((drawn / "ILSVRC2012/train").iterdir()):
            with tarfile.open(tmp_path / f"{folder.name}.tar", "w") as inner:
                for path in sorted(folder.iterdir()):
                    inner.add(path, path.name)
            outer.add(tmp_path / f"{folder.name}.tar", f"{folder.name}.tar")
    for name in ("LOC_synset_mapping.txt", "LOC_train_solution.csv"):
        shutil.copy(drawn / "ILSVRC2012" / name, source / name)
    imagenet.cut(str(source / "ILSVRC2012_img_train.tar"), tmp_path / "root", "train", progress=False)
    assert facts(tmp_path / "root", "train") == facts(drawn, "train")


def test_a_subset_by_list_resized_with_its_boxes(drawn, flat, tmp_path):
    ids = ImageNet(drawn).ids[3:9]
    (tmp_path / "list.txt").write_text("".join(f"{one}.JPEG 0\n" for one in ids))
    imagenet.cut(str(flat), tmp_path / "root", subset=str(tmp_path / "list.txt"), how="resize", side=64, progress=False)
    small, large = (ImageNet(root, "val", view="original") for root in (tmp_path / "root", drawn))
    assert small.ids == ids
    for one, example in zip(ids, map(small.__getitem__, range(6)), strict=True):
        full = large[large.ids.index(one)]
        assert min(example.size) == 64
        scale = example.size[0] / full.size[0]
        assert np.abs(example.boxes.numpy() - full.boxes.numpy() * scale).max() <= 1.5
        assert example.label == full.label
    with (tmp_path / "list.txt").open("a") as lines:
        lines.write("ILSVRC2012_val_00050000.JPEG\n")
    with pytest.raises(DataError, match=r"has 6 of the 7 images of .*list\.txt; pass --allow-partial"):
        imagenet.cut(str(flat), tmp_path / "other", subset=str(tmp_path / "list.txt"), progress=False)
    made = imagenet.cut(str(flat), tmp_path / "other", subset=str(tmp_path / "list.txt"), allow_partial=True, progress=False)
    assert '"of": 7' in (made / "manifest.json").read_text()


def devkit(copy, labels, wnids):
    """A devkit that numbers the classes in another order than the alphabet, with its truth; the ids by wnid."""
    order = sorted(wnids, reverse=True)
    ids = {wnid: number for number, wnid in enumerate(order, start=1)}
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(ids[wnid], wnid, f"name of {wnid}", 0) for wnid in order] + [(len(order) + 1, "n00001740", "entity", 3)]
    folder = copy / imagenet.DEVKIT / "data"
    folder.mkdir(parents=True)
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{ids[wnids[label]]}\n" for label in labels))
    return ids


def test_the_devkit_gives_labels_in_the_alphabetical_order(drawn, flat, tmp_path):
    data = ImageNet(drawn)
    labels = [item.label for item in data.annotations]
    assert data.ids == [f"ILSVRC2012_val_{number:08}" for number in range(1, len(labels) + 1)]
    ids = devkit(flat, labels, data.wnids)
    assert [ids[wnid] for wnid in data.wnids] != list(range(1, len(ids) + 1))
    for name in ("LOC_synset_mapping.txt", "LOC_val_solution.csv", "val.txt"):
        (flat / name).unlink()
    with tarfile.open(flat / f"{imagenet.DEVKIT}.tar.gz", "w:gz") as tar:
        tar.add(flat / imagenet.DEVKIT, imagenet.DEVKIT)
    shutil.rmtree(flat / imagenet.DEVKIT)
    imagenet.cut(str(flat), tmp_path / "root", progress=False)
    made = ImageNet(tmp_path / "root")
    assert ([item.label for item in made.annotations], made.wnids) == (labels, data.wnids)
    assert made.classes[0] == f"name of {data.wnids[0]}"


@pytest.mark.real_data
def test_the_devkits_numbers_of_the_first_images_are_their_classes(cam_data):
    """The devkit's map_clsloc.txt beside Kaggle's list of classes, for the first ten validation images."""
    classes = "490 n01751748 361 n09193705 171 n02105855 822 n04263257 297 n03125729 482 n01735189 13 n02346627 704 n02776631 599 n03794056"
    words = f"{classes} 164 n02328150".split()
    wnids = [line.split()[0] for line in (cam_data / "ILSVRC2012/LOC_synset_mapping.txt").read_text().splitlines()]
    assert [str(number) for number in imagenet.FIRST["devkit"]] == words[::2]
    assert [wnids[label] for label in imagenet.FIRST["alphabetical"]] == words[1::2]


def test_the_order_of_a_list_is_told_by_the_first_images():
    names = [f"ILSVRC2012_val_{number:08}" for number in range(1, 11)]
    official, numbered = imagenet.FIRST["alphabetical"], imagenet.FIRST["devkit"]
    assert imagenet.order_of(dict(zip(names, official, strict=True))) == "alphabetical"
    assert imagenet.order_of(dict(zip(names[4:6], numbered[4:6], strict=True))) == "devkit"
    assert imagenet.order_of({names[3]: official[3] + 1}) == "from one"
    assert imagenet.order_of({"ILSVRC2012_val_00000999": 1000}) == "from one"
    assert imagenet.order_of({"ILSVRC2012_val_00000999": 5}) == "unknown"
    assert imagenet.order_of({names[0]: 7}) == "permuted"


def test_a_list_by_the_devkit_s_ids_is_known_by_the_devkit(drawn, flat, tmp_path):
    data = ImageNet(drawn)
    labels = [item.label for item in data.annotations]
    ids = devkit(flat, labels, data.wnids)
    rows = [f"{one}.JPEG {ids[data.wnids[label]]}" for one, label in zip(data.ids, labels, strict=True)]
    (flat / "val.txt").write_text("\n".join(rows))
    (flat / "LOC_val_solution.csv").unlink()
    wnids = [f"n0{k:07}" for k in range(1000 - len(data.wnids))] + data.wnids  # a thousand, so that the order is looked at
    (flat / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} a\n" for wnid in wnids))
    imagenet.cut(str(flat), tmp_path / "root", progress=False)
    made = ImageNet(tmp_path / "root")
    assert [made.wnids[item.label] for item in made.annotations] == [data.wnids[label] for label in labels]
    shutil.rmtree(flat / imagenet.DEVKIT)
    with pytest.raises(
        DataError, match=r"val\.txt: its labels follow another order of the classes, not the alphabetical order; put ILSVRC"
    ):
        imagenet.cut(str(flat), tmp_path / "other", progress=False)


def test_a_manifest_names_a_source_that_can_be_followed_from_anywhere(drawn, flat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.txt").write_text(ImageNet(drawn).ids[0])
    made = imagenet.cut("copy", Path("root"), subset="few.txt", progress=False)
    told = json.loads((made / "manifest.json").read_text())
    assert (told["source"], told["subset"]) == (str(tmp_path / "copy"), {"name": str(tmp_path / "few.txt"), "present": 1, "of": 1})


@pytest.mark.real_data
def test_real_labels_are_in_the_alphabetical_order(real):
    rows = [line.split(",") for line in (real / "ILSVRC2012/wsolevaluation/test/class_labels.txt").read_text().split()]
    labels = {name[4:-5]: int(label) for name, label in rows}
    assert tuple(labels[f"ILSVRC2012_val_{n:08}"] for n in range(1, 11)) == imagenet.FIRST["alphabetical"]
    assert imagenet.order_of(labels) == "alphabetical"


def spoiled(copy, how):
    if how == "no labels":
        for name in ("LOC_val_solution.csv", "val.txt"):
            (copy / name).unlink()
    elif how == "contradiction":
        lines = (copy / "val.txt").read_text().splitlines()
        name, label = lines[0].split()
        (copy / "val.txt").write_text("\n".join([f"{name} {(int(label) + 1) % 10}", *lines[1:]]))
    elif how == "no classes":
        (copy / "LOC_synset_mapping.txt").unlink()
    elif how == "order":
        lines = (copy / "LOC_synset_mapping.txt").read_text().splitlines()
        (copy / "LOC_synset_mapping.txt").write_text("\n".join(reversed(lines)))
    elif how == "cut tar":
        with tarfile.open(copy / "ILSVRC2012_img_val.tar", "w") as tar:
            tar.add(copy / "val", "val")
        shutil.rmtree(copy / "val")
        (copy / "ILSVRC2012_img_val.tar").write_bytes((copy / "ILSVRC2012_img_val.tar").read_bytes()[:20_000])
    elif how == "nothing":
        shutil.rmtree(copy / "val")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no labels", r"nothing says the class of ILSVRC2012_val_00000001; add LOC_val_solution\.csv"),
        ("contradiction", r"LOC_val_solution\.csv: ILSVRC2012_val_00000001 is a n9\d+, but another list says n9\d+"),
        ("no classes", r"nothing names its classes; put Kaggle's LOC_synset_mapping\.txt"),
        ("order", "its classes are not in alphabetical order"),
        ("cut tar", r"ILSVRC2012_img_val\.tar: cannot be read"),
        ("nothing", "holds no image of val"),
    ],
)
def test_what_is_wrong_with_a_copy_is_said_and_leaves_nothing(flat, tmp_path, how, words):
    spoiled(flat, how)
    with pytest.raises(DataError, match=words):
        imagenet.cut(str(flat), tmp_path / "root", progress=False)
    assert not (tmp_path / "root").exists() or not list((tmp_path / "root").iterdir())


def test_what_was_cut_is_not_overwritten_and_a_source_is_needed(flat, tmp_path):
    imagenet.cut(str(flat), tmp_path / "root", progress=False)
    with pytest.raises(DataError, match="exists; give another --root"):
        imagenet.cut(str(flat), tmp_path / "root", progress=False)
    with pytest.raises(DataError, match="imagenet needs --source"):
        imagenet.cut(None, tmp_path / "other")


def test_images_of_other_kinds_are_resized_to_jpeg(flat, tmp_path):
    path = sorted((flat / "val").iterdir())[0]
    content = io.BytesIO()
    Image.open(path).convert("CMYK").save(content, "JPEG")  # ImageNet has such
    path.write_bytes(content.getvalue())
    imagenet.cut(str(flat), tmp_path / "root", how="resize", side=32, progress=False)
    with Image.open(tmp_path / "root/ILSVRC2012/val" / path.name) as image:
        assert (image.mode, min(image.size)) == ("RGB", 32)
