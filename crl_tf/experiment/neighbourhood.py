"""The training images of a run that a served page shows beside a picture: those with the nearest features."""

from __future__ import annotations

import functools
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from crl_tf.datasets import DATASETS, Records, Split
from crl_tf.datasets.images.check import image_names
from crl_tf.datasets.images.decode import decode, encoded_image
from crl_tf.datasets.images.read import read_encoded
from crl_tf.datasets.ordering import by_rarest_class
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.workdir import CONFIG, config_in
from crl_tf.progress import SILENT, Progress
from crl_tf.schema import AttributeSchema
from crl_tf.serving.export import FEATURES
from crl_tf.serving.neighbours import Neighbours
from crl_tf.serving.served import load_served

_log = logging.getLogger(__name__)

MOST = 5_000
"""Training images that are looked among; of more, so many are drawn, those of the rarest classes first."""

THUMBNAIL = 96
"""The longer side of a picture that is shown, in pixels."""


def neighbours_of(folder: Path, export: Path, *, progress: Progress = SILENT) -> Neighbours | None:
    """The training images of a finished run by their features; None where they may not be shown, or are not to be had.

    Args:
        folder: of the run. export: its SavedModel.
    """
    config = config_in(folder, CONFIG)
    if not DATASETS[config.dataset].may_be_shown:
        _log.info("no training images are shown: those of %s may not be", config.dataset)
        return None
    served = load_served(export)
    if FEATURES not in served.signatures:
        return None
    try:
        data = assemble(config).load(use_cache=False, progress=progress)
    except (OSError, ValueError) as error:
        _log.warning("no training images are shown: %s", error)
        return None
    train = data.dataset.splits["train"]
    places = drawn(train.labels, data.dataset.schema.num_classes, config.seed)
    batches = data.batches("train", indices=places)
    tracked = progress.track(batches, "features of training images", int(batches.cardinality()))
    parts = [served.answer(FEATURES, images=tf.cast(images, tf.float32))["features"] for images, _ in tracked]
    features = np.concatenate(parts).reshape(len(places), -1)
    labels = [_annotated(row, data.dataset.schema) for row in train.labels[places]]
    captions = [os.path.basename(name) for name in image_names(train, places)]
    thumbnail = functools.partial(_thumbnail, train, places)
    return Neighbours(features=features, thumbnail=thumbnail, captions=captions, labels=labels)


def drawn(labels: np.ndarray, num_classes: Sequence[int], seed: int) -> np.ndarray:
    """The training images that are looked among, ascending; of too many those whose rarest class is rarest.

    Args:
        labels: int [n, L], -1 = not annotated.
    """
    if len(labels) <= MOST:
        return np.arange(len(labels))
    return np.sort(by_rarest_class(labels, num_classes, seed)[:MOST])


def _annotated(labels: np.ndarray, schema: AttributeSchema) -> dict[str, str]:
    known = zip(schema.attributes, labels.tolist(), strict=True)
    return {attribute.name: attribute.classes[value] for attribute, value in known if value >= 0}


def _thumbnail(train: Split, places: np.ndarray, index: int) -> bytes:
    """A small PNG of a training image."""
    image = Image.fromarray(_pixels(train, int(places[index])))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _pixels(train: Split, place: int) -> np.ndarray:
    if train.decoded:
        return np.asarray(train.images[place])
    if isinstance(train.images, Records):
        content = encoded_image(train.images.read(np.array([place]))[0])
    else:
        content = read_encoded(str(train.images[place]))[0] or b""
    return decode(tf.constant(content), (THUMBNAIL, THUMBNAIL)).numpy()
