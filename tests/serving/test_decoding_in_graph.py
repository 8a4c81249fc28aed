"""Images decoded inside a SavedModel: the pixels of training, whatever form, turn and damage they have."""

import functools
import pickle
import struct
import subprocess
import sys
import zlib

import image_zoo
import numpy as np
import pytest
import tensorflow as tf
from image_zoo import HEIGHT, WIDTH, encoded, exif, picture, with_segment

from crl_tf.datasets.images.decode import decode_images, fault
from crl_tf.serving import decoding
from crl_tf.serving.decoding import decode_each

READABLE = image_zoo.readable()
UNREADABLE = {name: content for name, (content, _) in image_zoo.unreadable().items()}

REFUSED = {"one bit.bmp", "film.webp", "film of one.webp"}
"""What training reads, by Pillow, and a graph cannot: animated WebP, and BMP packed as few people pack it."""

WHOLE, SMALL = (HEIGHT, WIDTH), (8, 6)


def traced(size):
    """From a list of encoded images to pixels and which are valid."""
    graph = tf.function(lambda contents: decode_each(contents, size), [tf.TensorSpec([None], tf.string)], autograph=False)

    def decoded(contents):
        images, valid = graph(tf.constant(list(contents), tf.string))
        assert images.shape == (len(contents), *size, 3) and images.dtype == tf.float32
        return images.numpy(), valid.numpy()

    return decoded


serving = functools.cache(traced)


def in_training(contents, size):
    return decode_images(tf.constant(list(contents)), tf.constant([""] * len(contents)), size).numpy()


def check_same(contents, size):
    images, valid = serving(size)(contents)
    assert valid.all()
    np.testing.assert_array_equal(images, in_training(contents, size))
    return images


@pytest.mark.parametrize("size", [WHOLE, SMALL])
def test_pixels_are_those_of_training(size):
    images, valid = serving(size)(READABLE.values())
    assert {name for name, is_valid in zip(READABLE, valid, strict=True) if not is_valid} == REFUSED
    assert not images[~valid].any()
    np.testing.assert_array_equal(images[valid], in_training([READABLE[name] for name in READABLE if name not in REFUSED], size))


def test_large_jpegs_are_reduced_as_in_training():
    # On both sides of the sides from which a JPEG is decoded at 1/2, 1/4 and 1/8 of its size.
    sides = [(28 * ratio + more, 21 * ratio + more) for ratio in (1, 2, 4) for more in (-1, 0, 1)]
    contents = [encoded(picture(*side), "JPEG") for side in sides]
    contents += [with_segment(encoded(picture(*side), "JPEG"), 0xE1, exif(6)) for side in [*sides, (21, 28), (84, 112)]]
    check_same(contents, SMALL)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_turned_as_in_training(form):
    """In both byte orders, as a short and as a long number."""
    image, options = picture(), {"lossless": True} if form == "WEBP" else {}
    bodies = [exif(orientation, order, kind) for order in "<>" for kind in (3, 4) for orientation in range(1, 9)]
    seen = check_same([encoded(image, form, exif=body, **options) for body in bodies], WHOLE)
    for first in range(0, len(bodies), 8):
        np.testing.assert_array_equal(seen[first : first + 8], seen[:8])
    assert len({one.tobytes() for one in seen[:8]}) == 8
    if form != "JPEG":  # whose halved colours differ where two sides are mirrored
        np.testing.assert_array_equal(seen[[1, 2, 3]], [seen[0][:, ::-1], seen[0][::-1, ::-1], seen[0][::-1]])


def test_exif_is_found_where_it_lies_and_nonsense_turns_nothing():
    jpeg, icc = encoded(picture(), "JPEG"), b"ICC_PROFILE\0\1\1"
    behind = with_segment(with_segment(jpeg, 0xE2, icc + bytes(3000), at=20), 0xE1, exif(6), at=20 + 3018)
    turned = [with_segment(jpeg, 0xE1, exif(6)), with_segment(jpeg, 0xE1, exif(6), at=20), behind]
    nonsense = [exif(0), exif(9), exif(6)[:20], b"Exif\0\0", b"Exif\0\0XX\0*" + bytes(30), exif(6)[:14]]
    upright = [with_segment(jpeg, 0xE1, body) for body in nonsense]
    upright += [with_segment(jpeg, 0xFE, exif(6)), with_segment(jpeg, 0xE2, icc + exif(6)), jpeg]
    seen = check_same([*turned, *upright], WHOLE)
    assert all((one == seen[0]).all() for one in seen[:3]) and all((one == seen[-1]).all() for one in seen[3:])
    assert (seen[0] != seen[-1]).any()


def test_one_that_cannot_be_read_does_not_fail_the_others():
    good = READABLE["colours.png"]
    alone = serving(WHOLE)([good])[0][0]
    contents = [content for broken in UNREADABLE.values() for content in (good, broken)]
    images, valid = serving(WHOLE)(contents)
    assert valid.tolist() == [True, False] * len(UNREADABLE)
    assert (images[::2] == alone).all() and not images[1::2].any()


def test_none_at_all_and_none_that_can_be_read():
    for contents in ([], list(UNREADABLE.values())[:3]):
        images, valid = serving(WHOLE)(contents)
        assert valid.tolist() == [False] * len(contents) and not images.any()


FORMS = ("colours.jpg", "progressive.jpg", "colours.png", "still.gif", "colours.bmp", "palette.bmp", "alpha.bmp")
WEBP = {"lossy.webp": b"VP8 ", "lossless.webp": b"VP8L", "lossy alpha.webp": b"VP8X"}


def test_a_pixel_above_the_limit_is_too_many(monkeypatch):
    for name, kind in WEBP.items():
        assert READABLE[name][12:16] == kind
    contents = [READABLE[name] for name in (*FORMS, *WEBP, "16 bits.png")]
    assert serving(SMALL)(contents)[1].all()
    monkeypatch.setattr(decoding, "MAX_PIXELS", HEIGHT * WIDTH)
    # Of 16 bits a pixel counts twice.
    assert traced(SMALL)(contents)[1].tolist() == [True] * (len(contents) - 1) + [False]
    monkeypatch.setattr(decoding, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    assert not traced(SMALL)(contents)[1].any()


def png_with_header(height, width, depth):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    png = READABLE["colours.png"]
    return png[:12] + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


def test_sizes_that_a_header_only_claims_are_refused():
    def patched(name, at, value):
        return READABLE[name][:at] + value + READABLE[name][at + len(value) :]

    jpeg = READABLE["colours.jpg"]
    contents = [
        patched("colours.jpg", jpeg.index(b"\xff\xc0") + 5, b"\xff\xdc\xff\xdc"),
        png_with_header(10_001, 10_001, 8),
        png_with_header(10_000, 10_000, 16),
        png_with_header(2**31 - 1, 2**31 - 1, 16),
        patched("still.gif", 6, b"\xff\xff\xff\xff"),
        patched("colours.bmp", 18, struct.pack("<ii", 2**31 - 1, -(2**31))),
        patched("palette.bmp", 18, struct.pack("<ii", 30_000, 30_000)),
        patched("palette.bmp", 18, struct.pack("<ii", -30, 30)),
        patched("lossy.webp", 26, struct.pack("<HH", 16_383, 16_383)),
        patched("lossless.webp", 21, struct.pack("<I", 16_383 | 16_383 << 14)),
        patched("lossy alpha.webp", 24, b"\xff" * 6),
    ]
    assert not serving(SMALL)(contents)[1].any()


def test_pixels_of_a_webp_without_a_chunk_around_them_are_refused():
    """TensorFlow reads them, and their size stands where no check looks."""
    for name in ("lossy.webp", "lossless.webp"):
        content = READABLE[name][:12] + READABLE[name][20:]
        content = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
        assert tf.io.decode_image(content, expand_animations=False).shape == (HEIGHT, WIDTH, 3)
        assert not serving(SMALL)([content])[1].any()


def damaged(contents, count, seed=0):
    """Files of which bytes are changed, lost, doubled, mixed with those of another; most often near their beginning."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        content = bytearray(contents[rng.integers(len(contents))])
        at = int(rng.integers(min(len(content), 64) if rng.random() < 0.5 else len(content)))
        length = int(rng.integers(1, 9))
        kind = rng.integers(6)
        if kind == 0:
            content[at] ^= 1 << rng.integers(8)
        elif kind == 1:
            content[at : at + length] = rng.bytes(len(content[at : at + length]))
        elif kind == 2:
            del content[at:]
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = content[at : at + 20 * length]
        else:
            content[at:] = contents[rng.integers(len(contents))][at:]
        found.append(bytes(content))
    return found


def test_a_server_without_this_package_decodes_alike_and_survives_damage(tmp_path):
    contents = [*READABLE.values(), *UNREADABLE.values()]
    turned = [encoded(picture(), form, exif=exif(6)) for form in ("JPEG", "PNG", "WEBP")]
    harmed = damaged([content for content in [*contents, *turned] if 0 < len(content) < 20_000], 500)
    with open(tmp_path / "contents", "wb") as file:
        pickle.dump([contents, *(harmed[at : at + 100] for at in range(0, len(harmed), 100))], file)
    module = tf.Module()
    module.decode = tf.function(lambda c: decode_each(c, SMALL), [tf.TensorSpec([None], tf.string)], autograph=False)
    tf.saved_model.save(module, str(tmp_path / "export"))
    script = """
import pickle, sys
sys.modules["crl_tf"] = None  # importing it now fails
import numpy as np, tensorflow as tf
served = tf.saved_model.load("export")
with open("contents", "rb") as file:
    found = [[part.numpy() for part in served.decode(tf.constant(batch))] for batch in pickle.load(file)]
harmed = [np.concatenate(parts) for parts in zip(*found[1:])]
np.savez("found.npz", images=found[0][0], valid=found[0][1], harmed=harmed[0], harmed_valid=harmed[1])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = np.load(tmp_path / "found.npz")
    images, valid = serving(SMALL)(contents)
    np.testing.assert_array_equal(found["images"], images)
    np.testing.assert_array_equal(found["valid"], valid)
    read = np.flatnonzero(found["harmed_valid"])
    assert found["harmed_valid"].shape == (len(harmed),) and 25 < len(read) < 250
    # Pillow refuses some damage in what does not concern pixels.
    both = [place for place in read if fault(harmed[place], SMALL) is None]
    assert len(both) > 0.8 * len(read)
    np.testing.assert_array_equal(found["harmed"][both], in_training([harmed[place] for place in both], SMALL))


def test_what_is_no_image_of_a_known_form_is_refused():
    tiff, sound = encoded(picture(), "TIFF"), b"RIFF\0\0\0\0WAVE" + bytes(40)
    contents = [tiff, sound, b"", bytes(100), b"BM", b"GIF8", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]
    assert not serving(SMALL)(contents)[1].any()
