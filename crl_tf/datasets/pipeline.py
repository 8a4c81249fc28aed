"""From a split and indices to batches: shuffle indices, gather or decode, resize, batch, augment, prefetch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from crl_tf.datasets.source import Split


def flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Mirrors each image left to right with probability 1/2. Not for what reads differently mirrored (digits, text)."""
    mirrored = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed) < 0.5
    return tf.where(mirrored, tf.reverse(images, axis=[2]), images)


def crop(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Pads each side with black by 1/8 of its length and cuts out the original size at random (He et al. 2016)."""
    for axis, axis_seed in zip((1, 2), tf.unstack(tf.random.split(seed, 2)), strict=True):
        size = images.shape[axis]
        margin = size // 8
        paddings = [[margin, margin] if a == axis else [0, 0] for a in range(4)]
        start = tf.random.stateless_uniform([tf.shape(images)[0], 1], axis_seed, maxval=2 * margin + 1, dtype=tf.int32)
        images = tf.gather(tf.pad(images, paddings), start + tf.range(size)[tf.newaxis, :], axis=axis, batch_dims=1)
    return images


AUGMENTATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {"flip": flip, "crop": crop}
"""Each takes images [B, H, W, 3] and the seed of this batch, int32 [2], and returns images of the same shape."""


def make_pipeline(
    split: Split,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    training: bool,
    seed: int = 0,
    indices: np.ndarray | None = None,
    augment: Sequence[str] = (),
) -> tf.data.Dataset:
    """Batches of a split.

    In training the order is a new full shuffle in every epoch, and `augment` is applied; otherwise samples keep their order
    and `augment` is ignored. Order and augmentation follow from `seed` (and TensorFlow's global seed where one is set),
    however many threads decode.

    Args:
        split: images and labels.
        image_size: height and width that images are resized to, bilinear, antialiased; the aspect ratio is not kept.
        batch_size: samples per batch; the last batch may be smaller.
        training: shuffle and augment.
        seed: of shuffling and augmentation.
        indices: which samples, [m], integers; repeats are welcome (this is how resampling comes in). None: all, once.
        augment: names in `AUGMENTATIONS`, applied in this order.
    Returns:
        a dataset of known cardinality with elements images float32 [B, H, W, 3] in [0, 255], labels int32 [B, L].
    Raises:
        ValueError: for an argument out of its range.
        tf.errors.InvalidArgumentError: while iterating, with the file's name, for an image that cannot be decoded.
    """
    indices = _check_arguments(len(split), image_size, batch_size, indices, augment)
    # Captured by the functions below: on the host, and never copied into the graph.
    with tf.device("/cpu:0"):
        images, labels = tf.constant(split.images), tf.constant(split.labels, tf.int32)
        positions = tf.data.Dataset.from_tensor_slices(tf.constant(indices))
    if training:
        positions = positions.shuffle(len(indices), seed=seed, reshuffle_each_iteration=True)
    batches = (_read_files if images.dtype == tf.string else _gather)(positions, images, labels, image_size, batch_size)
    if training and augment:
        batches = _augmented(batches, seed, augment)
    options = tf.data.Options()
    options.deterministic = True
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _check_arguments(
    samples: int, image_size: tuple[int, int], batch_size: int, indices: np.ndarray | None, augment: Sequence[str]
) -> np.ndarray:
    if len(image_size) != 2 or not all(isinstance(side, (int, np.integer)) and side > 0 for side in image_size):
        raise ValueError(f"make_pipeline: image_size must be two positive integers (height, width), received {image_size}")
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"make_pipeline: batch_size must be a positive integer, received {batch_size}")
    unknown = [name for name in augment if name not in AUGMENTATIONS]
    # A string is a sequence of letters, none of them an augmentation.
    if isinstance(augment, str) or unknown:
        raise ValueError(f"make_pipeline: augment must be a list of names among {sorted(AUGMENTATIONS)}, received {augment!r}")
    indices = np.arange(samples) if indices is None else np.asarray(indices)
    if indices.ndim != 1 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f"make_pipeline: indices must be a non-empty vector of integers, received {indices.dtype} {list(indices.shape)}"
        )
    if indices.min() < 0 or indices.max() >= samples:
        raise ValueError(
            f"make_pipeline: indices must lie in [0, {samples - 1}], received {int(indices.min())} to {int(indices.max())}"
        )
    return indices.astype(np.int64)


def _gather(
    positions: tf.data.Dataset, images: tf.Tensor, labels: tf.Tensor, image_size: tuple[int, int], batch_size: int
) -> tf.data.Dataset:
    # Whole batches at once: per sample, the overhead of the map costs more than its work.
    def gather(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _resize(tf.gather(images, index), image_size), tf.gather(labels, index)

    return positions.batch(batch_size).map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def _read_files(
    positions: tf.data.Dataset, paths: tf.Tensor, labels: tf.Tensor, image_size: tuple[int, int], batch_size: int
) -> tf.data.Dataset:
    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _resize(_decode(tf.gather(paths, index)), image_size), tf.gather(labels, index)

    return positions.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)


def _resize(images: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    return tf.image.resize(tf.cast(images, tf.float32), image_size, method="bilinear", antialias=True)


def _decode(path: tf.Tensor) -> tf.Tensor:
    """The JPEG or PNG at `path`, uint8 [H, W, 3]."""

    def decode(content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        return tf.ensure_shape(image, [None, None, 3])

    # TensorFlow's own error does not say which file is broken. Inside a dataset the error can be caught: nothing comes out,
    # and the empty image behind it is taken for the answer. Measured: not slower than decoding without.
    decoded = tf.data.Dataset.from_tensors(tf.io.read_file(path)).map(decode).ignore_errors()
    nothing = tf.data.Dataset.from_tensors(tf.zeros([0, 0, 3], tf.uint8))
    image = decoded.concatenate(nothing).take(1).get_single_element()
    with tf.control_dependencies([tf.debugging.Assert(tf.size(image) > 0, ["not a readable JPEG or PNG image:", path])]):
        return tf.identity(image)


def _augmented(batches: tf.data.Dataset, seed: int, augment: Sequence[str]) -> tf.data.Dataset:
    # One number per batch, new in every epoch; each augmentation derives its own from it. No op keeps a state, so that the
    # map may run in parallel without a change in the outcome.
    numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)

    def apply(batch: tuple[tf.Tensor, tf.Tensor], number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = batch
        for place, name in enumerate(augment):
            images = AUGMENTATIONS[name](images, tf.stack([number, tf.constant(place, tf.int64)]))
        return images, labels

    return tf.data.Dataset.zip((batches, numbers)).map(apply, num_parallel_calls=tf.data.AUTOTUNE)
