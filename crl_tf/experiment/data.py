"""The data that a recipe asks for: the dataset, what is left out or kept decoded, what is resampled, and batches of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from crl_tf.datasets import load_dataset
from crl_tf.datasets.cache import NONE, cached
from crl_tf.datasets.images.check import require_readable, without_unreadable
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.resampling import Resampled, resample
from crl_tf.datasets.source import Dataset, Records


def load(config: ConfigDict, *, check_images: bool = True) -> Dataset:
    """The dataset of a recipe, without its unreadable images if the recipe says so."""
    skip = config.data.skip_unreadable
    dataset = load_dataset(
        config.dataset,
        data_dir=config.data.dir,
        seed=config.seed,
        gamma=config.data.gamma,
        download=config.data.download,
        schema=config.data.schema,
        # A missing image is as unreadable as a broken one.
        check_images=check_images and not skip,
    )
    if config.data.open_shards is not None and not isinstance(dataset.splits["train"].images, Records):
        raise ValueError(f"data.open_shards must be none for {config.dataset}: only records have shards")
    if skip and check_images:
        dataset, left_out = without_unreadable(dataset, image_size=tuple(config.data.image_size))
        if left_out:
            named = ", ".join(image.name for image in left_out[:3])
            what = "1 unreadable image" if len(left_out) == 1 else f"{len(left_out)} unreadable images"
            print(f"left out {what}: {named}{', …' if len(left_out) > 3 else ''}", flush=True)
    return dataset


def with_cache(config: ConfigDict, dataset: Dataset) -> Dataset:
    """The dataset as `data.cache` wants it, and a line on what became of that."""
    where, size = config.data.cache, config.data.image_size
    if where == NONE and not config.data.skip_unreadable:
        # A broken training image is met in the first epoch, one of these after the last. A cache meets all of them.
        require_readable(dataset, ("validation", "test"), image_size=tuple(size))
    kept = cached(dataset, tuple(size), where)
    decoded = [name for name in dataset.splits if kept.splits[name] is not dataset.splits[name]]
    if decoded:
        num_bytes = sum(kept.splits[name].images.nbytes for name in decoded)
        print(f"cache: {', '.join(decoded)} at {size[0]} x {size[1]}, {num_bytes / 1e6:,.2f} MB in {where}", flush=True)
    elif where != NONE:
        print(f"cache: nothing to keep, the images are in memory at {size[0]} x {size[1]} already", flush=True)
    return kept


def resampled(config: ConfigDict, dataset: Dataset) -> Resampled | None:
    """Which training images an epoch holds, where the recipe resamples them."""
    if config.resampling == "none":
        return None
    return resample(config.resampling, dataset.splits["train"].labels, dataset.schema, config.seed)


def pipeline_of(
    config: ConfigDict,
    dataset: Dataset,
    split: str,
    *,
    training: bool = False,
    indices: np.ndarray | Callable[[int], np.ndarray] | None = None,
) -> tf.data.Dataset:
    """Batches of a split at the recipe's size; in training shuffled and augmented, of these indices."""
    # A cache of records is an array, of which any sample is as near as any other.
    by_shard = training and isinstance(dataset.splits[split].images, Records)
    return make_pipeline(
        dataset.splits[split],
        image_size=config.data.image_size,
        batch_size=config.train.batch_size,
        training=training,
        seed=config.seed,
        indices=indices,
        augment=config.data.augment if training else (),
        open_shards=config.data.open_shards if by_shard else None,
    )
