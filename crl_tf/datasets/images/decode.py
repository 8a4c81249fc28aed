"""Decodes images to the wanted size, upright: pixels by TensorFlow, headers and what TensorFlow cannot decode by Pillow."""

from __future__ import annotations

import functools
import io
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from crl_tf.datasets.images.gif import first_frame
from crl_tf.datasets.images.read import MISSING, read_encoded

VERSION = 3
"""Version of the pixels that this file produces. Caches store it: raise it with every change to the pixels."""

SPARE = 1.75
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size only if both sides stay at least this many times the wanted size."""

LONGEST = 10_000
MAX_PIXELS = LONGEST**2
"""Images that decode to more pixels than this are refused: 300 MB of bytes, and each core decodes one at a time."""

REMEDY = "remove it, or leave out what cannot be read: --skip_unreadable"

FORMS: dict[str, tuple[int, bytes, type[ImageFile.ImageFile]]] = {
    "JPEG": (0, b"\xff\xd8\xff", JpegImageFile),
    "PNG": (0, b"\x89PNG\r\n\x1a\n", PngImageFile),
    "GIF": (0, b"GIF8", GifImageFile),
    "BMP": (0, b"BM", BmpImageFile),
    "WebP": (8, b"WEBP", WebPImageFile),
}
"""By form: at which byte its mark stands, the mark, and Pillow's reader. The readers are called directly, because
`PIL.Image.open` refuses images that are too large to decode in full, which a JPEG need not be."""

RATIOS = (1, 2, 4, 8)
"""Of the size of a JPEG to that at which it is decoded."""

_IN_PYTHON = len(RATIOS)
_PNG_MARK = FORMS["PNG"][1]

_EXIF = r"(?s)\C*(?:Exif\x00\x00|eXIf)\C*"
"""Matches bytes that can hold EXIF of a JPEG or a PNG. RE2 is the only search for text in a graph; \\C is any byte."""

_HEAD = 2**17
"""EXIF is looked for in this many bytes: two JPEG segments of the largest size."""


@dataclass(frozen=True)
class Header:
    """What is known of an encoded image before it is decoded.

    form: a key of `FORMS`. height, width: of the stored pixels, before they are turned upright. orientation: EXIF's, 1 to 8:
    1 is upright, 5 to 8 exchange height and width. traits: those of "greyscale", "alpha", "CMYK", "palette", "16 bits",
    "progressive" and "turned by EXIF" that apply.
    """

    form: str
    height: int
    width: int
    orientation: int = 1
    traits: tuple[str, ...] = ()

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width once the image is turned upright."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)

    def __str__(self) -> str:
        kind = f"{'progressive ' if 'progressive' in self.traits else ''}{self.form}"
        return f"a {kind} of {self.height} x {self.width} pixels"


def form_of(content: bytes) -> str | None:
    """The form of an encoded image by its first bytes, a key of `FORMS`; None for any other.

    >>> form_of(b"GIF89a..."), form_of(b"hello")
    ('GIF', None)
    """
    return next((form for form, (at, mark, _) in FORMS.items() if content.startswith(mark, at)), None)


def read_header(content: bytes) -> Header | None:
    """Reads the header of an encoded image by Pillow, without decoding pixels; None if the form is not in `FORMS`.

    Raises:
        ValueError: if Pillow cannot read the header, with Pillow's reason; the message goes on after "a JPEG".
    """
    form = form_of(content)
    if form is None:
        return None
    image = _opened(form, content)
    orientation = _orientation(image)
    if form == "PNG" and not image.tile:
        raise ValueError("that has no pixels")
    # The tile of a PNG names how its pixels are packed; WebP has no tile.
    packed = str(image.tile[0][3]) if form == "PNG" else ""
    traits = {
        "greyscale": image.mode in ("1", "L", "LA", "I", "I;16"),
        "alpha": image.mode in ("LA", "RGBA"),
        "CMYK": image.mode == "CMYK",
        "palette": image.mode == "P",
        "16 bits": packed.endswith(";16B"),
        "progressive": "progressive" in image.info,
        "turned by EXIF": orientation != 1,
    }
    return Header(form, image.height, image.width, orientation, tuple(name for name, applies in traits.items() if applies))


def resized(images: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Resizes bilinearly with antialiasing and rounds, because training sees bytes. Serving calls the same function.

    Args:
        images: uint8 or float [..., H, W, 3] in [0, 255], three or four dimensions.
        image_size: height and width of the result; the aspect ratio is not kept.
    Returns:
        float32 [..., *image_size, 3] of whole numbers.
    """
    return tf.round(tf.image.resize(images, image_size, method="bilinear", antialias=True))


def read_images(paths: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Reads and decodes a batch of image files, for use inside a tf.data map: `decode_images` of their contents.

    Args:
        paths: file names, string [B].
        image_size: height and width.
    Returns:
        uint8 [B, *image_size, 3].
    Raises:
        tf.errors.InvalidArgumentError: with the file's name and the reason, for an image that cannot be decoded.
        tf.errors.NotFoundError: with the file's name, for a missing file.
    """
    return _batch(paths, paths, tf.io.read_file, image_size)


def decode_images(contents: tf.Tensor, names: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Decodes and resizes a batch of encoded images, for use inside a tf.data map.

    JPEG, PNG, GIF, BMP and WebP; of an animation the first frame. As by TensorFlow's decoders and Pillow's convert("RGB"), grey
    becomes three equal channels, alpha is dropped without blending, and of 16 bits the upper 8 are taken. Images are turned
    upright by EXIF, as viewers show them.

    A JPEG several times larger than wanted is decoded at 1/2, 1/4 or 1/8 of its size, which leaves out high frequencies, as long
    as `SPARE` times the wanted size remains on both sides.

    Args:
        contents: the images as they are in their files, string [B].
        names: what errors call each image, string [B].
        image_size: height and width.
    Returns:
        uint8 [B, *image_size, 3].
    Raises:
        tf.errors.InvalidArgumentError: with the image's name and the reason, for an image that cannot be decoded or would decode
            to more than `MAX_PIXELS`.
    """
    return _batch(contents, names, tf.identity, image_size)


def encoded_image(record: bytes) -> bytes:
    """The encoded image of a serialized tf.train.Example, its feature "image"; empty if the record is damaged."""
    try:
        return tf.train.Example.FromString(record).features.feature["image"].bytes_list.value[0]
    except (DecodeError, IndexError):
        return b""


def decode(content: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Decodes one encoded image, string [], to uint8 [H, W, 3], upright, at its own size or at 1/2, 1/4 or 1/8 of it."""
    # A call of Python takes as long as decoding a small image: only images that may have EXIF, BMP, GIF and WebP go there. Every
    # node below costs time for every image, whether its branch is taken or not.
    image_size = (int(image_size[0]), int(image_size[1]))
    is_jpeg = tf.io.is_jpeg(content)
    # A side above LONGEST counts so much that the sum lies beyond the ratios.
    least = np.array([*needed_sides(image_size), [LONGEST + 1, 0], [0, LONGEST + 1]], np.int32)
    steps = np.array([1, 1, 1, _IN_PYTHON, _IN_PYTHON], np.int32)

    def by_jpeg_size() -> tf.Tensor:
        reached = tf.reduce_all(tf.io.extract_jpeg_shape(content)[:2] >= least, axis=1)
        return tf.reduce_sum(tf.cast(reached, tf.int32) * steps)

    def by_png_size() -> tf.Tensor:
        is_png = tf.strings.substr(content, 0, len(_PNG_MARK)) == _PNG_MARK
        sides = tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False)
        # Of 16 bits a pixel takes twice the memory, which Python counts.
        plain = tf.strings.substr(content, 24, 1) != b"\x10"
        return tf.where(is_png & plain & tf.reduce_all(sides <= LONGEST), 0, _IN_PYTHON)

    def by_head() -> tf.Tensor:
        may_have_exif = tf.strings.regex_full_match(tf.strings.substr(content, 0, _HEAD), _EXIF)
        by_header = functools.partial(_call, _branch_by_header, content, image_size, tf.int32)
        branch = tf.cond(may_have_exif, by_header, lambda: tf.cond(is_jpeg, by_jpeg_size, by_png_size))
        return tf.ensure_shape(branch, [])

    def in_python() -> tf.Tensor:
        image = _call(_decode_in_python, content, image_size, tf.uint8)
        with tf.control_dependencies([tf.debugging.Assert(tf.size(image) > 0, ["no image"])]):
            return tf.identity(image)

    # Nearly every JPEG without EXIF: a JFIF segment, which ends at byte 20, and then a quantization table.
    is_plain = is_jpeg & (tf.strings.substr(content, 20, 2) == b"\xff\xdb")
    branch = tf.cond(is_plain, by_jpeg_size, by_head)
    branches = [lambda ratio=ratio: pixels_at(content, ratio) for ratio in RATIOS]
    return tf.ensure_shape(tf.switch_case(branch, [*branches, in_python]), [None, None, 3])


def fault(content: bytes, image_size: tuple[int, int]) -> str | None:
    """Why an encoded image cannot be decoded, in one line that goes on after its name; None if it can be decoded."""
    if not content:
        return "an empty file, or a damaged record"
    try:
        with tf.device("/cpu:0"):
            decode(tf.constant(content), image_size)
        return None
    # TensorFlow quotes a very short file in its error, whose bytes may be no text.
    except (tf.errors.OpError, UnicodeDecodeError):
        pass
    try:
        header = read_header(content)
    except ValueError as error:
        return f"a {form_of(content)} {error}"
    if header is None:
        return f"not an image (JPEG, PNG, GIF, BMP and WebP are read); it begins with the bytes {content[:4].hex(' ')}"
    return _too_large(header, image_size) or f"{header} that is truncated or damaged"


def file_fault(path: str, image_size: tuple[int, int]) -> str | None:
    """`fault` of a file, or why the file cannot be read."""
    content, reason = read_encoded(path)
    return reason or fault(content or b"", image_size)


def _batch(
    items: tf.Tensor, names: tf.Tensor, content: Callable[[tf.Tensor], tf.Tensor], image_size: tuple[int, int]
) -> tf.Tensor:
    def pixels(item: tf.Tensor) -> tf.Tensor:
        return tf.cast(resized(decode(content(item), image_size), image_size), tf.uint8)

    # TensorFlow's own error does not name the broken file. Inside a dataset the error can be caught: the result is then a batch
    # without the broken image, or none, and the empty batch behind it is taken. One dataset per batch is a third faster than one
    # per image.
    # A replica's share of a batch may be empty.
    count = tf.maximum(tf.size(names, tf.int64), 1)
    decoded = tf.data.Dataset.from_tensor_slices(items).map(pixels).batch(count).ignore_errors()
    empty = tf.data.Dataset.from_tensors(tf.zeros([0, *image_size, 3], tf.uint8))
    images = decoded.concatenate(empty).take(1).get_single_element()
    in_files = content is tf.io.read_file

    def fail() -> tf.Tensor:
        message, missing = tf.numpy_function(
            lambda i, n: _first_fault(i, n, in_files, image_size), [items, names], (tf.string, tf.string), stateful=False
        )
        # For a missing file TensorFlow itself raises an error of another type.
        read = tf.cond(missing == b"", lambda: missing, lambda: tf.io.read_file(missing))
        with tf.control_dependencies([read]), tf.control_dependencies([tf.debugging.Assert(False, [message])]):
            return tf.identity(images)

    return tf.ensure_shape(tf.cond(tf.shape(images)[0] == tf.size(names), lambda: images, fail), [None, *image_size, 3])


def _first_fault(items: np.ndarray, names: np.ndarray, in_files: bool, image_size: tuple[int, int]) -> tuple[bytes, bytes]:
    """The error message for the first broken image of a batch, and its name if it is missing."""
    for item, name in zip(items, names, strict=True):
        reason = file_fault(item.decode(), image_size) if in_files else fault(item, image_size)
        if reason:
            message = f"unreadable image: {name.decode()}: {reason}; {REMEDY}"
            return message.encode(), name if reason == MISSING else b""
    # On a disk with occasional errors, the second reading may succeed.
    return f"unreadable image: one that could be read again, of the batch from {names[0].decode()}".encode(), b""


def pixels_at(content: tf.Tensor, ratio: int) -> tf.Tensor:
    """Decodes an image, a JPEG at 1/ratio of its size, to uint8 [H, W, 3], not turned."""
    if ratio == 1:
        # Unlike decode_jpeg, decode_image reads every form.
        return tf.io.decode_image(content, channels=3, expand_animations=False)
    return tf.io.decode_jpeg(content, channels=3, ratio=ratio)


def _call(
    function: Callable[[bytes, tuple[int, int]], np.ndarray], content: tf.Tensor, image_size: tuple[int, int], dtype: tf.DType
) -> tf.Tensor:
    """Calls a Python function of the encoded image and the wanted size."""

    def run(encoded: bytes | np.ndarray) -> np.ndarray:
        # In a graph Python receives bytes, in eager mode an array without axes.
        return function(np.asarray(encoded, object).item(), image_size)

    return tf.numpy_function(run, [content], dtype, stateful=False)


def _branch_by_header(content: bytes, image_size: tuple[int, int]) -> np.ndarray:
    """The branch of `decode` for an image that may have EXIF: an upright one is decoded in the graph."""
    try:
        header = read_header(content)
    except ValueError:
        header = None
    in_graph = header and header.form in ("JPEG", "PNG") and header.orientation == 1 and not _too_large(header, image_size)
    return np.int32(RATIOS.index(_ratio(header, image_size)) if header and in_graph else _IN_PYTHON)


def _decode_in_python(content: bytes, image_size: tuple[int, int]) -> np.ndarray:
    """Decodes an image of any form, uint8 [H, W, 3]; an array without pixels if it cannot be decoded."""
    try:
        header = read_header(content)
        if header is None:
            # TensorFlow may know further forms.
            return pixels_at(tf.constant(content), 1).numpy()
        if _too_large(header, image_size):
            return np.zeros((0, 0, 3), np.uint8)
        if header.form in ("BMP", "WebP"):
            # TensorFlow takes a BMP's palette for shades of grey, and damages its memory by a WebP that says it is animated.
            image = np.asarray(_opened(header.form, content).convert("RGB"))
        else:
            if header.form == "GIF":
                content, size = first_frame(content)
                if math.prod(size) > MAX_PIXELS:
                    return np.zeros((0, 0, 3), np.uint8)
            with tf.device("/cpu:0"):
                image = pixels_at(tf.constant(content), _ratio(header, image_size)).numpy()
    except (ValueError, OSError, tf.errors.OpError):
        return np.zeros((0, 0, 3), np.uint8)
    return _turned(image, header.orientation)


def _opened(form: str, content: bytes) -> ImageFile.ImageFile:
    try:
        return FORMS[form][2](io.BytesIO(content))
    # Pillow raises errors of many types for damaged files.
    except Exception as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 200, placeholder=" ...")
        raise ValueError(f"that is truncated or damaged in its header ({reason})") from error


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF's orientation, 1 to 8; 1 if there is none or it makes no sense, as viewers take it."""
    try:
        # Not the PNG reader's own method, which decodes the pixels to look behind them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


@functools.cache
def needed_sides(image_size: tuple[int, int]) -> list[list[int]]:
    """The least height and width of a JPEG that is decoded at 1/2, at 1/4 and at 1/8."""
    return [[math.ceil(ratio * SPARE * side) for side in image_size] for ratio in RATIOS[1:]]


def _ratio(header: Header, image_size: tuple[int, int]) -> int:
    if header.form != "JPEG":
        return 1
    large_enough = [all(a >= b for a, b in zip(header.upright_size, least, strict=True)) for least in needed_sides(image_size)]
    return RATIOS[sum(large_enough)]


def _too_large(header: Header, image_size: tuple[int, int]) -> str | None:
    """Why an image with this header is too large to decode, or None."""
    # A progressive JPEG is held whole as 16-bit coefficients, whatever the ratio.
    ratio = 1 if "progressive" in header.traits else _ratio(header, image_size)
    values = 2 if "16 bits" in header.traits else 1
    if values * header.height * header.width <= MAX_PIXELS * ratio**2:
        return None
    advice = "make it smaller" if header.form == "JPEG" else "make it smaller, or a JPEG, which is decoded at a reduced scale"
    return f"{header}, of which more than {MAX_PIXELS // values // 10**6} million would be decoded at once: {advice}"


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an image upright from EXIF's orientation: transposes it if it lies on a side, then mirrors it."""
    image = image.swapaxes(0, 1) if orientation > 4 else image
    image = image[:, ::-1] if orientation in (2, 3, 6, 7) else image
    return np.ascontiguousarray(image[::-1] if orientation in (3, 4, 7, 8) else image)
