"""OpenImages30k on drawn birds in its layout: the masks as the benchmark's evaluator takes them, and pixel average precision with them."""

import shutil
import zipfile
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

from cam_core.data import CUB200, DataError, OpenImages30k
from cam_core.metrics import PxAP
from data_scripts import check
from data_scripts.get import openimages
from data_scripts.get.command import main
from data_scripts.get.download import download
from reproduce import sources
from tests.data.test_get import serving


@pytest.fixture(scope="module")
def root(drawn, tmp_path_factory):
    """Six birds of three classes. Masks of each: its left and its right half, and the bird grown by eight pixels, which is ignored."""
    root, data = tmp_path_factory.mktemp("open"), CUB200(drawn, "test", view="original")
    for split in ("test", "train"):
        labels, places = [], []
        for number in range(6):
            example, kind = data[number], f"0{number // 2}x"
            name = f"{split}/{kind}/{number}"
            (root / "OpenImages" / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = (example.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            Image.fromarray(pixels).save(root / f"OpenImages/{name}.jpg")
            labels.append(f"{name}.jpg,{number // 2}")
            if split == "train":
                continue
            bird = cv2.resize(255 * example.segmentation.numpy().astype(np.uint8), None, fx=1.5, fy=1.5)  # a mask has its own size
            half = bird.shape[1] // 2
            left, right = bird.copy(), bird.copy()
            left[:, half:] = right[:, :half] = 0
            written = {"left": left, "right": right, "ignore": cv2.dilate(bird, np.ones((17, 17)))}
            for word, mask in written.items():
                Image.fromarray(mask).save(root / f"OpenImages/{name}_{word}.png")
            ignored = f"{name}_ignore.png" if number else ""
            places += [f"{name}.jpg,{name}_left.png,{ignored}", f"{name}.jpg,{name}_right.png,"]
        folder = root / "OpenImages/metadata" / split
        folder.mkdir(parents=True)
        (folder / "class_labels.txt").write_text("\n".join(labels))
        (folder / "localization.txt").write_text("\n".join(places))
    return root


def official(root, number):
    """What the evaluator counts, by OpenCV: 1 object, 0 background, -1 ignored."""

    def read(word):
        path = root / f"OpenImages/test/0{number // 2}x/{number}_{word}.png"
        return cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (224, 224), interpolation=cv2.INTER_NEAREST) > 0.5

    thing = read("left") | read("right")
    return np.where(thing, 1, np.where(read("ignore") & ~thing, -1, 0) if number else 0)


def test_masks_are_those_of_the_official_evaluator(root):
    data = OpenImages30k(root)
    assert (data.classes, data.ids[3], [item.label for item in data.annotations]) == (["00x", "01x", "02x"], "01x/3", [0, 0, 1, 1, 2, 2])
    for number in range(6):
        example, expected = data[number], official(root, number)
        assert example.image.shape == (3, 224, 224)
        assert (example.segmentation.numpy() == (expected == 1)).all()
        assert (PxAP().truth(example, 0).numpy() == expected).all()
        assert (example.ignored is None) == (number == 0)
    original = OpenImages30k(root, view="original")[1]
    assert original.segmentation.shape == original.image.shape[1:] == original.size
    assert original.segmentation.float().mean() == pytest.approx(float((official(root, 1) == 1).mean()), abs=0.01)
    assert OpenImages30k(root, view="crop")[1].ignored.shape == (224, 224)
    train = sources.images("openimages", root, "train")("squash")
    assert (len(train), train[0].segmentation) == (6, None)
    assert sources.coverage("openimages", data)["of"] == 5000


def test_pixel_average_precision_leaves_out_what_is_ignored(root):
    data, rng, metric = OpenImages30k(root), np.random.default_rng(0), PxAP()
    maps = (rng.integers(0, 1000, (2, 224, 224)) + 0.5) / 1000  # in the middle of the evaluator's bins
    metric.record(metric._measure(torch.from_numpy(maps), [metric.truth(data[number], 0) for number in (1, 4)]), range(2))
    truth = np.stack([official(root, number) for number in (1, 4)])
    expected = 100 * average_precision_score(truth[truth >= 0], maps[truth >= 0])
    assert metric.compute() == pytest.approx(expected, rel=1e-9)
    assert abs(100 * average_precision_score(truth.ravel() == 1, maps.ravel()) - expected) > 0.1


def test_what_is_wrong_is_said(root):
    assert [found[1:] for found in check.findings(root, progress=False)] == [(6, []), (6, [])]
    labels, masks = (root / f"OpenImages/metadata/test/{name}.txt" for name in ("class_labels", "localization"))
    good = {path: path.read_text() for path in (labels, masks)}
    for path, text, words in (
        (labels, "test/00x/0.jpg,x", r"class_labels\.txt: line 1: found 'x' where a number is expected"),
        (labels, "test/00x/0.jpg,0\ntest/01x/2.jpg,0", r"line 2: label 0 is 00x and 01x"),
        (labels, "test/00x/0.jpg,1", "its labels are not 0 to 0"),
        (labels, "test/00x/0.jpg 1", r"line 1 has 1 words, expected 2 parted by commas"),
        (masks, "test/00x/0.jpg,test/00x/none.png,", r"none\.png: listed or annotated, but the file is missing"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            OpenImages30k(root)
        path.write_text(good[path])


@pytest.fixture
def published(root, tmp_path, monkeypatch):
    """The drawn set as it is published: files to serve (lists and images), and the archive of the masks, without folders."""
    monkeypatch.setattr(openimages, "COMPLETE", {"test": 6, "train": 6})
    monkeypatch.setattr(openimages, "download", partial(download, pause=0))
    home = root / "OpenImages"
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        for path in home.rglob("*.png"):
            archive.write(path, path.name)
    lists = (home / "metadata/test").glob("*.txt")
    return {path.name: path.read_bytes() for path in (*lists, *home.glob("test/*/*.jpg"))}, str(tmp_path / "masks.zip")


def test_images_come_by_their_ids_and_masks_from_their_archive(root, published, tmp_path):
    files, masks = published
    with serving(files | {"masks": (tmp_path / "masks.zip").read_bytes()}, drop=[50]) as (address, asked):
        options = {"source": f"{address}/{{split}}/{{image}}.jpg", "lists": f"{address}/lists", "progress": False}
        made = openimages.fetch(tmp_path / "root", masks=f"{address}/masks", **options)
        requests = len(asked)
        assert {"/lists/test/class_labels.txt", "/masks", "/test/3.jpg"} < {path for path, *_ in asked}
        assert requests == 2 + 1 + 6 + 1  # one connection broke off
        assert openimages.fetch(tmp_path / "root", masks="elsewhere", **options) == made
        assert len(asked) == requests
    assert OpenImages30k(tmp_path / "root").digest() == OpenImages30k(root).digest()
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["OpenImages"]
    assert f"{address}/masks" in (made / "metadata/test/manifest.json").read_text()
    openimages.fetch(tmp_path / "other", masks=masks, source=str(root / "OpenImages"), lists=str(root / "OpenImages/metadata"))
    assert OpenImages30k(tmp_path / "other").digest() == OpenImages30k(root).digest()
    openimages.fetch(tmp_path / "other", "train", source=str(root / "OpenImages"), lists=str(root / "OpenImages/metadata"))
    assert len(OpenImages30k(tmp_path / "other", "train")) == 6


def test_what_breaks_off_is_gone_on_with(root, published, tmp_path):
    files, masks = published
    lists = str(root / "OpenImages/metadata")
    with serving({name: content for name, content in files.items() if name != "4.jpg"}) as (address, _):
        template = f"{address}/{{split}}/{{image}}.jpg"
        with pytest.raises(DataError, match=r"/test/4\.jpg: the server answers 404 Not Found; give another address"):
            openimages.fetch(tmp_path / "root", source=template, masks=masks, lists=lists, progress=False)
    assert not (tmp_path / "root/OpenImages").exists()
    with serving(files | {"4.jpg": b"<html>log in first</html>"}) as (address, asked):
        template = f"{address}/{{split}}/{{image}}.jpg"
        with pytest.raises(DataError, match=r"test/02x/4\.jpg: cannot be read"):
            openimages.fetch(tmp_path / "root", source=template, masks=masks, lists=lists, progress=False)
        files["4.jpg"] = (root / "OpenImages/test/02x/4.jpg").read_bytes()
    with serving(files) as (address, asked):
        template = f"{address}/{{split}}/{{image}}.jpg"
        openimages.fetch(tmp_path / "root", source=template, masks=masks, lists=lists, progress=False)
    assert [path for path, *_ in asked] == ["/test/4.jpg"]
    assert OpenImages30k(tmp_path / "root").digest() == OpenImages30k(root).digest()


def test_what_cannot_be_fetched_is_one_sentence(root, published, tmp_path, capsys):
    _, masks = published
    home = root / "OpenImages"
    shutil.copytree(home / "metadata/test", tmp_path / "lists/test")
    labels = tmp_path / "lists/test/class_labels.txt"

    def said(**options):
        given = {"source": home, "masks": masks, "lists": home / "metadata"} | options
        words = [word for name, value in given.items() if value for word in (f"--{name}", str(value))]
        with pytest.raises(SystemExit) as stopped:
            main(["openimages30k", "--root", str(tmp_path / "root"), *words])
        assert stopped.value.code == 1
        return capsys.readouterr().err

    assert "openimages30k needs --masks for test: OpenImages30k_eval.zip or" in said(masks=None)
    assert "no such file or folder" in said(masks=tmp_path / "none.zip")
    assert "no such file; --lists is the folder metadata/OpenImages" in said(lists=tmp_path)
    assert "masks.zip: lacks 6 of the 6 files that the lists name, as test/00x/0.jpg" in said(source=masks)
    labels.write_text(labels.read_text().replace("test/00x/0.jpg", "test/../0.jpg"))
    assert "lists 'test/../0.jpg', expected names like test/<class>/<image>.jpg" in said(lists=tmp_path / "lists")
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[1:]))
    assert "has 5 of 6 test images" in said(lists=tmp_path / "lists")
    assert not (tmp_path / "root/OpenImages").exists()
    (tmp_path / "root/OpenImages/test").mkdir(parents=True)
    assert "exists and was not fetched by this command" in said()
