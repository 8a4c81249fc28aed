"""Makes batches of a split: shuffles indices, batches them, reads or decodes images, resizes, augments, prefetches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from crl_tf.datasets.images.decode import decode_images, encoded_image, read_images, resized
from crl_tf.datasets.ordering import paired, shuffled, shuffled_by_shard
from crl_tf.datasets.source import Records, Split
from crl_tf.machine import usable_cores


class Among(NamedTuple):
    """Where images stand in a batch of which they are a part: its first place, and the size of the batch."""

    first: tf.Tensor | int
    size: tf.Tensor | int


def flip(images: tf.Tensor, seed: tf.Tensor, among: Among | None = None) -> tf.Tensor:
    """Mirrors each image left to right with probability 1/2. Not for what reads differently mirrored (digits, text)."""
    mirrored = tf.where(_draws(images, seed, among)[:, 0] < 0.5)
    # Faster than tf.where over all pixels, because only mirrored images are moved.
    return tf.tensor_scatter_nd_update(images, mirrored, tf.reverse(tf.gather_nd(images, mirrored), axis=[2]))


def crop(images: tf.Tensor, seed: tf.Tensor, among: Among | None = None) -> tf.Tensor:
    """Pads each side with black by 1/8 of its length and cuts out the original size at random (He et al. 2016)."""
    for axis, axis_seed in zip((1, 2), tf.unstack(tf.random.split(seed, 2)), strict=True):
        size = images.shape[axis]
        margin = size // 8
        paddings = [[margin, margin] if a == axis else [0, 0] for a in range(4)]
        start = _draws(images, axis_seed, among, maxval=2 * margin + 1, dtype=tf.int32)
        images = tf.gather(tf.pad(images, paddings), start + tf.range(size)[tf.newaxis, :], axis=axis, batch_dims=1)
    return images


def _draws(images: tf.Tensor, seed: tf.Tensor, among: Among | None, **options: Any) -> tf.Tensor:
    """A random number for each image, [B, 1]: that which it has in the whole batch."""
    count = tf.shape(images, out_type=tf.int64)[0]
    first, size = among or Among(0, count)
    return tf.random.stateless_uniform([size, 1], seed, **options)[first : first + count]


AUGMENTATIONS: dict[str, Callable[..., tf.Tensor]] = {"flip": flip, "crop": crop}
"""Each maps images [B, H, W, 3] and the seed of the batch, int64 [2], to images of the same shape and type; of a part of a batch
with its place among all (`Among`), to those that the whole batch would have there."""


class Shares(NamedTuple):
    """The parts of every batch that are read here: of `of` nearly equal ones, `count` of them from the part `first` on."""

    first: int = 0
    count: int = 1
    of: int = 1

    def check(self) -> None:
        """Raises ValueError for parts that there are not."""
        if self.count < 1 or not 0 <= self.first <= self.of - self.count:
            raise ValueError(f"make_pipeline: shares must be parts among all of them, received {self}")


WHOLE = Shares()
"""Every batch, undivided."""


class EpochNumber:
    """The number of the epoch that a pipeline's next iteration is; each iteration adds one.

    A training that continues sets `number`, so that its epochs have the order and the augmentation that they would have had.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def take(self) -> int:
        """Returns the number and goes on to the next."""
        taken, self.number = self.number, self.number + 1
        return taken


PREFETCHED = 4
"""Batches that are prepared ahead of the training step."""


def make_pipeline(
    split: Split,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    training: bool,
    seed: int = 0,
    indices: np.ndarray | Callable[[int], np.ndarray] | None = None,
    augment: Sequence[str] = (),
    open_shards: int | None = None,
    pairs: np.ndarray | None = None,
    shares: Shares = WHOLE,
    epoch: EpochNumber | None = None,
    first_batch: int = 0,
) -> tf.data.Dataset:
    """Batches of a split, as bytes; the network casts them on its device.

    In training every epoch is shuffled anew and `augment` is applied; otherwise samples keep their order and `augment` is
    ignored. Order and augmentation follow from `seed` and the number of the epoch, and depend neither on the number of threads
    nor on whether the images come from files, memory or a cache (`datasets.cache`).

    Args:
        split: images and labels. An array, memory-mapped or not, is read batch by batch and never copied as a whole.
        image_size: height and width that images are resized to, bilinear, antialiased, rounded; the aspect ratio is not
            kept. Images of an array that have this size are not changed.
        batch_size: samples per batch; the last batch may be smaller.
        training: shuffle and augment.
        seed: of shuffling and augmentation, >= 0.
        indices: which samples, [m], integers, which may repeat (resampling). None: all, once. Or a function that draws them anew
            in every epoch, always equally many, from a key of the epoch, which follows from `seed` and the epoch's number.
        augment: names in `AUGMENTATIONS`, applied in this order.
        open_shards: of `Records`, how many shards a shuffle reads from at a time (`ordering.shuffled_by_shard`); None: all.
        pairs: int [n], groups of the samples, two of which come side by side in training (`ordering.paired`); None: no pairs.
        shares: the parts of every batch that are yielded, each as an element of its own, which may be empty: processes with the
            same seed share batches, whose order and augmentation are those of the undivided ones.
        epoch: the number of the next iteration; None: iterations count from 0.
        first_batch: how many batches of every iteration are left out: a training goes on within an epoch.
    Returns:
        a dataset of known cardinality with elements images uint8 [B, H, W, 3], labels int32 [B, L].
    Raises:
        ValueError: for an argument out of its range.
        tf.errors.InvalidArgumentError: while iterating, with the file's name, for an image that cannot be decoded.

    >>> split = Split(np.zeros((5, 8, 8, 3), np.uint8), np.zeros((5, 2), np.int32))
    >>> for images, labels in make_pipeline(split, image_size=(4, 4), batch_size=3, training=False):
    ...     print(images.shape, images.dtype.name, labels.shape)
    (3, 4, 4, 3) uint8 (3, 2)
    (2, 4, 4, 3) uint8 (2, 2)
    """
    first = indices(0) if callable(indices) else indices
    first = _check_arguments(len(split), image_size, batch_size, first, augment)
    image_size = (int(image_size[0]), int(image_size[1]))
    if open_shards is not None and not isinstance(split.images, Records):
        raise ValueError("make_pipeline: open_shards must be None for images that are not Records")
    if open_shards is not None and open_shards < 1:
        raise ValueError(f"make_pipeline: open_shards must be >= 1, received {open_shards}")
    shares.check()
    read = _reader(split.images, image_size)

    def order_of(key: np.ndarray) -> np.ndarray:
        order = np.asarray(indices(int(key)) if callable(indices) else first, np.int64)
        if training and open_shards is not None:
            order = shuffled_by_shard(order, split.images, open_shards, int(key))
        elif training:
            order = shuffled(order, int(key))
        if training and pairs is not None:
            order = paired(order, pairs, int(key))
        return order

    def load(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        labels = tf.numpy_function(lambda i: split.labels[i].astype(np.int32), [index], tf.int32, stateful=False)
        return read(index), tf.ensure_shape(labels, [None, split.labels.shape[1]])

    samples = len(first)
    # Whole batches: per sample, the overhead of a map costs more than the work on a small image.
    in_epoch = -(-samples // batch_size)
    if not 0 <= first_batch < in_epoch:
        raise ValueError(f"make_pipeline: first_batch must be less than the {in_epoch} of an epoch, received {first_batch}")
    batches = _index_batches(order_of, samples, batch_size, seed, epoch or EpochNumber(), first_batch, shares)
    augmented = _augmentation(augment if training else ())

    @tf.autograph.experimental.do_not_convert  # nothing branches in Python on a tensor
    def loaded(index: tf.Tensor, number: tf.Tensor, among: Among) -> tuple[tf.Tensor, tf.Tensor]:
        return augmented(*load(index), number, among)

    batches = batches.map(loaded, num_parallel_calls=usable_cores())
    options = tf.data.Options()
    options.deterministic = True
    # Not AUTOTUNE: the end of an epoch waits for its tuner to wake, which sleeps twice as long each time.
    options.autotune.enabled = False
    return batches.prefetch(PREFETCHED).with_options(options)


def _check_arguments(
    samples: int, image_size: tuple[int, int], batch_size: int, indices: np.ndarray | None, augment: Sequence[str]
) -> np.ndarray:
    if len(image_size) != 2 or not all(isinstance(side, (int, np.integer)) and side > 0 for side in image_size):
        raise ValueError(f"make_pipeline: image_size must be two positive integers (height, width), received {image_size}")
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"make_pipeline: batch_size must be a positive integer, received {batch_size}")
    unknown = [name for name in augment if name not in AUGMENTATIONS]
    # A string is a sequence too, of letters.
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


def _index_batches(
    order_of: Callable[[np.ndarray], np.ndarray],
    samples: int,
    batch_size: int,
    seed: int,
    epoch: EpochNumber,
    first_batch: int,
    shares: Shares = WHOLE,
) -> tf.data.Dataset:
    """Indices of batches or shares of them, int64 [B], a number for each batch, and the place of the share among the batch.

    The order is made anew in each epoch by `order_of`, from a key.

    tf.data's own shuffle keeps a tensor per sample, which for a million samples takes seconds and ten times the memory. Its
    random numbers cannot be continued in another process.
    """

    def next_key() -> np.int64:
        # Half of an unsigned number: not negative.
        return np.int64(np.random.SeedSequence([seed, epoch.take()]).generate_state(1, np.uint64)[0] >> np.uint64(1))

    @tf.autograph.experimental.do_not_convert
    def batches_of_epoch(_: tf.Tensor) -> tf.data.Dataset:
        key = tf.ensure_shape(tf.numpy_function(next_key, [], tf.int64), [])
        order = tf.ensure_shape(tf.numpy_function(order_of, [key], tf.int64, stateful=False), [samples])
        steps = tf.data.Dataset.range(first_batch * shares.count, in_epoch * shares.count)

        def share(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Among]:
            start, part = step // shares.count * batch_size, step % shares.count + shares.first
            size = tf.minimum(start + batch_size, samples) - start
            first, last = size * part // shares.of, size * (part + 1) // shares.of
            return order[start + first : start + last], key + start, Among(first, size)

        return steps.map(share)

    in_epoch = -(-samples // batch_size)
    count = (in_epoch - first_batch) * shares.count
    return tf.data.Dataset.range(1).flat_map(batches_of_epoch).apply(tf.data.experimental.assert_cardinality(count))


def _reader(images: np.ndarray | Records, image_size: tuple[int, int]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from the indices of a batch, int64 [B], to its images, uint8 [B, *image_size, 3]."""
    # By NumPy: a tensor would be a copy of the whole array, or of a whole file on disk.
    if isinstance(images, Records):

        def fetch(index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # Parsed here, because TensorFlow's parser quotes a damaged record's bytes and then fails to print them.
            contents = [encoded_image(record) for record in images.read(index)]
            return np.array(contents, object), np.array(images.names(index), object)

        def read(index: tf.Tensor) -> tf.Tensor:
            contents, names = tf.numpy_function(fetch, [index], (tf.string, tf.string), stateful=False)
            return decode_images(tf.ensure_shape(contents, [None]), tf.ensure_shape(names, [None]), image_size)

        return read
    if images.dtype.kind in "UT":

        def look_up(index: np.ndarray) -> np.ndarray:
            return np.array([path.encode() for path in images[index].tolist()], object)

        def read_files(index: tf.Tensor) -> tf.Tensor:
            paths = tf.numpy_function(look_up, [index], tf.string, stateful=False)
            return read_images(tf.ensure_shape(paths, [None]), image_size)

        return read_files
    rows = np.asarray(images)

    def gather(index: tf.Tensor) -> tf.Tensor:
        batch = tf.numpy_function(lambda i: rows.take(i, axis=0), [index], tf.uint8, stateful=False)
        batch = tf.ensure_shape(batch, [None, *rows.shape[1:]])
        return batch if rows.shape[1:3] == image_size else tf.cast(resized(batch, image_size), tf.uint8)

    return gather


def _augmentation(augment: Sequence[str]) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """A function from images, labels, the number of a batch and their place among it to images and labels.

    Each augmentation derives its draws from the number. No op keeps a state, so that a parallel map has the same result.
    """

    def apply(images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor, among: Among) -> tuple[tf.Tensor, tf.Tensor]:
        for place, name in enumerate(augment):
            images = AUGMENTATIONS[name](images, tf.stack([number, tf.constant(place, tf.int64)]), among)
        return images, labels

    return apply
