"""Every form of image file against Pillow, every orientation of EXIF, and what is said of those that cannot be read."""

from __future__ import annotations

import io
import re

import image_zoo
import numpy as np
import pytest
import tensorflow as tf
from image_zoo import HEIGHT, WIDTH, as_seen, encoded, exif, picture, with_segment
from PIL import Image, ImageOps

from crl_tf.datasets.images import decode as decoding
from crl_tf.datasets.images.decode import decode, decode_images, fault, read_header, read_images

READABLE, UNREADABLE = image_zoo.readable(), image_zoo.unreadable()

# The decoders of JPEG differ in how they interpolate colours, of which there are half as many; a 1 x 1 has only rounding.
TOLERANCE = {"jpg": (16, 2.5), "webp": (0, 0), "png": (0, 0), "gif": (0, 0), "bmp": (0, 0)}


@tf.function
def in_graph(content):
    return decode(content, (HEIGHT, WIDTH))


def read(*paths):
    """As the pipeline does, inside a map."""
    batches = tf.data.Dataset.from_tensors([str(path) for path in paths]).map(lambda some: read_images(some, (8, 8)))
    return next(iter(batches)).numpy()


@pytest.mark.parametrize("name", READABLE)
def test_pixels_are_those_that_pillow_sees(name):
    content = READABLE[name]
    image = in_graph(tf.constant(content)).numpy()
    assert image.dtype == np.uint8 and fault(content, (8, 8)) is None
    if name == "16 bits.png":  # Pillow 13 clips these at 255
        expected = np.repeat((np.asarray(Image.open(io.BytesIO(content))) >> 8)[..., None], 3, axis=2).astype(int)
        assert expected.max() > 150
    else:
        expected = as_seen(content)
    assert image.shape == expected.shape
    largest, mean = TOLERANCE[name.rsplit(".")[-1]]
    difference = np.abs(image - expected)
    assert difference.max() <= largest and difference.mean() <= mean
    assert read_header(content).upright_size == image.shape[:2]


def test_alpha_is_dropped_not_blended():
    """As Pillow's convert("RGB") and the decoders of whoever asks a served model: training sees the same."""
    for form in ("PNG", "WEBP"):
        content = encoded(image_zoo.with_alpha(picture()), form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
        np.testing.assert_array_equal(decode(tf.constant(content), (8, 8)), np.asarray(picture()))


def test_cmyk_without_adobes_mark_is_not_inverted():
    cmyk = Image.new("CMYK", (16, 16), (255, 51, 0, 51))
    inverted = encoded(cmyk, "JPEG", quality=100)
    at = inverted.index(b"\xff\xee")
    assert inverted[at + 4 : at + 9] == b"Adobe"
    plain = inverted[:at] + inverted[at + 16 :]
    # (1 - c)(1 - k): what is there without Adobe's mark is 255 minus it.
    for content, (c, m, y, k) in ((inverted, (255, 51, 0, 51)), (plain, (0, 204, 255, 204))):
        expected = [(255 - v) * (255 - k) / 255 for v in (c, m, y)]
        np.testing.assert_allclose(decode(tf.constant(content), (16, 16))[8, 8], expected, atol=3)
    reduced = encoded(cmyk.resize((400, 400)), "JPEG", quality=100)
    assert decode(tf.constant(reduced), (16, 16)).shape == (50, 50, 3)
    np.testing.assert_allclose(decode(tf.constant(reduced), (16, 16))[25, 25], [0, 163.2, 204], atol=3)


# Where EXIF lies in the file, and how it is written.
@pytest.mark.parametrize("layout", ["little", "big", "long", "behind JFIF", "behind ICC", "large"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_turned_as_by_pillow(orientation, layout):
    jpeg = encoded(picture(90, 160), "JPEG", quality=95)
    body = exif(orientation, "<" if layout == "little" else ">", 4 if layout == "long" else 3)
    if layout == "behind ICC":
        jpeg = with_segment(jpeg, 0xE2, b"ICC_PROFILE\0\1\1" + bytes(3000), at=20)
        jpeg = with_segment(jpeg, 0xE1, body, at=20 + 3018)
    else:
        jpeg = with_segment(jpeg, 0xE1, body, at=20 if layout == "behind JFIF" else 2)
    if layout == "large":
        jpeg = jpeg[:-2] + bytes(200_000) + jpeg[-2:]
    seen = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg)))
    assert seen.size == ((90, 160) if orientation > 4 else (160, 90))
    image = decode(tf.constant(jpeg), (200, 200)).numpy()
    largest, mean = TOLERANCE["jpg"]
    difference = np.abs(image - np.asarray(seen).astype(int))
    assert difference.max() <= largest and difference.mean() <= mean
    # Any other orientation is farther off than that.
    others = [
        ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg.replace(body, exif(o))))) for o in range(1, 9) if o != orientation
    ]
    for other in (np.asarray(o).astype(int) for o in others):
        assert other.shape != image.shape or np.abs(image - other).mean() > 5 * mean


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_at_a_reduced_scale_and_with_sides_that_differ(orientation):
    """Decoded smaller, turned, resized: near to what Pillow makes of the upright picture, whichever side is longer."""
    jpeg = with_segment(encoded(picture(240, 400), "JPEG", quality=95), 0xE1, exif(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg)))
    size = (20, 50)
    # 3.5, 7 and 14 times the wanted sides: an upright height of 240 and width of 400 give 1/4; 400 and 240 give 1/2.
    ratio = 2 if orientation > 4 else 4
    assert decode(tf.constant(jpeg), size).shape == (upright.height // ratio, upright.width // ratio, 3)
    (image,) = decode_images(tf.constant([jpeg]), tf.constant(["a"]), size).numpy().astype(int)
    expected = np.asarray(upright.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(image - expected).mean() < 2 and np.abs(image - expected).max() < 20


@pytest.mark.parametrize(
    "body",
    [exif(0), exif(9), exif(6)[:20], b"Exif\0\0", b"Exif\0\0XX\0*" + bytes(30), exif(6).replace(b"Exif", b"Exit"), exif(6)[:14]],
)
def test_nonsense_in_exif_is_upright(body):
    jpeg = encoded(picture(), "JPEG", quality=95)
    same = decode(tf.constant(with_segment(jpeg, 0xE1, body)), (HEIGHT, WIDTH)).numpy()
    np.testing.assert_array_equal(same, decode(tf.constant(jpeg), (HEIGHT, WIDTH)))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_that_pillow_writes_turns_images_of_every_form(form, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    content = encoded(picture(90, 160), form, exif=tags, **({"lossless": True} if form == "WEBP" else {}))
    image = decode(tf.constant(content), (200, 200)).numpy()
    seen = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content)))).astype(int)
    assert image.shape == seen.shape and read_header(content).upright_size == image.shape[:2]
    largest, mean = TOLERANCE["jpg" if form == "JPEG" else "png"]
    assert np.abs(image - seen).max() <= largest and np.abs(image - seen).mean() <= mean


def test_python_is_called_only_for_what_the_graph_cannot_decide(monkeypatch):
    called = []
    for name in ("_branch_by_header", "_decode_in_python"):
        function = getattr(decoding, name)
        monkeypatch.setattr(decoding, name, lambda *a, name=name, function=function: called.append(name) or function(*a))
    jpeg = encoded(picture(), "JPEG")
    upright, turned = (with_segment(jpeg, 0xE1, exif(orientation)) for orientation in (1, 6))
    profile = with_segment(jpeg, 0xE2, b"ICC_PROFILE\0\1\1" + bytes(3000), at=20)
    expected = {
        jpeg: [],
        profile: [],
        READABLE["colours.png"]: [],
        upright: ["_branch_by_header"],
        turned: ["_branch_by_header", "_decode_in_python"],
        READABLE["film.gif"]: ["_decode_in_python"],
        READABLE["lossy.webp"]: ["_decode_in_python"],
    }
    for content, names in expected.items():
        called.clear()
        decode(tf.constant(content), (8, 8))
        assert called == names


def test_bytes_that_look_like_an_orientation_turn_nothing():
    jpeg = encoded(picture(), "JPEG", quality=95)
    for marker, body in ((0xFE, exif(6)), (0xE2, b"ICC_PROFILE\0" + exif(6))):
        found = decode(tf.constant(with_segment(jpeg, marker, body)), (HEIGHT, WIDTH)).numpy()
        np.testing.assert_array_equal(found, decode(tf.constant(jpeg), (HEIGHT, WIDTH)))


def test_python_and_the_graph_decode_to_the_same_bytes(monkeypatch):
    """A JPEG goes one way or the other by how it begins: that must not show in its pixels."""
    contents = [encoded(picture(*size), "JPEG") for size in ((32, 48), (130, 200), (193, 165), (192, 400), (900, 700))]
    plain = decode_images(tf.constant(contents), tf.constant([""] * 5), (55, 47)).numpy()
    called = []
    in_python = decoding._decode_in_python
    monkeypatch.setattr(decoding, "_decode_in_python", lambda *a: called.append(1) or in_python(*a))
    decode_images(tf.constant(contents), tf.constant([""] * 5), (55, 47))
    assert not called
    # Every JPEG may have EXIF, none of which is found upright.
    monkeypatch.setattr(decoding, "_EXIF", r"(?s)\C*")
    monkeypatch.setattr(decoding, "_branch_by_header", lambda *_: np.int32(4))
    contents = [with_segment(content, 0xFE, b"a comment") for content in contents]
    np.testing.assert_array_equal(decode_images(tf.constant(contents), tf.constant([""] * 5), (55, 47)), plain)
    assert len(called) == 5


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_wrong_is_said_in_one_line(tmp_path, name):
    content, reason = UNREADABLE[name]
    path, good = tmp_path / name, tmp_path / "good.png"
    path.write_bytes(content)
    good.write_bytes(READABLE["colours.png"])
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        read(good, path)
    said = re.search(r"assertion failed: \[(.*)\]", raised.value.message)[1]
    assert said.startswith(f"unreadable image: {path}: {reason}")
    assert said.endswith("; remove it, or leave out what cannot be read: --skip_unreadable")
    assert fault(content, (8, 8)).startswith(reason) and "\n" not in fault(content, (8, 8))


def test_files_that_cannot_be_opened_are_told(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    for name, reason in (("folder.jpg", "a folder, not an image file"), ("circle.jpg", r"cannot be opened \(Too many levels")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"unreadable image: .*{name}: {reason}"):
            read(tmp_path / name)
    with pytest.raises(tf.errors.NotFoundError, match=r"nowhere\.jpg; No such file"):
        read(tmp_path / "nowhere.jpg")


def test_a_large_jpeg_is_decoded_at_an_eighth():
    """20,000 x 20,000 pixels, 400 million: 6 MB as a file and 2,500 x 2,500 once it is decoded."""
    tile = encoded(Image.new("RGB", (16, 16), (200, 30, 60)), "JPEG")
    assert read_header(tile).upright_size == (16, 16)
    content = encoded(Image.new("L", (20000, 20000), 77), "JPEG")
    assert decode(tf.constant(content), (224, 224)).shape == (2500, 2500, 3)
    (image,) = decode_images(tf.constant([content]), tf.constant(["a"]), (8, 8)).numpy()
    np.testing.assert_array_equal(image, np.full((8, 8, 3), 77))
    assert fault(content, (8000, 8000)).startswith("a JPEG of 20000 x 20000 pixels, of which more than 100 million would be")


def test_a_large_progressive_jpeg_is_refused():
    progressive = bytearray(encoded(picture(), "JPEG", progressive=True))
    at = progressive.index(b"\xff\xc2") + 5
    progressive[at : at + 4] = (20000).to_bytes(2, "big") * 2
    assert fault(bytes(progressive), (8, 8)).startswith("a progressive JPEG of 20000 x 20000 pixels, of which more than 100")
    with pytest.raises(tf.errors.InvalidArgumentError, match="a progressive JPEG of 20000 x 20000"):
        decode_images(tf.constant([bytes(progressive)]), tf.constant(["a"]), (8, 8))


def test_each_side_of_the_limit(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", HEIGHT * WIDTH)
    gif = READABLE["still.gif"]
    assert fault(gif, (8, 8)) is None
    monkeypatch.setattr(decoding, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    assert fault(gif, (8, 8)).startswith(f"a GIF of {HEIGHT} x {WIDTH} pixels, of which more than")
