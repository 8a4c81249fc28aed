"""Exports a trained model as a SavedModel that a server loads without this package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from crl_tf.datasets.images.decode import resized
from crl_tf.files import write_whole
from crl_tf.layout import Layout, log_probabilities
from crl_tf.schema import AttributeSchema


def export_saved_model(
    model: keras.Model,
    schema: AttributeSchema,
    image_size: Sequence[int],
    path: Path,
    *,
    offsets: np.ndarray | None = None,
) -> None:
    """Writes a SavedModel with two signatures.

    serving_default: from `images` float32 [B, H, W, 3] in [0, 255], of any size, to the probabilities of each label under its
    name, float32 [B, C]; B may be 0, and an image with NaN has NaN. Images are resized as in training.
    class_names: from nothing to the class names of each label under its name, string [C].
    `assets.extra/schema.json` holds the names as well.

    Args:
        model: maps images [B, *image_size, 3] to concatenated logits [B, sum(num_classes)].
        image_size: (height, width) that the model was trained with.
        offsets: what a decision rule adds to the logits (`crl_tf.decision.rule_offsets`), [sum(num_classes)]; the probabilities
            are then the adjusted ones, whose largest is the decision. None: the model's own.
    """
    layout = Layout(schema.num_classes)
    size = (int(image_size[0]), int(image_size[1]))
    module = tf.Module()
    module.model = model

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="images")])
    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(images)[0]
        # Kernels of convolutions refuse a batch of none: one image stands in, whose probabilities are dropped.
        images = tf.pad(images, [[0, tf.maximum(0, 1 - count)], [0, 0], [0, 0], [0, 0]])
        # As in training, images of the right size are not resized, and not rounded.
        right_size = tf.reduce_all(tf.shape(images)[1:3] == size)
        images = tf.cond(right_size, lambda: images, lambda: resized(images, size))
        images = tf.ensure_shape(images, [None, *size, 3])
        logits = model(images, training=False)
        logits = logits if offsets is None else logits + tf.constant(offsets, tf.float32)
        probabilities = tf.exp(tf.transpose(log_probabilities(logits, layout)))
        # ReLU makes a number of NaN.
        broken = tf.reduce_any(tf.math.is_nan(images), axis=[1, 2, 3])
        probabilities = tf.where(broken[:, tf.newaxis], float("nan"), probabilities)[:count]
        return {name: probabilities[:, schema.columns(name)] for name in schema.names}

    @tf.function(input_signature=[])
    def class_names() -> dict[str, tf.Tensor]:
        return {attribute.name: tf.constant(attribute.classes) for attribute in schema.attributes}

    def write(partial: Path) -> None:
        tf.saved_model.save(module, str(partial), signatures={"serving_default": predict, "class_names": class_names})
        extra = partial / "assets.extra"
        extra.mkdir(exist_ok=True)
        (extra / "schema.json").write_text(json.dumps(schema.to_config(), indent=2), encoding="utf-8")

    write_whole(path, write)
