"""Fetching from a server on loopback that serves small archives in the official layout, and misbehaves in every usual way."""

import hashlib
import http.server
import io
import shutil
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

from cam_core.data import CUB200, VOC2007, DataError, ImageFolder, ImageNet
from data_scripts.get import cat_dog, download, sets, unpack, weights
from data_scripts.get.command import main
from data_scripts.get.sets import fetch

CONTENT = bytes(range(256)) * 4000
SUM = {"md5": hashlib.md5(CONTENT).hexdigest()}


@contextmanager
def serving(files, **habits):
    """An address below which ``files`` (name -> bytes) are served, and the list of (name, Range header, status) of what was asked.

    Habits: drop (after so many bytes, one connection after another), ranges=False, tag=None, status, longer (of Content-Length).
    """
    asked, drops = [], list(habits.get("drop", ()))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content, wanted = files.get(self.path.rsplit("/", 1)[-1]), self.headers.get("Range")
            status, start = habits.get("status", 200), 0
            tag = habits.get("tag", '"v1"')
            if content is None:
                status = 404
            elif wanted and habits.get("ranges", True) and self.headers.get("If-Range", tag) == tag and status == 200:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                status = 206 if start < len(content) else 416
            asked.append((self.path, wanted, status))
            self.send_response(status)
            if status == 416:
                self.send_header("Content-Range", f"bytes */{len(content)}")
            if status not in (200, 206):
                self.end_headers()
                return
            body = content[start:]
            if status == 206:
                shift = habits.get("shift", 0)
                self.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
            if tag:
                self.send_header("ETag", tag)
            if habits.get("length", True):
                self.send_header("Content-Length", str(len(body) + habits.get("longer", 0)))
            self.end_headers()
            self.wfile.write(body[: drops.pop(0)] if drops else body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # 0.5 s would pass at each shutdown
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def got(url, path, sums=None, **options):
    download.download(url, path, sums, progress=False, pause=0, **options)
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]  # no parts, no tags
    return path.read_bytes()


def test_a_broken_connection_is_resumed_where_it_broke(tmp_path):
    with serving({"a": CONTENT}, drop=[1000, 5000, 0, 200_000]) as (address, asked):
        assert got(f"{address}/a", tmp_path / "a") == CONTENT
    assert [wanted for _, wanted, _ in asked] == [None, "bytes=1000-", "bytes=6000-", "bytes=6000-", "bytes=206000-"]


@pytest.mark.parametrize("habits", [{"ranges": False}, {"tag": None}])
def test_a_server_that_cannot_resume_is_asked_for_everything_again(tmp_path, habits):
    with serving({"a": CONTENT}, drop=[1000], **habits) as (address, asked):
        assert got(f"{address}/a", tmp_path / "a") == CONTENT
    assert [status for *_, status in asked] == [200, 200]


def test_without_a_version_parts_are_joined_only_under_a_checksum(tmp_path):
    with serving({"a": CONTENT}, drop=[1000], tag=None) as (address, asked):
        assert got(f"{address}/a", tmp_path / "a", SUM) == CONTENT
    assert [status for *_, status in asked] == [200, 206]


def test_what_a_former_call_left_is_gone_on_with_unless_the_file_has_changed(tmp_path):
    with (
        serving({"a": CONTENT}, drop=[7000, 0, 0, 0, 0]) as (address, _),
        pytest.raises(DataError, match=r"the 7000 bytes that came are kept"),
    ):
        got(f"{address}/a", tmp_path / "a", tries=2)
    assert not (tmp_path / "a").exists()
    with serving({"a": CONTENT}) as (address, asked):
        assert got(f"{address}/a", tmp_path / "a") == CONTENT
    assert asked == [("/a", "bytes=7000-", 206)]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/a.part").write_bytes(b"old")
    (tmp_path / "b/a.part.tag").write_text('"v0"')
    with serving({"a": CONTENT}) as (address, asked):
        assert got(f"{address}/a", tmp_path / "b/a") == CONTENT
    assert asked == [("/a", "bytes=3-", 200)]


def test_a_part_that_is_complete_or_too_long(tmp_path):
    for name, left in (("whole", CONTENT), ("longer", CONTENT + b"more")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.part").write_bytes(left)
        (folder / "a.part.tag").write_text('"v1"')
        with serving({"a": CONTENT}) as (address, asked):
            assert got(f"{address}/a", folder / "a", SUM) == CONTENT
        assert [status for *_, status in asked] == ([416] if name == "whole" else [416, 200])


@pytest.mark.parametrize(
    ("habits", "sums", "words"),
    [
        ({"status": 404}, {}, r"the server answers 404 Not Found; give another address or a file with --source"),
        ({"status": 403}, {}, "the server answers 403 Forbidden"),
        ({"status": 503}, {}, r"no connection, or it breaks off \(HTTP Error 503"),
        ({"longer": 10, "tag": None}, {}, r"no connection, or it breaks off \(1024000 of 1024010 bytes came\)"),
        ({}, {"sha256": "00ff"}, "the sha256 is .* expected 00ff: not the published file; it was thrown away"),
        ({"drop": [10], "shift": 5}, {}, "breaks off|asked for those from"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_and_no_file(tmp_path, habits, sums, words):
    with serving({"a": CONTENT}, **habits) as (address, _):
        if "shift" in habits:  # thrown away and fetched from the beginning
            assert got(f"{address}/a", tmp_path / "a") == CONTENT
            return
        with pytest.raises(DataError, match=words) as caught:
            got(f"{address}/a", tmp_path / "a", sums, tries=2)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()
    if sums:
        assert not list(tmp_path.iterdir())


def test_no_server_at_all(tmp_path):
    with pytest.raises(DataError, match=r"no connection, or it breaks off .*Connection refused"):
        got("http://127.0.0.1:9/a", tmp_path / "a", tries=1)


def tarred(folder, *names):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in names:
            tar.add(folder / name, name)
    return content.getvalue()


def served(name, drawn, tmp_path):
    """The drawn set as the official archives have it, with these archives' own checksums."""
    if name == "voc07":
        train = tarred(drawn, "VOCdevkit/VOC2007/ImageSets", "VOCdevkit/VOC2007/Annotations")
        files = {"VOCtrainval_06-Nov-2007.tar": train, "VOCtest_06-Nov-2007.tar": tarred(drawn, "VOCdevkit/VOC2007/JPEGImages")}
    else:
        home = tmp_path / "cub"
        shutil.copytree(drawn / "CUB_200_2011", home / "CUB_200_2011")
        (home / "CUB_200_2011/attributes/attributes.txt").rename(home / "attributes.txt")
        (home / "CUB_200_2011/segmentations").rename(home / "segmentations")
        files = {
            "CUB_200_2011.tgz": tarred(home, "CUB_200_2011", "attributes.txt"),
            "segmentations.tgz": tarred(home, "segmentations"),
        }
    return files


def small(name, files, address, counts):
    of = sets.OFFICIAL[name]
    archives = tuple(replace(a, url=f"{address}/{a.name}", sums={"md5": hashlib.md5(files[a.name]).hexdigest()}) for a in of.archives)
    return replace(of, archives=archives, complete=counts)


@pytest.mark.parametrize(
    ("name", "reader", "counts"), [("voc07", VOC2007, {"trainval": 30, "test": 20}), ("cub200", CUB200, {"train": 40, "test": 20})]
)
def test_archives_in_the_official_layout_become_a_tree_that_is_read(drawn, tmp_path, monkeypatch, name, reader, counts):
    monkeypatch.setattr(sets, "download", partial(download.download, pause=0))
    files = served(name, drawn, tmp_path)
    with serving(files, drop=[3000]) as (address, asked):
        of = small(name, files, address, counts)
        made = fetch(name, tmp_path / "root", of=of, progress=False)
        requests = len(asked)
        assert fetch(name, tmp_path / "root", of=of, progress=False) == made
        assert len(asked) == requests == 3  # one was resumed; what is there is not fetched again
    split = "test"
    assert reader(tmp_path / "root", split).digest() == reader(drawn, split).digest()
    manifest = (made / "manifest.json").read_text()
    assert "published checksum" in manifest
    assert str(counts["test"]) in manifest
    assert {p.name for p in (tmp_path / "root").iterdir()} == {of.place.split("/")[0]}  # no archives, no work folder
    local = tmp_path / "archives"
    local.mkdir()
    for file, content in files.items():
        (local / file).write_bytes(content)
    fetch(name, tmp_path / "other", str(local), of=of)
    assert reader(tmp_path / "other", split).digest() == reader(drawn, split).digest()
    assert len(list(local.iterdir())) == 2  # a file of yours stays


@pytest.mark.parametrize("fault", ["cut", "other", "fewer", "html"])
def test_no_broken_tree(drawn, tmp_path, fault):
    files = served("voc07", drawn, tmp_path)
    first = "VOCtrainval_06-Nov-2007.tar"
    whole = dict(files)
    if fault == "cut":
        files[first] = files[first][:-2000]
    elif fault == "html":
        files[first] = b"<html>log in first</html>"
    elif fault == "other":
        files[first] = tarred(drawn, "CUB_200_2011/images.txt")
    with serving(files) as (address, _):
        of = small("voc07", files if fault != "html" else whole, address, {"trainval": 31 if fault == "fewer" else 30, "test": 20})
        words = {"cut": "cannot be unpacked", "other": "ImageSets|VOC2007", "fewer": "30 of 31 trainval", "html": "not the published file"}[
            fault
        ]
        with pytest.raises((DataError, FileNotFoundError), match=words):
            fetch("voc07", tmp_path / "root", of=of, progress=False)
    assert not (tmp_path / "root/VOCdevkit").exists()
    assert not list((tmp_path / "root/.get").glob("*.tree"))


def test_what_is_there_already_is_not_touched(drawn, tmp_path):
    (tmp_path / "CUB_200_2011").mkdir()
    with pytest.raises(DataError, match="exists and was not fetched by this command"):
        fetch("cub200", tmp_path)


def test_links_devices_and_bombs_are_refused(tmp_path, monkeypatch):
    link = tarfile.TarInfo("a")
    for kind, words in ((tarfile.SYMTYPE, "a link"), (tarfile.LNKTYPE, "a link"), (tarfile.FIFOTYPE, "a device")):
        link.type, link.linkname = kind, "/etc/passwd"
        with tarfile.open(tmp_path / "bad.tar", "w") as tar:
            tar.addfile(link)
        with pytest.raises(DataError, match=f"bad.tar: refuses to unpack 'a', {words}"):
            unpack.unpack(tmp_path / "bad.tar", tmp_path / "out")
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    with pytest.raises(DataError, match="leads out of its folder"):
        unpack.unpack(tmp_path / "bad.tar", tmp_path / "out")
    monkeypatch.setattr(unpack, "SLACK", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    (tmp_path / "zeros").write_bytes(bytes(10_000_000))
    (tmp_path / "bomb.tgz").write_bytes(tarred(tmp_path, "zeros"))
    for name in ("bomb.zip", "bomb.tgz"):
        with pytest.raises(DataError, match=rf"{name}: refuses to unpack more than .* too much for its size"):
            unpack.unpack(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_torchvisions_own_sets_are_held_against_their_checksums(tmp_path):
    (tmp_path / "a/cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "a/cifar-10-batches-py/data_batch_1").write_bytes(b"no pickle")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tarred(tmp_path / "a", "cifar-10-batches-py"))
    with pytest.raises(DataError, match=r"its md5 is .* the published file's is c58f30108f718f92721af3b95e74349a"):
        fetch("cifar10", tmp_path / "root", str(tmp_path / "cifar-10-python.tar.gz"))
    with pytest.raises(DataError, match="not CIFAR10 as officially packed"):
        fetch("cifar10", tmp_path / "root", str(tmp_path), unverified=True)


def test_cats_and_dogs_from_either_archive(tmp_path):
    kaggle, microsoft = tmp_path / "train.zip", tmp_path / "kagglecatsanddogs_5340.zip"
    with zipfile.ZipFile(kaggle, "w") as one, zipfile.ZipFile(microsoft, "w") as other:
        for number in range(5):
            for kind, grey in (("cat", 10), ("dog", 200)):
                content = io.BytesIO()
                Image.new("RGB", (160, 140), (grey, grey, 20 * number)).save(content, "JPEG")
                body = content.getvalue() if (kind, number) != ("dog", 2) else b""  # Microsoft's archive has such
                one.writestr(f"train/{kind}.{number}.jpg", body)
                other.writestr(f"PetImages/{kind.title()}/{number}.jpg", body)
    for archive in (kaggle, microsoft):
        made = cat_dog.cut(str(archive), tmp_path / archive.stem, each=2)
        train, val = ImageFolder(made, "train", "original"), ImageFolder(made, "val", "original")
        assert (train.classes, len(train), len(val)) == (["cats", "dogs"], 4, 4)
        assert not {*train.ids} & {*val.ids}
        assert "dogs_00002" not in train.ids + val.ids
        assert "2.jpg" in (made / "manifest.json").read_text()
        assert train[0].image.shape == (3, 128, 146)
    assert [p.name for p in sorted((tmp_path / "train").rglob("*.jpg"))] == [
        p.name for p in sorted((tmp_path / microsoft.stem).rglob("*.jpg"))
    ]
    with pytest.raises(DataError, match=r"has [45] cats .* 2000 are needed"):
        cat_dog.cut(str(kaggle), tmp_path / "again")
    with pytest.raises(DataError, match="cat_dog needs --source"):
        cat_dog.cut(None, tmp_path)


def test_weights_are_checked_against_their_network(tmp_path, monkeypatch):
    from torchvision.models import squeezenet1_1

    content = io.BytesIO()
    torch.manual_seed(0)
    torch.save(squeezenet1_1().state_dict(), content)
    name = f"squeezenet1_1-{hashlib.sha256(content.getvalue()).hexdigest()[:8]}.pth"
    with serving({name: content.getvalue()}, drop=[10_000]) as (address, _):
        monkeypatch.setattr(weights, "_address", lambda _: f"{address}/{name}")
        weights.fetch(["squeezenet1_1"], tmp_path / "w", progress=False)
        assert [p.name for p in (tmp_path / "w").iterdir()] == [name]
        with pytest.raises(ValueError, match="does not fit the network"):
            weights.fetch(["squeezenet1_1"], tmp_path / "w", classes=10, progress=False)
        weights.fetch(["squeezenet1_1"], tmp_path / "v", str(tmp_path / "w"))
        monkeypatch.setattr(weights, "_address", lambda _: f"{address}/squeezenet1_1-00000000.pth")
        with pytest.raises(DataError, match="answers 404"):
            weights.fetch(["squeezenet1_1"], tmp_path / "x", progress=False)
    monkeypatch.undo()
    with pytest.raises(DataError, match="unknown network 'resnet500'"):
        weights.fetch(["resnet500"], tmp_path)


def test_weights_are_measured_on_request(drawn, tmp_path, monkeypatch, capsys):
    """A network that always answers class 3, on the first hundred drawn validation images."""
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1().state_dict(), tmp_path / "squeezenet1_1.pth")
    monkeypatch.setattr(weights, "load_classifier", lambda *_, **__: lambda images: torch.eye(10)[[3] * len(images)])
    monkeypatch.setenv("CAM_DATA", str(drawn))
    arguments = ["weights", "squeezenet1_1", "--root", str(tmp_path / "w"), "--source", str(tmp_path), "--check"]
    main(arguments)
    labels = [item.label for item in ImageNet(drawn, "val", limit=100).annotations]
    share = 100 * labels.count(3) / len(labels)
    assert f"squeezenet1_1: top-1 {share:.1f} % on the first {len(labels)} validation images" in capsys.readouterr().out
    monkeypatch.delenv("CAM_DATA")
    with pytest.raises(SystemExit):
        main(arguments)
    assert "set CAM_DATA" in capsys.readouterr().err


def test_the_command_says_what_it_did_or_what_is_wrong(drawn, tmp_path, capsys):
    files = served("voc07", drawn, tmp_path)
    (tmp_path / "archives").mkdir()
    for name, content in files.items():
        (tmp_path / "archives" / name).write_bytes(content)
    arguments = ["voc07", "--root", str(tmp_path / "root"), "--source", str(tmp_path / "archives")]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    assert "the published file's is c52e279531787c972589f7e41ab4ae64" in capsys.readouterr().err
    main([*arguments, "--unverified"])
    assert "VOC2007 is complete" in capsys.readouterr().out
    assert "not the published checksum" in (tmp_path / "root/VOCdevkit/VOC2007/manifest.json").read_text()
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "65de6-vp158" in said
    assert "non-commercial" in said
