"""Image folders and the archives they come in."""

import io
import tarfile
import zipfile

import pytest
import torch
from PIL import Image

from cam_core.data import DataError, ImageFolder
from reproduce.archives import archived
from reproduce.sources import middle_square


def jpeg(color, size=(20, 12)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, color).save(content, "JPEG")
    return content.getvalue()


FILES = {
    "train/dogs/b.jpg": jpeg("red"), "train/dogs/a.JPEG": jpeg("blue"), "train/cats/a.jpg": jpeg("green"),
    "train/cats/notes.txt": b"no image", "val/cats/z.jpg": jpeg("white"), "val/dogs/a.jpg": jpeg("black"),
}  # fmt: skip


def write(folder, files=FILES):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zipped(path, files=FILES):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_classes_and_order_are_sorted(tmp_path):
    write(tmp_path)
    train, val = ImageFolder(tmp_path, "train", "original"), ImageFolder(tmp_path, "val", "original")
    assert train.classes == val.classes == ["cats", "dogs"]
    assert train.ids == ["cats_a", "dogs_a", "dogs_b"]
    assert [train[i].label for i in range(3)] == [0, 1, 1]
    assert train[2].image.shape == (3, 12, 20)
    assert train[2].image[:, 6, 10].tolist() == pytest.approx([1, 0, 0], abs=0.02)
    assert len(ImageFolder(tmp_path, "train", limit=2)) == 2
    assert train.digest() != val.digest()


def test_hidden_files_and_folders_are_no_classes_and_no_images(tmp_path, recwarn):
    mess = {
        "train/.ipynb_checkpoints/a.jpg": jpeg("red"),
        "train/cats/._a.jpg": b"\0",
        "val/.Trash/a.jpg": jpeg("red"),
        "train/.DS_Store": b"",
    }
    clean = {name: content for name, content in FILES.items() if not name.endswith("txt")}
    write(tmp_path, clean | mess)
    train, val = ImageFolder(tmp_path, "train"), ImageFolder(tmp_path, "val")
    assert train.classes == val.classes == ["cats", "dogs"]
    assert train.ids == ["cats_a", "dogs_a", "dogs_b"]
    assert not recwarn


def test_images_of_all_endings_are_read_and_what_is_skipped_is_said(tmp_path):
    for ending in ("jpg", "JPEG", "Png", "webp", "BMP", "tif", "TIFF"):
        path = write(tmp_path, {"train/cats/a.txt": b"", "train/cats/deeper/b.jpg": b""}) / f"train/cats/{ending}.{ending}"
        Image.new("RGB", (4, 4), (9, 9, 9)).save(path)
    with pytest.warns(UserWarning, match=r"skips a\.txt and 1 more, no image by its name: images end in \.jpg"):
        dataset = ImageFolder(tmp_path, "train", "original")
    assert dataset.ids == [f"cats_{e}" for e in ("BMP", "JPEG", "Png", "TIFF", "jpg", "tif", "webp")]
    assert all(abs(dataset[i].image * 255 - 9).max() < 2 for i in range(7))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_unpacked_once_into_its_own_folder(tmp_path, kind):
    root, unpacked = tmp_path / "data", tmp_path / "runs/data"
    root.mkdir()
    if kind == "zip":
        archive = zipped(root / "pets.zip")
    else:
        archive = root / "pets.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(write(tmp_path / "loose"), ".")
    dataset = archived(root, "val", "squash", 8, name="pets", unpacked=unpacked)
    assert dataset.ids == ["cats_z", "dogs_a"]
    assert dataset[0].image.shape == (3, 8, 8)
    assert sorted(path.name for path in unpacked.iterdir()) == ["pets"]
    archive.unlink()
    assert len(archived(root, "train", name="pets", unpacked=unpacked)) == 3
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil.jpg", "/tmp/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DataError, match=r"bad\.zip: refuses to unpack .*leads out of its folder"):
        archived(tmp_path, name="bad", unpacked=tmp_path / "out/here")
    assert not list(tmp_path.rglob("evil*"))
    assert not list((tmp_path / "out").rglob("*.*"))


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("train/cats")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(DataError, match="a link"):
        archived(tmp_path, name="bad", unpacked=tmp_path / "out")
    (tmp_path / "cats").symlink_to("/etc")
    with tarfile.open(tmp_path / "worse.tar", "w") as tar:
        tar.add(tmp_path / "cats", "cats")
    with pytest.raises(DataError, match=r"worse\.tar: refuses to unpack .cats., a link"):
        archived(tmp_path, name="worse", unpacked=tmp_path / "out")
    assert not (tmp_path / "out/worse").exists()


def test_another_content_under_a_known_name_is_refused(tmp_path):
    zipped(tmp_path / "Cat-Dog-128.zip")
    with pytest.raises(DataError, match=r"its sha256 is .* expected 70a21c7fda69"):
        archived(tmp_path, name="Cat-Dog-128", unpacked=tmp_path / "out")


def test_a_damaged_archive_leaves_nothing_behind(tmp_path):
    archive = zipped(tmp_path / "pets.zip")
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"pets\.zip: cannot be unpacked"):
        archived(tmp_path, name="pets", unpacked=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nor pets\.zip beside it"):
        archived(tmp_path, name="pets", unpacked=tmp_path / "out")
    write(tmp_path / "pets")
    with pytest.raises(ValueError, match=r"unknown split 'test': .* has train, val"):
        archived(tmp_path, "test", name="pets")
    write(tmp_path / "pets", {"val/birds/a.jpg": jpeg("red")})
    with pytest.raises(DataError, match="birds: a class that train does not have"):
        archived(tmp_path, "val", name="pets")


def test_middle_square(tmp_path):
    write(tmp_path, {"train/cats/a.png": b""})
    picture = Image.new("RGB", (40, 20), "black")
    picture.paste("white", (10, 0, 30, 20))  # exactly the middle
    picture.save(tmp_path / "train/cats/a.png")
    image = ImageFolder(tmp_path, "train", middle_square(20))[0].image
    assert torch.equal(image, torch.ones(3, 20, 20))
    assert ImageFolder(tmp_path, "train", middle_square(10))[0].image.shape == (3, 10, 10)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "test", "classes", "sizes"), [("CIFAR-10-subset", "test", 10, (20_000, 5_000)), ("Cat-Dog-128", "val", 2, (2000, 2000))]
)
def test_real_archives(real, tmp_path, name, test, classes, sizes):
    for split, count in zip(("train", test), sizes, strict=True):
        dataset = archived(real, split, "original", name=name, unpacked=tmp_path)
        assert (len(dataset), len(dataset.classes)) == (count, classes)
        assert min(dataset[0].image.shape[1:]) == (32 if classes == 10 else 128)
        assert len(set(dataset.ids)) == count
