"""CIFAR-10, CIFAR-100 and STL-10 in their official binary layouts, written by hand: pixels, labels and names, and what trains on them."""

import pickle
import struct

import numpy as np
import pytest
import torch
from torchvision import datasets

from cam_core.data import DataError
from reproduce import jobs, packed, sources
from training import recipes
from training.batches import batches
from training.recipes import LFI_CAM_IMAGENET
from training.store import data_digest

COUNTS = {"train": 6, "test": 4}
FINE = [f"class{number}" for number in range(100)]
STL = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def pixels(count, side):
    """[count,3,side,side]; image n has n in all places but one: red is 200 in row 5, column 9."""
    images = np.empty((count, 3, side, side), np.uint8)
    images[:] = np.arange(count)[:, None, None, None]
    images[:, 0, 5, 9] = 200
    return images


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Both data sets, small; the sums of the official files are not those of these."""
    cifar, stl = tmp_path / "cifar-100-python", tmp_path / "stl10_binary"
    for folder in (cifar, stl):
        folder.mkdir()
    for split, count in COUNTS.items():
        content = {
            "data": pixels(count, 32).reshape(count, -1),
            "fine_labels": [99 - n for n in range(count)],
            "coarse_labels": [0] * count,
        }
        (cifar / split).write_bytes(pickle.dumps(content))
        (stl / f"{split}_X.bin").write_bytes(pixels(count, 96).transpose(0, 1, 3, 2).tobytes())  # column by column
        (stl / f"{split}_y.bin").write_bytes(bytes(10 - n for n in range(count)))  # 1 to 10
    (cifar / "meta").write_bytes(pickle.dumps({"fine_label_names": FINE, "coarse_label_names": []}))
    (stl / "unlabeled_X.bin").write_bytes(b"")
    (stl / "class_names.txt").write_text("\n".join(STL))
    for kind in (datasets.CIFAR100, datasets.STL10):
        for listed in ("train_list", "test_list"):
            monkeypatch.setattr(kind, listed, [[name, None] for name, _ in getattr(kind, listed)])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": None})
    yield tmp_path
    packed._read.cache_clear()


@pytest.mark.parametrize(("dataset", "side", "names"), [("cifar100", 32, FINE), ("stl10", 96, STL)])
def test_pixels_labels_and_names(root, dataset, side, names):
    for split, count in COUNTS.items():
        read = sources.images(dataset, root, split)("original")
        assert (len(read), read.classes, read.ids[:2]) == (count, names, ["00000", "00001"])
        for number in range(count):
            example = read[number]
            expected = torch.full((3, side, side), float(number))
            expected[0, 5, 9] = 200
            torch.testing.assert_close(example.image * 255, expected, rtol=1e-6, atol=0)
            assert (example.label, example.size) == (len(names) - 1 - number, (side, side))
    assert len(sources.images(dataset, root, limit=2)("squash")) == 2
    part = sources.images(dataset, root)("original").part(slice(2, 4))
    assert part[0].image[1, 0, 0] == pytest.approx(2 / 255)
    assert data_digest(part) != data_digest(sources.images(dataset, root)("original"))


def test_what_is_missing_or_another_file_is_said(root, monkeypatch):
    (root / "cifar-100-python/test").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar-100-python: not CIFAR-100 as officially packed .* unpack https"):
        sources.images("cifar100", root)("squash")
    (root / "stl10_binary/class_names.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"class_names\.txt does not exist; unpack http"):
        sources.images("stl10", root)("squash")
    monkeypatch.setattr(datasets.STL10, "test_list", [["test_X.bin", "7f263ba9f9e0b06b93213547f721ac82"]])
    packed._read.cache_clear()
    with pytest.raises(FileNotFoundError, match="not STL-10 as officially packed"):
        sources.images("stl10", root)("squash")


def test_lfi_cam_learns_both_as_published(root, tmp_path):
    """CIFAR-100 by CIFAR-10's recipe and network, STL-10 by Cat & Dog's; both normalised by CIFAR-10's numbers, as released."""
    assert recipes.scratch_recipe("lfi_cam", "cifar100", paper="paper") == recipes.scratch_recipe("lfi_cam", "cifar10", paper="paper")
    stl = recipes.scratch_plan("lfi_cam", "stl10", "resnet18", paper="paper")
    assert stl.recipe.differs_from(LFI_CAM_IMAGENET) == ["crop: 96 instead of 224"]
    assert stl.deviations == recipes.scratch_plan("lfi_cam", "cifar100", "resnext29_8x64d").deviations == ()
    options = {"epochs": 1, "store": tmp_path / "models", "progress": False}
    for dataset, name, stride, images, side in (("cifar100", "resnet8", 1, 50_000, 32), ("stl10", "resnet18", 1, 5000, 96)):
        model, summary = jobs.lfi_cam(dataset, name, root, **options)
        assert model.classifier.trunk.features.conv1.stride == (stride, stride)
        assert model.classifier.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
        assert model.classifier.std.flatten().tolist() == pytest.approx([0.2023, 0.1994, 0.2010])
        assert f"images: 6 instead of {images}" in summary["deviations"]
        assert 0 <= summary["accuracy"] <= 100
        assert sources.images(dataset, root)(sources.source(dataset).view)[0].image.shape == (3, side, side)
    _, batch = next(batches(sources.images("stl10", root, "full")("original"), stl.recipe.shortened(1, batch=4), 0, 0))
    assert batch["images"].shape == (4, 3, 96, 96)


NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def python2(pixels, labels):
    """The pickle of a batch as Python 2 and its NumPy wrote it, opcode by opcode: texts and the array's bytes are plain strings."""
    count = len(labels)
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K" + bytes([count]) + b"M\x00\x0ct"
    array += b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + struct.pack("<I", pixels.nbytes) + pixels.tobytes() + b"tb"
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels](" + b"".join(b"K" + bytes([k]) for k in labels) + b"eu."


def cifar10(root, kind):
    """Three images in each batch, by hand."""
    home = root / f"cifar-10-batches-{kind}"
    home.mkdir()
    for place, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        rows, labels = pixels(3, 32).reshape(3, -1), [place, 9, 0]
        if kind == "bin":
            (home / f"{name}.bin").write_bytes(b"".join(bytes([k]) + row.tobytes() for k, row in zip(labels, rows, strict=True)))
        else:
            (home / name).write_bytes(python2(rows, labels))
    if kind == "bin":
        (home / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    else:
        (home / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES, "num_vis": 3072}))
    return home


@pytest.mark.parametrize("kind", ["bin", "py"])
def test_cifar_10_from_either_official_version(tmp_path, kind):
    home = cifar10(tmp_path, kind)
    train, test = (sources.images("cifar10", tmp_path, split)("original") for split in ("train", "test"))
    assert (len(train), len(test), train.classes, train.deviations) == (15, 3, NAMES, ())
    assert [item.label for item in train.annotations[:4]] == [0, 9, 0, 1]
    image = train[4].image * 255
    assert (image[0, 5, 9], image[1, 5, 9], image[0, 9, 5]) == pytest.approx((200, 1, 1))
    assert sources.coverage("cifar10", test) == {"used": 3, "present": 3, "list": "test", "of": 10_000}
    ending = ".bin" if kind == "bin" else ""
    assert test.annotations[0].path == home / f"test_batch{ending}"
    (home / f"data_batch_3{ending}").write_bytes((home / f"data_batch_3{ending}").read_bytes()[:-9])
    packed._read.cache_clear()
    with pytest.raises(DataError, match=f"data_batch_3{ending}: (has 9210 bytes, expected 3073 an image|refuses to read it)"):
        sources.images("cifar10", tmp_path, "train")("original")
    (home / f"test_batch{ending}").unlink()
    packed._read.cache_clear()
    with pytest.raises(FileNotFoundError, match=rf"test_batch{ending} does not exist; unpack https"):
        sources.images("cifar10", tmp_path)("original")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "evil").touch, ()

    home = cifar10(tmp_path, "py")
    (home / "test_batch").write_bytes(pickle.dumps({"data": Evil(), "labels": []}))
    with pytest.raises(DataError, match=r"test_batch: refuses to read it \(it asks for .*, which is no array\)"):
        sources.images("cifar10", tmp_path)("original")
    assert not (tmp_path / "evil").exists()
