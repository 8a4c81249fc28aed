"""Decodes images inside a SavedModel, by TensorFlow's operations alone, to the pixels that training sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from crl_tf.datasets.images.decode import FORMS, MAX_PIXELS, RATIOS, needed_sides, pixels_at, resized
from crl_tf.datasets.images.gif import EXTENSION, FRAME, TRAILER

AT_A_TIME = 16
"""Images of a request that are decoded at a time, as far as the server has threads."""

MOST_BLOCKS = 64
"""Segments or chunks of a file in which EXIF is looked for."""

_EXIF_MARK = b"Exif\x00\x00"
_ORIENTATION = 0x0112


class _Block(NamedTuple):
    """A segment or chunk of a file: where its content begins, how long it is, where the next one begins, and what it is."""

    start: tf.Tensor
    length: tf.Tensor
    following: tf.Tensor
    is_exif: tf.Tensor
    is_last: tf.Tensor


def decode_each(contents: tf.Tensor, image_size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes encoded images; one that cannot be decoded does not fail the others.

    Args:
        contents: string [B].
        image_size: height and width.
    Returns:
        float32 [B, *image_size, 3] of whole numbers, 0 where an image cannot be decoded; and whether it can, bool [B].
    """
    count = tf.size(contents, tf.int64)

    @tf.autograph.experimental.do_not_convert
    def numbered(place: tf.Tensor, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return place, tf.cast(resized(decode(content, image_size), image_size), tf.uint8)

    items = tf.data.Dataset.from_tensor_slices((tf.range(count), contents))
    decoded = items.map(numbered, num_parallel_calls=AT_A_TIME, deterministic=True).ignore_errors()
    # A dataset of no batch at all has no element to take.
    nothing = tf.data.Dataset.from_tensors((tf.zeros([0], tf.int64), tf.zeros([0, *image_size, 3], tf.uint8)))
    options = tf.data.Options()
    options.autotune.enabled = False  # its tuner would keep the request waiting
    batch = decoded.batch(tf.maximum(count, 1)).concatenate(nothing).take(1).with_options(options)
    places, images = batch.get_single_element()
    shape = tf.stack([count, *image_size, 3])
    whole = tf.scatter_nd(places[:, tf.newaxis], tf.cast(images, tf.float32), shape)
    valid = tf.scatter_nd(places[:, tf.newaxis], tf.ones_like(places, tf.int32), count[tf.newaxis]) > 0
    return tf.ensure_shape(whole, [None, *image_size, 3]), valid


def decode(content: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Decodes one encoded image, string [], to uint8 [H, W, 3], upright by EXIF.

    JPEG (large ones at 1/2, 1/4 or 1/8 of their size, as in training), PNG, the first frame of a GIF, WebP without animation, and
    BMP of 24 or 32 bits or with a palette of 256 colours.

    Raises:
        tf.errors.InvalidArgumentError: another form, a damaged image, or one of more than `MAX_PIXELS`.
    """
    forms = {form: tf.strings.substr(_padded(content, 16), at, len(mark)) == mark for form, (at, mark, _) in FORMS.items()}
    readers: dict[str, Callable[[], tf.Tensor]] = {
        "JPEG": lambda: _jpeg(content, image_size),
        "PNG": lambda: _png(content),
        "GIF": lambda: _gif(content),
        "BMP": lambda: _bmp(content),
        "WebP": lambda: _webp(content),
    }
    form = tf.argmax(tf.stack([forms[name] for name in readers]), output_type=tf.int32)
    with tf.control_dependencies([_require(tf.reduce_any(list(forms.values())), "the image is of none of the known forms")]):
        form = tf.identity(form)
    return tf.ensure_shape(tf.switch_case(form, list(readers.values())), [None, None, 3])


def _jpeg(content: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    size = tf.io.extract_jpeg_shape(content)[:2]
    orientation = _orientation(content, tf.constant(2), _jpeg_block)
    upright = tf.where(orientation > 4, size[::-1], size)
    least = np.array(needed_sides(image_size), np.int32)
    step = tf.reduce_sum(tf.cast(tf.reduce_all(upright >= least, axis=1), tf.int32))
    with tf.control_dependencies([_bounded(size)]):
        content = tf.identity(content)
    branches = [lambda ratio=ratio: pixels_at(content, ratio) for ratio in RATIOS]
    return _turned(tf.switch_case(step, branches), orientation)


def _png(content: tf.Tensor) -> tf.Tensor:
    values = 1 + tf.cast(_number(content, 24, 1) == 16, tf.int32)
    size = tf.stack([_number(content, 20, 4), _number(content, 16, 4)])
    pixels = tf.strings.regex_full_match(content, r"(?s)\C*IDAT\C*")
    with tf.control_dependencies([_bounded(size, values), _require(pixels, "the PNG has no pixels")]):
        image = tf.io.decode_image(tf.identity(content), channels=3, expand_animations=False)
    return _turned(image, _orientation(content, tf.constant(8), _png_block))


def _gif(content: tf.Tensor) -> tf.Tensor:
    size = tf.stack([_number(content, 8, 2, little=True), _number(content, 6, 2, little=True)])
    end, of_frame = _end_of_first_frame(content)
    with tf.control_dependencies([_bounded(size), _bounded(of_frame)]):
        cut = tf.strings.join([tf.strings.substr(content, 0, end), TRAILER])
    return tf.io.decode_image(cut, channels=3, expand_animations=False)


def _end_of_first_frame(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the first frame of a GIF ends, and its height and width; as `crl_tf.datasets.images.gif.first_frame`.

    The decoder holds all frames of a file in memory, and a small file can have very large ones.
    """
    length = tf.strings.length(content)
    at_block, in_extension, in_frame, done = range(4)

    def colours(at: tf.Tensor | int) -> tf.Tensor:
        flags = _number(content, at, 1)
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(1, flags % 8 + 1), 0)

    def step(at: tf.Tensor, state: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        first = _number(content, at, 1)

        def block() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            is_frame = (first == FRAME) & (at + 10 <= length)
            stated = tf.stack([_number(content, at + 7, 2, little=True), _number(content, at + 5, 2, little=True)])
            is_extension = first == EXTENSION
            following = tf.where(is_frame, at + 10 + colours(at + 9) + 1, tf.where(is_extension, at + 2, at))
            state = tf.where(is_frame, in_frame, tf.where(is_extension, in_extension, done))
            return following, state, tf.where(is_frame, stated, size)

        def chain() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            behind = tf.where(state == in_frame, done, at_block)
            return at + 1 + first, tf.where(first == 0, behind, state), size

        return tf.cond(state == at_block, block, chain)

    begin = 13 + colours(10)
    end, _, size = tf.while_loop(
        lambda at, state, _: (state != done) & (at < length),
        step,
        [begin, tf.constant(at_block), tf.constant([0, 0])],
        parallel_iterations=1,
    )
    return tf.minimum(end, length), size


def _webp(content: tf.Tensor) -> tf.Tensor:
    kind = tf.strings.substr(_padded(content, 16), 12, 4)
    extended, lossless = kind == b"VP8X", kind == b"VP8L"
    packed = _number(content, 21, 4, little=True)
    width = tf.where(extended, _number(content, 24, 3, little=True) + 1, _number(content, 26, 2, little=True) % 2**14)
    height = tf.where(extended, _number(content, 27, 3, little=True) + 1, _number(content, 28, 2, little=True) % 2**14)
    size = tf.stack([tf.where(lossless, packed // 2**14 % 2**14 + 1, height), tf.where(lossless, packed % 2**14 + 1, width)])
    # TensorFlow's decoder damages memory by a file that says it is animated and has one frame.
    animated = extended & (_number(content, 20, 1) // 2 % 2 == 1)
    # It also reads pixels without a chunk around them, whose size would stand elsewhere.
    known = _require(extended | lossless | (kind == b"VP8 "), "the WebP begins with an unknown chunk")
    with tf.control_dependencies([_bounded(size), known, _require(~animated, "the WebP is animated")]):
        image = tf.io.decode_image(tf.identity(content), expand_animations=False)[:, :, :3]
    return _turned(tf.ensure_shape(image, [None, None, 3]), _orientation(content, tf.constant(12), _webp_block))


def _bmp(content: tf.Tensor) -> tf.Tensor:
    width, height = (_number(content, at, 4, little=True) for at in (18, 22))
    bits, packing = _number(content, 28, 2, little=True), _number(content, 30, 4, little=True)
    supported = (_number(content, 14, 4, little=True) >= 40) & ((packing == 0) | (bits == 32))
    supported &= (bits == 8) | (bits == 24) | (bits == 32)
    checks = [_bounded(tf.stack([tf.abs(height), width])), _require(supported, "the BMP is packed in an unknown way")]
    with tf.control_dependencies(checks):
        content = tf.identity(content)
    return tf.cond(bits == 8, lambda: _bmp_of_palette(content, height, width), lambda: tf.io.decode_bmp(content)[:, :, :3])


def _bmp_of_palette(content: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """TensorFlow takes the palette for shades of grey."""
    begin, header = _number(content, 10, 4, little=True), _number(content, 14, 4, little=True)
    row = (width + 3) // 4 * 4  # bytes
    rows = tf.abs(height)
    colours = tf.reshape(tf.io.decode_raw(tf.strings.substr(content, 14 + header, begin - 14 - header), tf.uint8), [-1, 4])
    indices = tf.reshape(tf.io.decode_raw(tf.strings.substr(content, begin, row * rows), tf.uint8), [rows, row])[:, :width]
    image = tf.gather(tf.reverse(colours[:, :3], axis=[1]), tf.cast(indices, tf.int32))
    return tf.cond(height > 0, lambda: tf.reverse(image, axis=[0]), lambda: image)


def _bounded(size: tf.Tensor, values: tf.Tensor | int = 1) -> tf.Operation:
    # Both sides first: a product of two of them could overflow.
    sides = tf.reduce_all((size > 0) & (size <= MAX_PIXELS))
    pixels = tf.reduce_prod(tf.cast(size, tf.int64)) * tf.cast(values, tf.int64)
    return _require(sides & (pixels <= MAX_PIXELS), "the image has too many pixels, or none")


def _require(holds: tf.Tensor, what: str) -> tf.Operation:
    return tf.debugging.Assert(holds, [what])


def _orientation(content: tf.Tensor, start: tf.Tensor, block_at: Callable[[tf.Tensor, tf.Tensor], _Block]) -> tf.Tensor:
    """EXIF's orientation, int32 in 1 to 8; 1 where there is none or it makes no sense.

    Args:
        start: where the first block of the file begins.
        block_at: from the content and the place of a block to the block.
    """
    size = tf.strings.length(content)

    def found_or_next(
        position: tf.Tensor, start: tf.Tensor, length: tf.Tensor, blocks: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        block = block_at(content, position)
        start = tf.where(block.is_exif, block.start, start)
        length = tf.where(block.is_exif, block.length, length)
        over = block.is_exif | block.is_last | (block.following <= position)
        return tf.where(over, size, block.following), start, length, blocks + 1

    def goes_on(position: tf.Tensor, start: tf.Tensor, length: tf.Tensor, blocks: tf.Tensor) -> tf.Tensor:
        return (position < size) & (blocks < MOST_BLOCKS)

    def search() -> tf.Tensor:
        none = tf.constant(0)
        _, begin, length, _ = tf.while_loop(goes_on, found_or_next, [start, none, none, none], parallel_iterations=1)
        begin = tf.clip_by_value(begin, 0, size)
        exif = tf.strings.substr(content, begin, tf.clip_by_value(length, 0, size))
        return tf.cond(length > 0, lambda: _orientation_of(exif), lambda: tf.constant(1))

    # Most images have none, and a look for the words is faster than one at every block.
    may_have = tf.strings.regex_full_match(content, r"(?s)\C*(?:Exif\x00\x00|eXIf|EXIF)\C*")
    return tf.cond(may_have, search, lambda: tf.constant(1))


def _orientation_of(exif: tf.Tensor) -> tf.Tensor:
    """The orientation that the content of an EXIF block states."""
    marked = tf.strings.substr(_padded(exif, 8), 0, len(_EXIF_MARK)) == _EXIF_MARK
    tiff = tf.strings.substr(exif, tf.where(marked, len(_EXIF_MARK), 0), tf.strings.length(exif))
    order = tf.strings.substr(_padded(tiff, 8), 0, 2)
    little = order == b"II"

    def number(start: tf.Tensor | int, length: int) -> tf.Tensor:
        return tf.where(little, _number(tiff, start, length, little=True), _number(tiff, start, length))

    directory = number(4, 4)
    entries = tf.minimum(number(directory, 2), 1000)
    begin = tf.clip_by_value(directory + 2, 0, tf.strings.length(tiff))
    table = tf.io.decode_raw(tf.strings.substr(tiff, begin, entries * 12), tf.uint8)
    table = tf.cast(tf.reshape(table[: tf.size(table) // 12 * 12], [-1, 12]), tf.int32)
    low = tf.where(little, 0, 1)

    def pair(place: int) -> tf.Tensor:
        return tf.gather(table, place + low, axis=1) + 256 * tf.gather(table, place + 1 - low, axis=1)

    # As a short number, or (type 4) as a long one, whose lower half stands last in the other order of bytes.
    kind = pair(2)
    value = tf.where((kind == 4) & ~little, pair(10), pair(8))
    is_orientation = (pair(0) == _ORIENTATION) & ((kind == 3) | (kind == 4))
    values = tf.boolean_mask(value, is_orientation)
    first = tf.concat([values, [1]], axis=0)[0]
    sensible = (little | (order == b"MM")) & (first >= 1) & (first <= 8)
    return tf.where(sensible, first, 1)


def _jpeg_block(content: tf.Tensor, position: tf.Tensor) -> _Block:
    is_marker, marker = _number(content, position, 1) == 0xFF, _number(content, position + 1, 1)
    length = _number(content, position + 2, 2)
    mark = tf.strings.substr(_padded_from(content, position + 4, 6), 0, 6)
    is_exif = is_marker & (marker == 0xE1) & (mark == _EXIF_MARK)
    filler = marker == 0xFF
    following = tf.where(filler, position + 1, position + 2 + length)
    return _Block(position + 4, length - 2, following, is_exif, ~is_marker | (marker == 0xDA) | (marker == 0xD9))


def _png_block(content: tf.Tensor, position: tf.Tensor) -> _Block:
    length, name = _number(content, position, 4), tf.strings.substr(_padded_from(content, position + 4, 4), 0, 4)
    last = (name == b"IDAT") | (name == b"IEND") | (length < 0)
    return _Block(position + 8, length, position + 12 + length, name == b"eXIf", last)


def _webp_block(content: tf.Tensor, position: tf.Tensor) -> _Block:
    length, name = _number(content, position + 4, 4, little=True), _padded_from(content, position, 4)
    return _Block(position + 8, length, position + 8 + length + length % 2, name == b"EXIF", length < 0)


def _number(content: tf.Tensor, start: tf.Tensor | int, length: int, *, little: bool = False) -> tf.Tensor:
    """An unsigned number of 1 to 4 bytes as int32, 0 behind the end of the content; one above 2^31 is negative."""
    read = tf.cast(tf.io.decode_raw(_padded_from(content, start, length), tf.uint8), tf.int32)
    places = np.arange(length) if little else np.arange(length)[::-1]
    return tf.reduce_sum(tf.bitwise.left_shift(tf.ensure_shape(read, [length]), (8 * places).astype(np.int32)))


def _padded_from(content: tf.Tensor, start: tf.Tensor | int, length: int) -> tf.Tensor:
    """Exactly `length` bytes from `start` on, filled up with zeros behind the end."""
    start = tf.clip_by_value(start, 0, tf.strings.length(content))
    return tf.strings.substr(_padded(tf.strings.substr(content, start, length), length), 0, length)


def _padded(content: tf.Tensor, length: int) -> tf.Tensor:
    """The first bytes of the content, and zeros behind them; not all of a large content, which would be copied."""
    return tf.strings.join([tf.strings.substr(content, 0, max(length, 16)), b"\x00" * length])


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image upright: transposes it if it lies on a side, then mirrors it."""

    def turned() -> tf.Tensor:
        turning = tf.cond(orientation > 4, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        across = tf.reduce_any(orientation == [2, 3, 6, 7])
        mirrored = tf.cond(across, lambda: tf.reverse(turning, [1]), lambda: turning)
        down = tf.reduce_any(orientation == [3, 4, 7, 8])
        return tf.cond(down, lambda: tf.reverse(mirrored, [0]), lambda: mirrored)

    return tf.cond(orientation > 1, turned, lambda: image)
