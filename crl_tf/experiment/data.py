"""The data of a run: the dataset that a configuration names, loaded and checked once, and batches of it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from crl_tf.datasets import DATASETS, Dataset, Records, load_dataset
from crl_tf.datasets.cache import NONE, cached
from crl_tf.datasets.images.check import require_readable, without_unreadable
from crl_tf.datasets.ordering import rarest_class
from crl_tf.datasets.pipeline import EpochNumber, make_pipeline
from crl_tf.datasets.sources.celeba import OFFICIAL
from crl_tf.datasets.splitting import stratified_split
from crl_tf.experiment.devices import Batches, shared
from crl_tf.experiment.same_data import digests
from crl_tf.imbalance import class_counts, imbalance_ratio
from crl_tf.progress import SILENT, Progress
from crl_tf.schema import AttributeSchema
from crl_tf.text import counted, listed

_log = logging.getLogger(__name__)

WITHOUT_MEANING = {"gamma": 1.0, "schema": None, "celeba_validation": OFFICIAL, "download": False, "allow_outside_root": False}
"""Settings that only some datasets use (`DATASETS`), with the value that they have for the others."""


@dataclass(frozen=True)
class Data:
    """A dataset with its class counts, and how batches of it are made.

    counts: training samples per class, one array per label.
    image_size: height, width. augment: names of `crl_tf.datasets.pipeline.AUGMENTATIONS`, for training batches.
    open_shards: of records, how many shards a shuffle reads from at a time; None: all.
    digests: of the rows of every split (`crl_tf.experiment.same_data`); empty where nobody asks.
    """

    dataset: Dataset
    counts: list[np.ndarray]
    image_size: tuple[int, int]
    batch_size: int
    seed: int
    augment: tuple[str, ...] = ()
    open_shards: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)

    def batches(
        self,
        split: str,
        *,
        training: bool = False,
        indices: np.ndarray | Callable[[int], np.ndarray] | None = None,
        pairs: bool = False,
        epoch: EpochNumber | None = None,
        first_batch: int = 0,
        strategy: tf.distribute.Strategy | None = None,
    ) -> Batches:
        """Batches of images uint8 [B, *image_size, 3] and labels int32 [B, L]; shuffled and augmented in training.

        Args:
            indices: the images of an epoch, an array or a function of the epoch; None: all.
            pairs: whether two images of a class, the rarest of each image's, come side by side in training.
            epoch: the number of the next iteration; None: iterations count from 0.
            first_batch: how many batches of every iteration are left out.
            strategy: of several replicas, a machine reads the shares of its own.
        """
        samples = self.dataset.splits[split]
        # A cache of records is an array, which needs no order by shard.
        by_shard = training and isinstance(samples.images, Records)
        make = functools.partial(
            make_pipeline,
            samples,
            image_size=self.image_size,
            batch_size=self.batch_size,
            training=training,
            seed=self.seed,
            indices=indices,
            augment=self.augment if training else (),
            open_shards=self.open_shards if by_shard else None,
            pairs=rarest_class(samples.labels, self.dataset.schema.num_classes) if pairs else None,
            epoch=epoch,
            first_batch=first_batch,
        )
        return make() if strategy is None else shared(make, strategy)


def load_data(
    name: str,
    settings: ConfigDict,
    *,
    seed: int,
    batch_size: int,
    use_cache: bool = True,
    progress: Progress = SILENT,
) -> Data:
    """Loads a dataset, leaves out or refuses unreadable images, and decodes it into its cache.

    Args:
        name: a row of `crl_tf.datasets.DATASETS`.
        settings: the configuration's section "data".
        use_cache: False reads the images as they are and logs no summary: for evaluating a finished run.
    Raises:
        ValueError: a label without an annotated training image, or no annotated test image.
    """
    image_size = tuple(settings.image_size)
    dataset = load_source(name, settings, seed=seed, check_images=not settings.skip_unreadable, progress=progress)
    if settings.skip_unreadable:
        whole = dataset
        dataset, unreadable = without_unreadable(dataset, image_size=image_size, progress=progress)
        if unreadable:
            names = ", ".join(image.name for image in unreadable[:3])
            _log.info(
                "left out %s: %s%s", counted(len(unreadable), "unreadable image"), names, ", …" if len(unreadable) > 3 else ""
            )
            _warn_of_lost_classes(whole, dataset)
    if settings.train_share < 1:
        dataset = with_share_of_training(dataset, settings.train_share, seed)
    counts = class_counts(dataset.splits["train"].labels, dataset.schema.num_classes)
    _check_annotated(dataset, counts)
    # Of the rows as they come from the source: a cache holds the same ones decoded.
    of_rows = digests(dataset)
    if use_cache:
        _log.info("%s", _summary(dataset, counts))
        dataset = _with_cache(dataset, image_size, settings, progress)
    return Data(dataset, counts, image_size, batch_size, seed, tuple(settings.augment), settings.open_shards, of_rows)


def load_source(
    name: str,
    settings: ConfigDict,
    *,
    seed: int,
    check_images: bool,
    known: AttributeSchema | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Loads a dataset as its source gives it, without a look at its images.

    Args:
        name, settings, seed: as for `load_data`.
        check_images: whether a listed image file that is missing is an error.
        known: labels and classes of a trained model that is to be measured on the data (`load_dataset`).
    """
    for option, default in WITHOUT_MEANING.items():
        if settings[option] != default and option not in DATASETS[name].uses:
            raise ValueError(f"data.{option} has no meaning for {name}: leave it out, received {settings[option]!r}")
    dataset = load_dataset(
        name,
        data_dir=settings.dir,
        seed=seed,
        gamma=settings.gamma,
        celeba_validation=settings.celeba_validation,
        download=settings.download,
        schema=settings.schema,
        check_images=check_images,
        allow_outside_root=settings.allow_outside_root,
        known=known,
        progress=progress,
    )
    if settings.open_shards is not None and not isinstance(dataset.splits["train"].images, Records):
        raise ValueError(f"data.open_shards must be none for {name}, since only records have shards")
    return dataset


def with_share_of_training(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The dataset with a share of its training images, in which every class has this share, or nearly; the rest is as it was.

    Args:
        share: in (0, 1). A class with two images or more keeps one at least, as `stratified_split` says.
        seed: the same gives the same images.
    """
    train = dataset.splits["train"]
    taken = stratified_split(train.labels, {"taken": share, "left": 1 - share}, seed)["taken"]
    _log.info("train_share: %s of %s training images", f"{len(taken):,}", f"{len(train):,}")
    return replace(dataset, splits={**dataset.splits, "train": train.take(taken)})


def _with_cache(dataset: Dataset, image_size: tuple[int, int], settings: ConfigDict, progress: Progress) -> Dataset:
    place = settings.cache
    if place == NONE and not settings.skip_unreadable:
        # A broken training image stops the first epoch; one of these would stop the run after the last.
        require_readable(dataset, ("validation", "test"), image_size=image_size, progress=progress)
    cached_dataset = cached(dataset, image_size, place, progress=progress)
    decoded = [name for name in dataset.splits if cached_dataset.splits[name] is not dataset.splits[name]]
    height, width = image_size
    if decoded:
        num_bytes = sum(cached_dataset.splits[name].images.nbytes for name in decoded)
        _log.info("cache: %s at %d x %d, %s MB in %s", ", ".join(decoded), height, width, f"{num_bytes / 1e6:,.2f}", place)
    elif place != NONE:
        _log.info("cache: nothing to keep, the images are in memory at %d x %d already", height, width)
    return cached_dataset


def _warn_of_lost_classes(before: Dataset, after: Dataset) -> None:
    """Warns of classes that have no image of a split any more: without one in the test split they are not measured."""
    lost = []
    for name in before.splits:
        sizes = before.schema.num_classes
        had, has = (class_counts(dataset.splits[name].labels, sizes) for dataset in (before, after))
        for attribute, counts, left in zip(before.schema.attributes, had, has, strict=True):
            lost += [f"{attribute.name}={attribute.classes[k]} ({name})" for k in np.flatnonzero((counts > 0) & (left == 0))]
    if lost:
        _log.warning("the images that are left out were the last ones of: %s", listed(lost, 8))


def _check_annotated(dataset: Dataset, counts: list[np.ndarray]) -> None:
    empty = [name for name, count in zip(dataset.schema.names, counts, strict=True) if not count.any()]
    if empty:
        raise ValueError(f"dataset {dataset.name}: no training image is annotated for {', '.join(map(repr, empty))}")
    if (dataset.splits["test"].labels < 0).all():
        raise ValueError(f"dataset {dataset.name}: no test image is annotated")


def _summary(dataset: Dataset, counts: list[np.ndarray]) -> str:
    """Summarises the data in one line, so that a column mistaken for a label is seen before hours of training."""
    images = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    labels = f"{len(counts)} labels" if len(counts) > 1 else "1 label"
    untrained = sum(int((count == 0).sum()) for count in counts)
    note = f" ({untrained} without a training image)" if untrained else ""
    ratio = max(imbalance_ratio(count) for count in counts if count.any())
    return f"{labels}, {sum(map(len, counts)):,} classes{note}, imbalance to 1:{ratio:,.0f}; images: {images}"
