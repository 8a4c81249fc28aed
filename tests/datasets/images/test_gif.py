"""A GIF is cut behind its first frame, so that neither frames nor their sizes can fill the memory."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from crl_tf.datasets.images.decode import decode_images, fault
from crl_tf.datasets.images.gif import first_frame
from crl_tf.serving.decoding import decode_each

SIZE = (16, 16)


def film(count, height, width, **options):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert("P") for _ in range(count)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


FILMS = [film(1, 7, 9), film(5, 40, 30, duration=100, loop=0), film(3, 90, 200, comment=b"x" * 600), film(2, 1, 1)]


@pytest.mark.parametrize("content", FILMS, ids=["one", "loop", "comment", "dot"])
def test_the_first_frame_stays_as_it_was_and_the_others_go(content):
    cut, size = first_frame(content)
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(cut)) as after:
        assert size == (before.height, before.width) and after.n_frames == 1
        np.testing.assert_array_equal(np.asarray(before.convert("RGB")), np.asarray(after.convert("RGB")))
    assert (len(cut) < len(content)) == (Image.open(io.BytesIO(content)).n_frames > 1)


def test_the_graph_cuts_as_python_does_and_training_sees_the_same():
    images, valid = decode_each(tf.constant(FILMS), SIZE)
    assert valid.numpy().all()
    np.testing.assert_array_equal(images, decode_images(tf.constant(FILMS), tf.constant(["x"] * len(FILMS)), SIZE))


def test_what_follows_the_first_frame_is_not_looked_at():
    content = first_frame(FILMS[1])[0][:-1]
    damaged = content + b"\x2c" + b"\xff" * 3000
    images, valid = decode_each(tf.constant([content + b";", damaged]), SIZE)
    assert valid.numpy().all() and (images[0] == images[1]).numpy().all() and fault(damaged, SIZE) is None


def test_a_frame_of_too_many_pixels_is_refused_whatever_the_header_says():
    content = bytearray(FILMS[0])
    at = content.index(b"\x2c")
    content[at + 5 : at + 9] = struct.pack("<HH", 20_000, 20_000)
    assert first_frame(bytes(content))[1] == (20_000, 20_000)
    assert not decode_each(tf.constant([bytes(content)]), SIZE)[1].numpy().any()
    assert fault(bytes(content), SIZE)


def test_every_cut_of_a_file_ends():
    whole = FILMS[1]
    for end in range(0, len(whole), 97):
        assert first_frame(whole[:end])[0].endswith(b";")
    cuts = [whole[:end] for end in range(6, 900, 11)]
    _, valid = decode_each(tf.constant(cuts), SIZE)
    assert valid.numpy().tolist() == [fault(cut, SIZE) is None for cut in cuts]
