"""From logits to what a served model answers: scores, the decision and its name, for every label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from crl_tf.layout import PADDING_LOGIT, Layout, log_probabilities
from crl_tf.schema import AttributeSchema

SCORES, INDEX, NAME, DETECTED = "_scores", "_index", "_name", "_detected"
"""What is appended to a label's name in the names of outputs. None of them ends another, so no two labels share an output."""

VALID = "valid"
"""The output that says which images could be decoded."""

NO_DECISION = -1
"""The index where there is no image, or one with NaN."""


@dataclass(frozen=True)
class Scoring:
    """How logits become scores and decisions.

    offsets: added to the logits before the softmax, [sum(num_classes)]: those of a decision rule (`crl_tf.decision`), whose
    adjusted probabilities then decide by the largest. temperatures: of every label, [L]: the logits are divided by them.
    decision_offsets: added to the log of the scores for the decision alone, [sum(num_classes)].
    thresholds: a class is detected where its score reaches its threshold, [sum(num_classes)]; None: no detections.
    """

    offsets: np.ndarray | None = None
    temperatures: np.ndarray | None = None
    decision_offsets: np.ndarray | None = None
    thresholds: np.ndarray | None = None

    def to_config(self) -> dict[str, list[float] | None]:
        """A JSON-ready form; `from_config` is its inverse."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: None if value is None else np.asarray(value, np.float64).tolist() for name, value in fields.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Sequence[float] | None]) -> Scoring:
        return cls(**{name: None if value is None else np.asarray(value, np.float32) for name, value in config.items()})

    def log_scores(self, logits: tf.Tensor, layout: Layout) -> tf.Tensor:
        """The logs of the scores, float32 [B, sum(num_classes)]."""
        logits = tf.cast(logits, tf.float32)
        if self.temperatures is not None:
            logits = logits / np.asarray(self.temperatures, np.float32)[layout.column_label]
        if self.offsets is not None:
            logits = logits + np.asarray(self.offsets, np.float32)
        return tf.transpose(log_probabilities(logits, layout))

    def deciding(self, log_scores: tf.Tensor) -> tf.Tensor:
        """The numbers of which a label's largest decides, [B, sum(num_classes)]."""
        return log_scores if self.decision_offsets is None else log_scores + np.asarray(self.decision_offsets, np.float32)


def answers(logits: tf.Tensor, schema: AttributeSchema, scoring: Scoring, valid: tf.Tensor) -> dict[str, tf.Tensor]:
    """The outputs of every label.

    Args:
        logits: [B, sum(num_classes)].
        valid: bool [B]; an image that is not has NaN scores, `NO_DECISION` and an empty name.
    Returns:
        by name: LABEL_scores float32 [B, C], LABEL_index int32 [B], LABEL_name string [B]; with thresholds LABEL_detected
        bool [B, C].
    """
    layout = Layout(schema.num_classes)
    log_scores = scoring.log_scores(logits, layout)
    scores = tf.where(valid[:, tf.newaxis], tf.exp(log_scores), float("nan"))
    largest = tf.argmax(layout.pad(scoring.deciding(log_scores), PADDING_LOGIT), axis=-1, output_type=tf.int32)
    index = tf.where(valid[:, tf.newaxis], largest, NO_DECISION)
    # One operation for all labels where there can be one: with 40 labels the others would take a tenth of the time of a model.
    # The empty name first: NO_DECISION is -1.
    names = tf.constant([name for attribute in schema.attributes for name in ("", *attribute.classes)])
    first = np.cumsum([0, *(len(attribute.classes) + 1 for attribute in schema.attributes)])[:-1].astype(np.int32)
    of_label = [tf.split(scores, schema.num_classes, axis=1), tf.unstack(index, axis=1)]
    of_label.append(tf.unstack(tf.gather(names, index + 1 + first), axis=1))
    kinds = [SCORES, INDEX, NAME]
    if scoring.thresholds is not None:
        # NaN reaches no threshold.
        detected = scores >= np.asarray(scoring.thresholds, np.float32)
        of_label.append(tf.split(detected, schema.num_classes, axis=1))
        kinds.append(DETECTED)
    outputs: dict[str, tf.Tensor] = {}
    for attribute, *values in zip(schema.attributes, *of_label, strict=True):
        outputs |= {attribute.name + kind: value for kind, value in zip(kinds, values, strict=True)}
    return outputs
