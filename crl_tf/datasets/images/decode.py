"""Image files to pixels of the wanted size, upright: decoded at a reduced scale where there is size to spare, then resized."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from crl_tf.datasets.images.headers import UPRIGHT, Header, bmp_palette, form_of, read_header

VERSION = 2
"""To be raised with any change to the pixels that come out of this file: it tells old caches from new ones."""

SPARE = 1.75
"""A file is decoded at 1/2, 1/4 or 1/8 of its size where so much more than the wanted size is left to resize from."""

LONGEST = 10_000
MAX_PIXELS = LONGEST**2
"""An image of which more would be decoded is refused: 300 MB as bytes, and each core has one under way."""

MISSING = "missing"
REMEDY = "remove it, or leave out what cannot be read: --skip_unreadable"

_RATIOS = (1, 2, 4, 8)
_IN_PYTHON = len(_RATIOS)

# RE2 on bytes: \C is any byte, and one above 0x7f cannot be named.
_PLAIN_JPEG = r"(?s)\C{4}\x00\x10JFIF\x00\C{11}\x00\C\x00"
"""The first 25 bytes of nearly every JPEG without EXIF: a JFIF segment of 16 bytes, then one that starts as no EXIF can."""

_PLAIN_PNG = r"(?s)\CPNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00[\x00-\x26]\C\x00\x00[\x00-\x26]\C"
"""The first 24 bytes of a PNG whose sides are below 0x2700, 9,984, pixels."""

_TURNED = (
    r"(?s)\C*(?:\x01\x12\x00(?:\x03\x00\x00\x00\x01\x00|\x04\x00\x00\x00\x01\x00\x00\x00)"
    r"|\x12\x01[\x03\x04]\x00\x01\x00\x00\x00)[\x02-\x08]\C*"
)
"""EXIF's entry for an orientation that is not upright, in either byte order; elsewhere by chance, which costs time only."""

_HEAD = 2**17
"""Bytes within which that is looked for: two segments of the largest size."""


def resized(images: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Bilinear, antialiased, and rounded, because training sees bytes; serving goes through the same function.

    Args:
        images: uint8 or float [..., H, W, 3] in [0, 255], three or four dimensions.
        image_size: height and width of the result; the aspect ratio is not kept.
    Returns:
        float32 [..., *image_size, 3] of whole numbers.
    """
    return tf.round(tf.image.resize(images, image_size, method="bilinear", antialias=True))


def read_images(paths: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """The image files of a batch, for use inside a tf.data map: `decode_images` of their contents, each read when its turn comes.

    Args:
        paths: file names, string [B].
        image_size: height and width.
    Returns:
        uint8 [B, *image_size, 3].
    Raises:
        tf.errors.InvalidArgumentError: with the file's name and what is wrong with it, for an image that cannot be decoded.
        tf.errors.NotFoundError: with the file's name, for one that is not there.
    """
    return _batch(paths, paths, tf.io.read_file, image_size)


def decode_images(contents: tf.Tensor, names: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Encoded images of a batch to pixels of the wanted size, for use inside a tf.data map.

    JPEG, PNG, GIF (the first picture of an animation), BMP and WebP. As TensorFlow's decoders, Pillow's convert("RGB") and
    what else feeds a served model do: grey becomes three equal channels, alpha is dropped and not blended with a ground, of 16
    bits the upper 8 are taken. Unlike them, a JPEG is turned upright as its EXIF orientation says: as viewers show it, and as
    whoever labelled it saw it.

    A JPEG several times larger than wanted is decoded at 1/2, 1/4 or 1/8 of its size (the decoder leaves out high
    frequencies) as long as `SPARE` times the wanted size remains on both sides. Measured on one core: 178 x 218 to 55 x 47
    takes 284 us an image instead of 347, most of it saved by resizing less; looking at the size costs 10 to 25 us where nothing
    can be reduced. Pixels differ from those decoded in full by 0.6 to 1.6 of 255 on average (faces, product photographs), as
    much as by encoding the file again at a quality of 75 to 90; without the margin it would be 3.7 and more.

    Args:
        contents: the images as they are in their files, string [B].
        names: what to call each in an error, string [B].
        image_size: height and width.
    Returns:
        uint8 [B, *image_size, 3].
    Raises:
        tf.errors.InvalidArgumentError: with its name and what is wrong with it, for an image that cannot be decoded: one that is
            none, is cut off, damaged or of an unusual kind, or of which more than `MAX_PIXELS` would be decoded.
    """
    return _batch(contents, names, tf.identity, image_size)


def encoded_image(record: bytes) -> bytes:
    """The encoded image of a serialized tf.train.Example, its feature "image"; nothing where the record is damaged."""
    try:
        return tf.train.Example.FromString(record).features.feature["image"].bytes_list.value[0]
    except (DecodeError, IndexError):
        return b""


def decode(content: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """One encoded image, string [], to uint8 [H, W, 3], upright, of its own size or of a half, a quarter or an eighth of that."""
    # Python sees only what needs it: a call of it takes as long as decoding a small image.
    begin = tf.strings.substr(content, 0, 25)
    image_size = (int(image_size[0]), int(image_size[1]))
    # A side above LONGEST counts so much that the choice lies beyond the ratios.
    least = tf.constant([*_needed(image_size), [LONGEST + 1, 0], [0, LONGEST + 1]], tf.int32)
    counts = tf.constant([1, 1, 1, _IN_PYTHON, _IN_PYTHON], tf.int32)

    def by_size() -> tf.Tensor:
        reached = tf.reduce_all(tf.io.extract_jpeg_shape(content)[:2] >= least, axis=1)
        return tf.reduce_sum(tf.cast(reached, tf.int32) * counts)

    def by_more() -> tf.Tensor:
        head = tf.strings.substr(content, 0, _HEAD)
        upright = tf.cond(tf.io.is_jpeg(content), lambda: ~tf.strings.regex_full_match(head, _TURNED), lambda: False)
        other = tf.where(tf.strings.regex_full_match(tf.strings.substr(content, 0, 24), _PLAIN_PNG), 0, _IN_PYTHON)
        return tf.cond(upright, by_size, lambda: other)

    def in_python() -> tf.Tensor:
        # In a graph Python is given bytes, outside of one an array without axes.
        def run(given: bytes | np.ndarray) -> np.ndarray:
            return _decode_in_python(np.asarray(given, object).item(), image_size)

        image = tf.numpy_function(run, [content], tf.uint8, stateful=False)
        with tf.control_dependencies([tf.debugging.Assert(tf.size(image) > 0, ["no image"])]):
            return tf.identity(image)

    choice = tf.cond(tf.strings.regex_full_match(begin, _PLAIN_JPEG), by_size, by_more)
    branches = [lambda ratio=ratio: _pixels(content, ratio) for ratio in _RATIOS]
    return tf.ensure_shape(tf.switch_case(choice, [*branches, in_python]), [None, None, 3])


def fault(content: bytes, image_size: tuple[int, int]) -> str | None:
    """What is wrong with an encoded image, in one line that goes on after its name; None where it can be decoded."""
    if not content:
        return "an empty file, or a damaged record"
    try:
        header = read_header(content)
    except ValueError as error:
        return f"a {form_of(content)} {error}"
    refusal = header and _refusal(header, image_size)
    if refusal:
        return refusal
    try:
        with tf.device("/cpu:0"):
            decode(tf.constant(content), image_size)
    except tf.errors.OpError:
        if header is None:
            return f"not an image (JPEG, PNG, GIF, BMP and WebP are read); it begins with the bytes {content[:4].hex(' ')}"
        return f"{_described(header)} that is truncated or damaged"
    return None


def file_fault(path: str, image_size: tuple[int, int]) -> str | None:
    """`fault` of a file: also "missing", "a folder", or what the system says where it cannot be opened."""
    try:
        content = tf.io.read_file(path).numpy()
    except tf.errors.NotFoundError:
        return MISSING
    except tf.errors.OpError as error:
        if tf.io.gfile.isdir(path):
            return "a folder, not an image file"
        return f"cannot be opened ({error.message.splitlines()[0].split('; ')[-1].split(' [Op:')[0]})"
    return fault(content, image_size)


def _batch(
    items: tf.Tensor, names: tf.Tensor, content: Callable[[tf.Tensor], tf.Tensor], image_size: tuple[int, int]
) -> tf.Tensor:
    def pixels(item: tf.Tensor) -> tf.Tensor:
        return tf.cast(resized(decode(content(item), image_size), image_size), tf.uint8)

    # TensorFlow's own error does not say which file is broken. Inside a dataset the error can be caught: out comes a batch of
    # what follows the broken image, or nothing, and the empty batch behind is taken. A dataset per batch, because one per image
    # costs a third more.
    whole = tf.data.Dataset.from_tensor_slices(items).map(pixels).batch(tf.size(names, tf.int64)).ignore_errors()
    nothing = tf.data.Dataset.from_tensors(tf.zeros([0, *image_size, 3], tf.uint8))
    images = whole.concatenate(nothing).take(1).get_single_element()
    in_files = content is tf.io.read_file

    def complain() -> tf.Tensor:
        said, missing = tf.numpy_function(
            lambda i, n: _first_fault(i, n, in_files, image_size), [items, names], (tf.string, tf.string), stateful=False
        )
        # That a file is missing, TensorFlow says itself, by an error of another type.
        read = tf.cond(missing == b"", lambda: missing, lambda: tf.io.read_file(missing))
        with tf.control_dependencies([read]), tf.control_dependencies([tf.debugging.Assert(False, [said])]):
            return tf.identity(images)

    return tf.ensure_shape(tf.cond(tf.shape(images)[0] == tf.size(names), lambda: images, complain), [None, *image_size, 3])


def _first_fault(items: np.ndarray, names: np.ndarray, in_files: bool, image_size: tuple[int, int]) -> tuple[bytes, bytes]:
    """What to say of the first broken image of a batch, and its name where it is missing."""
    for item, name in zip(items, names, strict=True):
        found = file_fault(item.decode(), image_size) if in_files else fault(item, image_size)
        if found:
            said = f"unreadable image: {name.decode()}: {found}; {REMEDY}"
            return said.encode(), name if found == MISSING else b""
    # On a disk that errs at times, the second reading may find nothing wrong.
    return f"unreadable image: one that could be read again, of the batch from {names[0].decode()}".encode(), b""


def _pixels(content: tf.Tensor, ratio: int) -> tf.Tensor:
    if ratio == 1:
        # Unlike decode_jpeg it knows every format.
        return tf.io.decode_image(content, channels=3, expand_animations=False)
    return tf.io.decode_jpeg(content, channels=3, ratio=ratio)


def _decode_in_python(content: bytes, image_size: tuple[int, int]) -> np.ndarray:
    """What `decode` leaves to Python: an image of any form, uint8 [H, W, 3], or without a pixel where it is unreadable."""
    try:
        header = read_header(content)
        if header and _refusal(header, image_size):
            return np.zeros((0, 0, 3), np.uint8)
        with tf.device("/cpu:0"):
            if header and header.form in ("BMP", "WebP"):
                # Asked for three channels, TensorFlow refuses a WebP of four and takes a BMP's palette for shades of grey.
                image = tf.io.decode_image(content, expand_animations=False).numpy()
                return bmp_palette(content)[image[..., 0]] if header.palette else image[..., :3]
            # JPEG XL has no header that is known here.
            image = _pixels(tf.constant(content), _ratio(header, image_size) if header else 1).numpy()
    except (ValueError, tf.errors.OpError):
        return np.zeros((0, 0, 3), np.uint8)
    return _turned(image, header.orientation if header else UPRIGHT)


@functools.cache
def _needed(image_size: tuple[int, int]) -> list[list[int]]:
    """The least height and width of a JPEG that is decoded at 1/2, at 1/4 and at 1/8."""
    return [[math.ceil(ratio * SPARE * side) for side in image_size] for ratio in _RATIOS[1:]]


def _ratio(header: Header, image_size: tuple[int, int]) -> int:
    if header.form != "JPEG":
        return 1
    fits = [all(a >= b for a, b in zip(header.upright_size, least, strict=True)) for least in _needed(image_size)]
    return _RATIOS[sum(fits)]


def _refusal(header: Header, image_size: tuple[int, int]) -> str | None:
    """Why an image with this header is not even tried, or None."""
    # A progressive JPEG is kept whole, as 16-bit coefficients, whatever the scale: 1.2 GB at 20,000 x 20,000.
    ratio = 1 if header.progressive else _ratio(header, image_size)
    if header.height * header.width > MAX_PIXELS * ratio**2:
        at_most = f"of which more than {MAX_PIXELS // 10**6} million would be decoded at once"
        advice = "make it smaller" if header.form == "JPEG" else "make it smaller, or a JPEG, which is decoded at a reduced scale"
        return f"{_described(header)}, {at_most}: {advice}"
    if header.form == "WebP" and header.animated:
        # Not only unknown to TensorFlow 2.21: asked for its channels as they are, it damages its own memory.
        return "an animated WebP, which TensorFlow does not read: save one picture of it"
    if header.form == "BMP" and (header.bits not in (8, 24, 32) or header.compressed):
        packed = "compressed " if header.compressed else ""
        return f"a {packed}BMP of {header.bits} bits per pixel, which TensorFlow does not read: save it as PNG"
    return None


def _described(header: Header) -> str:
    kind = "progressive JPEG" if header.progressive else header.form
    return f"a {kind} of {header.height} x {header.width} pixels"


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Upright from EXIF's orientation: what lies on its side is transposed, then mirrored as the number says."""
    image = image.swapaxes(0, 1) if orientation > 4 else image
    image = image[:, ::-1] if orientation in (2, 3, 6, 7) else image
    return np.ascontiguousarray(image[::-1] if orientation in (3, 4, 7, 8) else image)
