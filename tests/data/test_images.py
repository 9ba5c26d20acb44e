"""Files of every kind of pixel come out as the RGB image that a viewer shows."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cam_core.data import ImageNet, example
from cam_core.data.example import DataError, read_image

RAMP = np.linspace(0, 1, 256)[None].repeat(8, 0)
EIGHT = np.arange(256)


def tiff(path, values, code):
    """An uncompressed grey TIFF, written by hand: Pillow writes no unsigned 32-bit integers and no signed 16-bit ones."""
    content = values.tobytes()
    tags = [(256, values.shape[1]), (257, values.shape[0]), (258, 8 * values.itemsize), (259, 1), (262, 1)]
    tags += [(273, 8 + 2 + 12 * 9 + 4), (277, 1), (279, len(content)), (339, code)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + content)
    return path


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("kind", "white", "code"),
    [("uint16", 2**16 - 1, 1), ("int16", 2**15 - 1, 2), ("uint32", 2**32 - 1, 1), ("int32", 2**31 - 1, 2), ("float32", 1, 3)],
)
def test_wide_values_are_scaled_by_the_range_of_their_type(tmp_path, kind, white, code):
    ramp = np.asarray(read_image(tiff(tmp_path / "a.tif", (RAMP * white).astype(kind), code)))
    assert (ramp == EIGHT[None, :, None]).all()


def test_sixteen_bit_png(tmp_path):
    ramp = read_image(saved(tmp_path / "a.png", Image.fromarray((RAMP * 65535).astype("uint16"))))
    assert (np.asarray(ramp) == EIGHT[None, :, None]).all()


@pytest.mark.parametrize(
    ("kind", "code", "values", "words"),
    [
        ("float32", 3, (0, 255), "from 0 to 255, where 0 is black and 1 white"),
        ("float32", 3, (-0.5, 0.5), "from -0.5 to 0.5"),
        ("float32", 3, (0, np.nan), "nan"),
        ("int32", 2, (-3, 5), "from -3 to 5"),
        ("int32", 2, (0, 255), "from 0 to 255, where 0 is black and 2.14748e"),  # scaled it would be black
    ],
)
def test_values_that_do_not_fill_their_range_are_refused_with_it(tmp_path, kind, code, values, words):
    path = tiff(tmp_path / "a.tif", np.array([values], dtype=kind), code)
    with pytest.raises(DataError, match=r"a\.tif: its values reach from .* white: scale them") as caught:
        read_image(path)
    assert words in str(caught.value)


def test_what_is_transparent_lies_on_white(tmp_path):
    grey, clear = Image.new("L", (4, 4), 40), Image.new("L", (4, 4), 0)
    half = Image.merge("LA", [grey, clear])
    half.paste((40, 255), (0, 0, 2, 4))
    expected = [40, 40, 255, 255]
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([40, 40, 40, 90, 90, 90])
    palette.paste(0, (0, 0, 2, 4))
    for path in (
        saved(tmp_path / "grey.png", half),
        saved(tmp_path / "colour.png", half.convert("RGBA")),
        saved(tmp_path / "palette.png", palette, transparency=1),
    ):
        assert np.asarray(read_image(path))[0, :, 0].tolist() == expected
        assert np.asarray(read_image(path, behind=None))[0, :2, 0].tolist() == [40, 40]
    assert np.asarray(read_image(tmp_path / "grey.png", behind=None))[0, :, 0].tolist() == [40, 40, 40, 40]


def test_one_bit_and_four_colours_of_print(tmp_path):
    line = Image.fromarray(RAMP > 0.5)
    assert (np.asarray(read_image(saved(tmp_path / "a.png", line))) == 255 * (RAMP > 0.5)[..., None]).all()
    printed = read_image(saved(tmp_path / "b.tif", Image.new("CMYK", (4, 4), (0, 255, 255, 0))))
    assert printed.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_a_photograph_is_turned_only_where_asked(tmp_path, ending):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 10, 20))  # the left edge as stored is the top of the photograph
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / f"a.{ending}", image, exif=exif)
    stored, upright = read_image(path), read_image(path, upright=True)
    assert (stored.size, upright.size) == ((40, 20), (20, 40))
    assert stored.getpixel((2, 10)) > (200, 200, 200) > stored.getpixel((30, 10))
    assert upright.getpixel((10, 2)) > (200, 200, 200) > upright.getpixel((10, 30))


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match=r"a\.jpg: no such file"):
        read_image(tmp_path / "a.jpg")


def test_grey_palette_and_the_smallest_image(tmp_path):
    for ending in ("png", "jpg", "webp", "bmp", "tif"):
        assert read_image(saved(tmp_path / f"grey.{ending}", Image.new("L", (3, 2), 90))).getpixel((2, 1)) == (90, 90, 90)
        assert read_image(saved(tmp_path / f"one.{ending.upper()}", Image.new("RGB", (1, 1), (90, 90, 90)))).size == (1, 1)
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    for ending in ("png", "bmp", "tif"):
        assert read_image(saved(tmp_path / f"palette.{ending}", palette)).getpixel((0, 0)) == (200, 100, 50)


def test_four_colours_of_print_in_a_jpeg_as_imagenet_has_them(tmp_path):
    red = read_image(saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)).getpixel((4, 4))
    assert red == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif"])
def test_an_empty_or_a_truncated_file_is_named(tmp_path, ending):
    whole = saved(tmp_path / f"whole.{ending}", Image.linear_gradient("L").convert("RGB")).read_bytes()
    for name, content in (("empty", b""), ("cut", whole[: len(whole) * 2 // 3])):
        path = tmp_path / f"{name}.{ending}"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.{ending}: cannot be decoded \(.+\); fetch the file again"):
            read_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_hundred_megapixels_are_read_and_two_hundred_refused(tmp_path):
    image = read_image(saved(tmp_path / "a.tif", Image.new("1", (10_000, 10_000), 1), compression="group4"))
    assert (image.size, image.getpixel((9_999, 9_999))) == ((10_000, 10_000), (255, 255, 255))
    head = b"IHDR" + struct.pack(">II5B", 20_000, 10_000, 1, 0, 0, 0, 0)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\r" + head + struct.pack(">I", zlib.crc32(head)) + b"\0\0\0\0IDAT")
    with pytest.raises(DataError, match=r"b\.png: is too large for Pillow \(.*200000000 pixels.*\); scale it down"):
        read_image(tmp_path / "b.png")


@pytest.fixture
def both(monkeypatch, tmp_path):
    """What `read_image` gives for the bytes of a file with simplejpeg, what it gives without, and whether simplejpeg decoded it."""
    pytest.importorskip("simplejpeg", reason="simplejpeg is not installed (cam-core[fast]): its pixels were NOT compared with Pillow's")

    def seen(path, **options):
        try:
            image = read_image(path, **options)
            return image.mode, image.size, image.tobytes()
        except DataError as error:
            return str(error)

    def compared(content, name="a.jpg", **options):
        path = tmp_path / name
        path.write_bytes(content)
        ours, sooner = seen(path, **options), example._sooner(path) is not None
        with monkeypatch.context() as patch:
            patch.setattr(example, "simplejpeg", None)
            assert example._sooner(path) is None
            return ours, seen(path, **options), sooner

    return compared


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (19, 37, 3), dtype=np.uint8))


@pytest.mark.parametrize("progressive", [False, True])
def test_simplejpeg_gives_the_pixels_of_pillow(both, progressive):
    images = [
        jpeg(NOISE, subsampling=kind, quality=q, progressive=progressive) for kind in ("4:4:4", "4:2:2", "4:2:0", "4:1:1") for q in (40, 95)
    ]
    images += [jpeg(NOISE.convert("L"), progressive=progressive), jpeg(NOISE, keep_rgb=True, progressive=progressive)]
    images += [jpeg(NOISE.resize((1, 1)), progressive=progressive), jpeg(NOISE, restart_marker_blocks=2, progressive=progressive)]
    for content in images:
        ours, theirs, sooner = both(content, "a.JPEG")
        assert sooner
        assert ours == theirs


def test_pillow_reads_what_is_no_ordinary_jpeg(both):
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, content, options in (
        ("a.jpg", jpeg(NOISE.convert("CMYK")), {}),
        ("a.png", jpeg(NOISE), {}),  # a JPEG by its content alone
        ("b.jpg", jpeg(NOISE)[:-100], {}),
        ("c.jpg", b"", {}),
        ("d.jpg", jpeg(NOISE, exif=turned), {"upright": True}),
    ):
        ours, theirs, sooner = both(content, name, **options)
        assert ours == theirs
        assert options or not sooner


def test_of_a_damaged_file_come_the_same_pixels_or_the_same_words(both):
    exif, dice = Image.Exif(), random.Random(0)
    exif[0x010E] = "words"
    files = [jpeg(NOISE, progressive=progressive, exif=exif, dpi=(72, 72), comment="words") for progressive in (False, True)]
    count = dict.fromkeys((True, False), 0)
    for number in range(400):
        content = bytearray(files[number % 2])
        for _ in range(dice.randint(1, 3)):
            content[dice.randrange(len(content))] = dice.choice([0, 255, dice.randrange(256)])
        ours, theirs, sooner = both(bytes(content[: dice.randrange(len(content))] if number % 5 == 0 else content))
        assert ours == theirs
        count[sooner] += 1
    assert min(count.values()) > 50


@pytest.mark.real_data
def test_real_photographs_have_the_same_pixels(both, cam_data):
    for item in ImageNet(cam_data, "val", limit=40).annotations:
        ours, theirs, _ = both(item.path.read_bytes())
        assert ours == theirs
