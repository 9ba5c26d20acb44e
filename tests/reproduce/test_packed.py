"""CIFAR-100 and STL-10 in their official binary layouts, written by hand: pixels, labels and names, and what trains on them."""

import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets

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
