"""Annotation files and images with anything in them: the readers open them, or say in one sentence what is wrong."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cam_core.data import CUB200, VOC2007, DataError, ImageNet
from cam_core.data.example import read_image

FILES = [  # file, reader, how many lines of it are kept
    ("CUB_200_2011/images.txt", CUB200),
    ("CUB_200_2011/image_class_labels.txt", CUB200),
    ("CUB_200_2011/train_test_split.txt", CUB200),
    ("CUB_200_2011/bounding_boxes.txt", CUB200),
    ("CUB_200_2011/classes.txt", CUB200),
    ("CUB_200_2011/parts/parts.txt", CUB200),
    ("CUB_200_2011/parts/part_locs.txt", CUB200),
    ("CUB_200_2011/attributes/attributes.txt", CUB200),
    ("CUB_200_2011/attributes/class_attribute_labels_continuous.txt", CUB200),
    ("ILSVRC2012/val.txt", ImageNet),
    ("ILSVRC2012/LOC_val_solution.csv", ImageNet),
    ("ILSVRC2012/LOC_synset_mapping.txt", ImageNet),
    ("VOCdevkit/VOC2007/Annotations/050001.xml", VOC2007),
    ("VOCdevkit/VOC2007/ImageSets/Main/test.txt", VOC2007),
    ("VOCdevkit/VOC2007/ImageSets/Main/kite_test.txt", VOC2007),
]
ODD = [
    b"",
    b"0",
    b"-1",
    b"1",
    b"nan",
    b"inf",
    b"1e400",
    b"9" * 30,
    b"1_0",
    b"x",
    b".",
    b"..",
    b"/",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b'"',
    b"<",
]
ODD += [b">", b",", b"\n", b"\r", b"\xc2\x85", b'<?xml version="1.0" encoding="none"?>', b"2.5", b"n90000001"]
bounded = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def root(drawn, tmp_path_factory):
    """The drawn sets, the annotations as files of their own and the images as links."""
    root = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(drawn, root, dirs_exist_ok=True, copy_function=_link_images)
    return root


def _link_images(source, target):
    if Path(source).suffix in (".jpg", ".JPEG", ".png"):
        Path(target).symlink_to(Path(source).resolve())
    else:
        shutil.copy(source, target)


def damaged(content, draw):
    """The content with one word, or one stretch, exchanged for something odd; or cut off, or anything at all."""
    start = draw(st.integers(0, len(content)))
    way = draw(st.sampled_from(["word", "stretch", "cut", "anything"]))
    if way == "anything":
        return draw(st.binary(max_size=60))
    if way == "cut":
        return content[:start]
    odd = draw(st.sampled_from(ODD) | st.binary(max_size=5))
    if way == "stretch":
        return content[:start] + odd + content[start + draw(st.integers(0, 40)) :]
    ends = [place for place in (content.find(mark, start + 1) for mark in b" \n<>,") if place > 0]
    begin = max(content.rfind(mark, 0, start) for mark in b" \n<>,") + 1
    return content[:begin] + odd + content[min(ends, default=len(content)) :]


def opened(reader, root, whole=False):
    """One sentence at the most."""
    try:
        data = reader(root)
        for index in range(len(data)) if whole else (0,):
            data[index]
        data.digest()
    except (DataError, FileNotFoundError) as error:
        assert "\n" not in str(error)  # noqa: PT017 - no error is fine, too
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "reader"), FILES, ids=[Path(name).name for name, _ in FILES])
@pytest.mark.filterwarnings("ignore")
def test_annotations_with_anything_in_them(root, name, reader):
    path = root / name
    content = path.read_bytes()

    @bounded
    @given(st.data())
    def with_anything(data):
        path.write_bytes(damaged(content, data.draw))
        opened(reader, root)

    try:
        with_anything()
    finally:
        path.write_bytes(content)
    assert opened(reader, root) == ""


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif", "gif"])
@pytest.mark.filterwarnings("ignore")
def test_images_with_anything_in_them(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    Image.linear_gradient("L").resize((16, 12)).convert("RGB").save(path)
    content = path.read_bytes()

    @bounded
    @given(st.data())
    def with_anything(data):
        path.write_bytes(damaged(content, data.draw))
        try:
            assert read_image(path).mode == "RGB"
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017 - no error is fine, too

    with_anything()
