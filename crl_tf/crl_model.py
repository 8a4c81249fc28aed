"""A Keras model whose training step sees features and logits, as the instance level needs, and logs what rectification does."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from crl_tf.losses.base import FeatureLoss, per_sample_weight
from crl_tf.losses.crl.loss import CRL, Objective

BATCH_COUNTS = ("minority_classes", "triplets", "active_triplets")


@keras.saving.register_keras_serializable(package="crl_tf")
class CRLModel(keras.Model):
    """Wraps a network that yields features and logits; is itself a model from the same input to the logits.

    `compile(loss=CRL(...))` trains with eq. 8 at either level; a `FeatureLoss` sees features and logits too, any other Keras
    loss the logits, and so do metrics. With a CRL, each step adds to the logs, as running means of the epoch: `L_ce` and `L_crl`
    (summed over labels, before weighting), `minority_classes` and `triplets` (of a batch, over all labels) and
    `active_triplets` (the share that pulls on the model); validation logs the first two. `loss_weights` have no effect on a CRL
    or a `FeatureLoss`.

    Args:
        network: a keras.Model with output {"features": [B, L, D] or [B, D], "logits": [B, sum(num_classes)]}, or the pair
            (features, logits).

    >>> inputs = keras.Input((8,))
    >>> features = keras.layers.Dense(16)(inputs)
    >>> network = keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(3)(features)})
    >>> model = CRLModel(network)
    >>> model.compile("sgd", loss=CRL(3, level="instance", alpha=0.5))
    """

    def __init__(self, network: keras.Model, **kwargs: Any) -> None:
        # Inputs reach the network as they are, from the steps and from `call` alike; under a mixed policy Keras would round
        # those of `call` to its compute type first.
        super().__init__(**{"autocast": False, **kwargs})
        self.network = network
        self._logged = [keras.metrics.Mean(name=name) for name in ("L_ce", "L_crl", *BATCH_COUNTS)]
        if network.built and getattr(network, "inputs", None):
            # The steps call the network itself; Keras exports and saves only what it has seen called.
            self(network.inputs[0] if isinstance(network, keras.Sequential) else network.input)

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self._features_and_logits(inputs, training)[1]

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """The features [B, L, D] or [B, D] that the instance level compares, in inference mode."""
        return self._features_and_logits(inputs, training=False)[0]

    def _features_and_logits(self, inputs: tf.Tensor, training: bool | None) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = self.network(inputs, training=training)
        if isinstance(outputs, dict) and {"features", "logits"} <= set(outputs):
            return outputs["features"], outputs["logits"]
        if isinstance(outputs, (tuple, list)) and len(outputs) == 2:
            return tuple(outputs)
        kind = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
        raise ValueError(f"network must yield {{'features': ..., 'logits': ...}} or the pair (features, logits), received {kind}")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        shown = super().metrics
        if isinstance(getattr(self, "loss", None), CRL):
            return shown
        return [metric for metric in shown if metric not in self._logged]

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss, logits = self._loss_and_logits(x, y, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        if variables:
            self.optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        return self.compute_metrics(x, y, logits, sample_weight=sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        _, logits = self._loss_and_logits(x, y, sample_weight, training=False)
        logs = self.compute_metrics(x, y, logits, sample_weight=sample_weight)
        return {name: value for name, value in logs.items() if name not in BATCH_COUNTS}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """The loss of logits `y_pred`; the instance level runs the network on `x` for its features.

        Keras asks for it outside of a step when it builds a model under a strategy.
        """
        if isinstance(self.loss, FeatureLoss):
            features = self._features_and_logits(x, training)[0]
            return self._share_of_mean(self.loss.per_sample(y, y_pred, features), sample_weight)
        if not isinstance(self.loss, CRL):
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        features = self._features_and_logits(x, training)[0] if self.loss.level == "instance" else None
        return self._share_of_mean(self.loss.objective(y, y_pred, features).per_sample, sample_weight)

    def _loss_and_logits(self, x: Any, y: Any, sample_weight: Any, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        features, logits = self._features_and_logits(x, training)
        if isinstance(self.loss, CRL):
            objective = self.loss.objective(y, logits, features)
            loss = self._share_of_mean(objective.per_sample, sample_weight)
            if training:
                self._log_counts(objective)
            for metric, value in zip(self._logged, (objective.cross_entropy, objective.rectification), strict=False):
                metric.update_state(value)
        elif isinstance(self.loss, FeatureLoss):
            loss = self._share_of_mean(self.loss.per_sample(y, logits, features), sample_weight)
        else:
            loss = super().compute_loss(x, y, logits, sample_weight, training=training)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss * _replicas(), sample_weight=tf.shape(logits)[0])
        return loss, logits

    def _share_of_mean(self, per_sample: tf.Tensor, sample_weight: Any) -> tf.Tensor:
        """The mean of [B] and the network's own losses, scaled as Keras does under a strategy: the replicas' gradients add up."""
        if self.loss.reduction not in ("sum_over_batch_size", "mean"):
            what = type(self.loss).__name__
            raise ValueError(f"CRLModel takes a {what} with reduction='sum_over_batch_size', received {self.loss.reduction!r}")
        if sample_weight is not None:
            per_sample *= per_sample_weight(sample_weight)
        extra = [tf.cast(term, per_sample.dtype) for term in self.losses]
        # A replica's share of the last batch may be empty, and the mean over nothing is 0 here.
        mean = tf.math.divide_no_nan(tf.reduce_sum(per_sample), tf.cast(tf.size(per_sample), per_sample.dtype))
        return tf.add_n([mean, *extra]) / _replicas()

    def _log_counts(self, objective: Objective) -> None:
        classes, triplets, active = self._logged[2:]
        classes.update_state(objective.minority_classes)
        triplets.update_state(objective.triplets)
        active.update_state(tf.math.divide_no_nan(objective.active, objective.triplets), sample_weight=objective.triplets)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "network": keras.saving.serialize_keras_object(self.network),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> CRLModel:
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects=custom_objects)
        return cls(network, name=config["name"], dtype=config.get("dtype"))  # files of 0.1.0 have no dtype


def _replicas() -> float:
    return float(tf.distribute.get_strategy().num_replicas_in_sync)
