"""Exports a trained model as a SavedModel that a server loads without this package."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from crl_tf.datasets.images.decode import resized
from crl_tf.files import write_whole
from crl_tf.schema import AttributeSchema
from crl_tf.serving.decoding import decode_each
from crl_tf.serving.scoring import VALID, Scoring, answers
from crl_tf.serving.warmup import FILE as WARMUP
from crl_tf.serving.warmup import write_warmup

DEFAULT, BYTES, UINT8, FEATURES, FEATURES_OF_BYTES, CLASS_NAMES = (
    *("serving_default", "image_bytes", "uint8_images", "features", "features_of_bytes", "class_names"),
)
CARD = "model.json"
"""In `assets.extra/`: what the model is."""


def export_saved_model(
    model: keras.Model,
    schema: AttributeSchema,
    image_size: Sequence[int],
    path: Path,
    *,
    scoring: Scoring | None = None,
    features_and_logits: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Writes a SavedModel.

    Its signatures:

    - serving_default: `images`, float32 [B, H, W, 3] in [0, 255], of any size, which are resized as in training; B may be 0.
    - uint8_images: `images`, the same as uint8.
    - image_bytes: `image_bytes`, string [B]: JPEG, PNG, GIF, BMP or WebP (`crl_tf.serving.decoding`), upright by EXIF. One that
      cannot be decoded does not fail the others.
    - features, features_of_bytes: from the same inputs as serving_default and image_bytes to `features`, float32 [B, D] or
      [B, L, D]; NaN for an image that cannot be decoded.
    - class_names: from nothing to the class names of each label under its name, string [C].

    The first three return the outputs of `crl_tf.serving.scoring.answers`; image_bytes `valid`, bool [B], too. An image with
    NaN or infinity has NaN. `assets.extra/model.json` holds the labels, the image size, the scoring and what `card` adds, and
    `assets.extra/tf_serving_warmup_requests` a request of one image to each signature.

    Args:
        model: maps images [B, *image_size, 3] to concatenated logits [B, sum(num_classes)].
        image_size: (height, width) that the model was trained with.
        scoring: how scores and decisions are made of logits; None: softmax, and the largest.
        features_and_logits: from images to features and the model's logits; None: no signatures of features.
        card: JSON-ready: training counts, test numbers, whatever a reader of the export should know.
    """
    size = (int(image_size[0]), int(image_size[1]))
    scoring = scoring or Scoring()
    module = tf.Module()
    module.model = model
    of_size = tf.TensorSpec([None, *size, 3], tf.float32)
    floats = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    small_integers = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    encoded = tf.TensorSpec([None], tf.string, name="image_bytes")

    # The model is traced once for all signatures.
    computed = tf.function(
        features_and_logits or (lambda images: (tf.zeros([0]), model(images, training=False))),
        input_signature=[of_size],
        autograph=False,
    )

    decoded = _decoder(size)
    of_logits = tf.TensorSpec([None, sum(schema.num_classes)], tf.float32)

    @tf.function(input_signature=[of_logits, tf.TensorSpec([None], tf.bool)], autograph=False)
    def answers_of(logits: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
        return answers(logits, schema, scoring, valid)

    def answered(images: tf.Tensor, valid: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        _, logits, numbers = _for_any_count(images, size, computed)
        return answers_of(tf.cast(logits, tf.float32), numbers if valid is None else numbers & valid)

    @tf.function(input_signature=[floats], autograph=False)
    def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answered(images)

    @tf.function(input_signature=[small_integers], autograph=False)
    def predict_uint8(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return answered(images)

    @tf.function(input_signature=[encoded], autograph=False)
    def predict_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images, valid = decoded(image_bytes)
        return {**answered(images, valid), VALID: valid}

    signatures: dict[str, Any] = {DEFAULT: predict, UINT8: predict_uint8, BYTES: predict_bytes}
    if features_and_logits is not None:

        def features_of(images: tf.Tensor, valid: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
            features, _, numbers = _for_any_count(images, size, computed)
            mask = tf.reshape(numbers if valid is None else numbers & valid, [-1] + [1] * (len(features.shape) - 1))
            return {"features": tf.where(mask, tf.cast(features, tf.float32), float("nan"))}

        @tf.function(input_signature=[floats], autograph=False)
        def features_of_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return features_of(images)

        @tf.function(input_signature=[encoded], autograph=False)
        def features_of_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            return features_of(*decoded(image_bytes))

        signatures |= {FEATURES: features_of_images, FEATURES_OF_BYTES: features_of_bytes}

    @tf.function(input_signature=[], autograph=False)
    def class_names() -> dict[str, tf.Tensor]:
        return {attribute.name: tf.constant(attribute.classes) for attribute in schema.attributes}

    signatures[CLASS_NAMES] = class_names
    described = description(schema, size, scoring, card)

    def write(partial: Path) -> None:
        tf.saved_model.save(module, str(partial), signatures=signatures)
        extra = partial / "assets.extra"
        extra.mkdir(exist_ok=True)
        (extra / CARD).write_text(json.dumps(described, indent=2, allow_nan=False), encoding="utf-8")
        write_warmup(extra / WARMUP, warmup_requests(size, list(signatures)))

    write_whole(path, write)


@functools.cache
def _decoder(size: tuple[int, int]) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """`decode_each` as a graph, which takes longer to trace than everything else here: once for all exports of a process."""
    encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
    return tf.function(lambda contents: decode_each(contents, size), input_signature=[encoded], autograph=False)


def _for_any_count(
    images: tf.Tensor, size: tuple[int, int], compute: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Resizes images as training does and computes on them, also on none.

    Returns:
        features, logits, and whether an image has neither NaN nor infinity, bool [B].
    """
    count = tf.shape(images)[0]
    right_size = tf.reduce_all(tf.shape(images)[1:3] == size)
    # As in training, images of the right size are not resized, and not rounded. Kernels of convolutions refuse a batch of none:
    # one image stands in, whose outputs are dropped.
    whole = tf.case(
        [(count == 0, lambda: tf.zeros([1, *size, 3])), (right_size, lambda: tf.cast(images, tf.float32))],
        default=lambda: resized(images, size),
    )
    whole = tf.ensure_shape(whole, [None, *size, 3])
    features, logits = compute(whole)
    # ReLU makes a number of NaN, and a bounded activation one of infinity. This sum is many times as fast as is_finite.
    zeros_or_nan = tf.reshape(whole - whole, [-1, size[0] * size[1] * 3])
    numbers = tf.reduce_sum(zeros_or_nan, axis=1) == 0
    return features[:count], logits[:count], numbers[:count]


def description(
    schema: AttributeSchema, size: tuple[int, int], scoring: Scoring, card: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of `model.json`: labels, image size (height, width), scoring, and what `card` adds."""
    return {"schema": schema.to_config(), "image_size": list(size), "scoring": scoring.to_config(), **(card or {})}


def warmup_requests(size: tuple[int, int], signatures: Sequence[str]) -> list[tuple[str, dict[str, tf.Tensor]]]:
    """One grey image for each signature that takes images."""
    grey = np.full((1, *size, 3), 128, np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey[0]).save(file, "JPEG")
    inputs = {
        DEFAULT: {"images": tf.constant(grey, tf.float32)},
        UINT8: {"images": tf.constant(grey)},
        BYTES: {"image_bytes": tf.constant([file.getvalue()])},
    }
    inputs |= {FEATURES: inputs[DEFAULT], FEATURES_OF_BYTES: inputs[BYTES]}
    return [(name, inputs[name]) for name in signatures if name in inputs]
