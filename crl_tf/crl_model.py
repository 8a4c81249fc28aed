"""`CRLModel`: a Keras model whose training step gives the loss features and logits, and logs what the loss reports."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from crl_tf.losses.base import Loss, Terms, per_sample_weight
from crl_tf.replicas import Share, replicas, with_real
from crl_tf.serialization import registered


class _Tally(keras.metrics.Metric):
    """A sum of arrays; over replicas too."""

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self._total = self.add_variable(shape=shape, initializer="zeros", dtype="float32", name="total")

    def update_state(self, values: tf.Tensor) -> None:
        self._total.assign_add(values)

    def result(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._total)

    def set(self, values: np.ndarray) -> None:
        self._total.assign(values)


class _TargetsCheck(keras.callbacks.Callback):
    """Checks the classes of the targets that a training has seen: after its first step, and after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._in_first_step = self._in_first_epoch = True

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        # Reading waits for the step, so later ones are left to the end of the epoch.
        if self._in_first_step:
            self.model.loss.check_known(self.model.classes_seen())
            self._in_first_step = False

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        seen = self.model.classes_seen()
        self.model.loss.check_known(seen)
        if self._in_first_epoch:
            self.model.loss.warn_of_signs(seen)
            self._in_first_epoch = False


class _Objective(NamedTuple):
    """own: the part whose gradients a strategy adds up over the replicas. value: the loss, and the network's own losses."""

    own: tf.Tensor
    value: tf.Tensor


@registered
class CRLModel(keras.Model):
    """Wraps a network that yields features and logits; is itself a model from the same input to the logits.

    The losses of this package (`crl_tf.losses.base.Loss`) see features and logits; any other Keras loss and all metrics see the
    logits. Each step logs what the loss reports (`Loss.logged`), as running means of the epoch. `CRL` reports `L_ce` and `L_crl`
    (summed over labels, before weighting), `minority_classes` and `triplets` (of a batch, over all labels) and `active_triplets`
    (the share with a gradient); validation logs the first two. `loss_weights` have no effect on the losses of this package.

    Args:
        network: a keras.Model with output {"features": [B, L, D] or [B, D], "logits": [B, sum(num_classes)]}, or the pair
            (features, logits).
    Raises:
        ValueError: a network with any other output, or (from a step) a loss with another reduction than the mean.

    >>> from crl_tf import CRL
    >>> inputs = keras.Input((8,))
    >>> features = keras.layers.Dense(16)(inputs)
    >>> network = keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(3)(features)})
    >>> model = CRLModel(network)
    >>> model.compile("sgd", loss=CRL(3, level="instance", alpha=0.5))
    """

    # A mapping that Keras does not track: it takes no new metrics after a model is built.
    _logged: Mapping[str, keras.metrics.Mean] = MappingProxyType({})
    _tallied: Mapping[str, _Tally] = MappingProxyType({})
    _seen: Mapping[str, _Tally] = MappingProxyType({})

    def __init__(self, network: keras.Model, **kwargs: Any) -> None:
        # Inputs reach the network as they are, from the steps and from `call` alike; under a mixed policy Keras would round
        # those of `call` to its compute type first.
        super().__init__(**{"autocast": False, **kwargs})
        if not isinstance(network, keras.Model):
            raise ValueError(f"network must be a keras.Model, received {type(network).__name__}")
        self.network = network
        if network.built and getattr(network, "inputs", None):
            # Here, where Keras adds no words of its own to the error.
            _taken_apart(network.outputs[0] if isinstance(network, keras.Sequential) else network.output)
            # The steps call the network itself; Keras exports and saves only what it has seen called.
            self(network.inputs[0] if isinstance(network, keras.Sequential) else network.input)

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self._features_and_logits(inputs, training)[1]

    def features(self, inputs: tf.Tensor) -> tf.Tensor:
        """The network's features [B, L, D] or [B, D], in inference mode."""
        return self.features_and_logits(inputs)[0]

    def features_and_logits(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The network's features [B, L, D] or [B, D], and its logits [B, sum(num_classes)], in inference mode."""
        return self._features_and_logits(inputs, training=False)

    def _features_and_logits(self, inputs: tf.Tensor, training: bool | None) -> tuple[tf.Tensor, tf.Tensor]:
        if replicas() == 1 or tf.distribute.in_cross_replica_context():
            return _taken_apart(self.network(inputs, training=training))
        # A replica's share of the last batch may be empty, which oneDNN's convolutions refuse: zeros stand in, whose outputs are
        # dropped.
        count = tf.shape(keras.tree.flatten(inputs)[0])[0]
        with with_real(count):
            features, logits = _taken_apart(self.network(keras.tree.map_structure(_one_or_more, inputs), training=training))
        return features[:count], logits[:count]

    def fit(self, x: Any = None, y: Any = None, *arguments: Any, **keywords: Any) -> keras.callbacks.History:
        """As in Keras. Targets in an array are checked before the training, others after its first step and each epoch.

        Raises:
            ValueError: a class that does not exist, which the loss alone does not refuse under XLA.
        Warns:
            UserWarning: binary labels that are 1 or -1 and never 0.
        """
        in_array = isinstance(y, np.ndarray) or tf.is_tensor(y)
        if in_array and isinstance(self.loss, Loss):
            self.loss.check_targets(y)
        if in_array or not isinstance(self.loss, Loss):
            return super().fit(x, y, *arguments, **keywords)
        call = inspect.signature(super().fit).bind(x, y, *arguments, **keywords)
        callbacks = call.arguments.get("callbacks") or []
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(_TargetsCheck())
        else:
            callbacks = [*(callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]), _TargetsCheck()]
        call.arguments["callbacks"] = callbacks
        return super().fit(*call.args, **call.kwargs)

    def compile(self, *arguments: Any, **keywords: Any) -> None:
        """As in Keras."""
        super().compile(*arguments, **keywords)
        names = self.loss.logged if isinstance(self.loss, Loss) else ()
        self._logged = MappingProxyType({name: keras.metrics.Mean(name=name) for name in names})
        shapes = self.loss.tallied if isinstance(self.loss, Loss) else {}
        self._tallied = MappingProxyType({name: _Tally(shape, name) for name, shape in shapes.items()})
        labels = np.size(self.loss.num_classes) if isinstance(self.loss, Loss) else 0
        self._seen = MappingProxyType({"labels_seen": _Tally((4, labels), "labels_seen")} if labels else {})

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras's own leaves a model with a `compile` of its own uncompiled.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def tallies(self) -> dict[str, np.ndarray]:
        """What the loss adds up over the training steps since `compile` (`Loss.tallied`), float32 arrays by name.

        Under a `tf.distribute` strategy each replica's share of a batch counts as a step, where the loss mines shares.
        """
        return {name: np.array(tally.result()) for name, tally in self._tallied.items()}

    def classes_seen(self) -> np.ndarray:
        """In how many steps since `compile` each label had an unknown class, -1, 0 and 1: float32 [4, L]."""
        return np.array(self._seen["labels_seen"].result())

    def continue_tallies(self, tallies: Mapping[str, np.ndarray]) -> None:
        """Sets what `tallies` counts on from, as of an earlier part of the same training; names it does not have are ignored."""
        for name, tally in self._tallied.items():
            if name in tallies:
                tally.set(tallies[name])

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self._logged.values()]

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
        training_only = [name for name in self._logged if not self.loss.logged[name]]
        return {name: value for name, value in logs.items() if name not in training_only}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """The loss of logits `y_pred`; a loss that needs features runs the network on `x`.

        Keras asks for it outside of a step when it builds a model under a strategy.
        """
        if not isinstance(self.loss, Loss):
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        features = self._features_and_logits(x, training)[0] if self.loss.needs_features else None
        share = self._share(y_pred)
        return self._objective(self._terms(y, y_pred, features, share), sample_weight, share).own

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras's own takes the mean over the replicas' shares of the first batch, which fails where they differ in size.
        if self._distribute_strategy is None:
            return
        strategy = self.distribute_strategy
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = keras.tree.map_structure(lambda value: strategy.experimental_local_results(value)[0], next(batches))
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)

    def _make_function(self, step: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
        strategy = self.distribute_strategy
        if strategy.num_replicas_in_sync == 1:
            return super()._make_function(step)

        # Keras's own reduces the logs of a step over several machines as if they were batches, which fails. What a step returns
        # is for progress bars: the logs of an epoch are read from the metrics, which add up over all replicas.
        def one_step(data: Any) -> dict[str, Any]:
            outputs = strategy.run(step, args=(data,))
            return keras.tree.map_structure(lambda v: tf.reduce_mean(tf.stack(strategy.experimental_local_results(v))), outputs)

        one_step = tf.autograph.experimental.do_not_convert(one_step)
        one_step = self._autoconvert_optionals(one_step if self.run_eagerly else tf.function(one_step, reduce_retracing=True))

        def steps(iterator: Any) -> dict[str, Any]:
            logs = one_step(next(iterator))
            for _ in range(self.steps_per_execution - 1):
                try:
                    data = next(iterator)
                except StopIteration:
                    break
                logs = one_step(data)
            return logs

        return steps

    def _get_metrics_result_or_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        # Keras's own takes the logs of the last step where a step leaves metrics out; they are of one replica.
        return {name: value for name, value in self.get_metrics_result().items() if name in logs}

    def _loss_and_logits(self, x: Any, y: Any, sample_weight: Any, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        features, logits = self._features_and_logits(x, training)
        if isinstance(self.loss, Loss):
            share = self._share(logits)
            terms = self._terms(y, logits, features, share)
            loss, value = self._objective(terms, sample_weight, share)
            for name, log in terms.logs.items():
                if training or self.loss.logged[name]:
                    self._logged[name].update_state(log.value, sample_weight=log.weight)
            if training:
                # What is told of the whole batch counts once.
                counts = 1.0 if share is None else share.is_first
                for name, tally in self._tallied.items():
                    tally.update_state(terms.tallies[name] * counts)
                self._seen["labels_seen"].update_state(terms.seen)
        else:
            loss = super().compute_loss(x, y, logits, sample_weight, training=training)
            value = loss * float(replicas())
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(value, sample_weight=tf.shape(logits)[0])
        return loss, logits

    def _share(self, logits: tf.Tensor) -> Share | None:
        """Where this replica's samples are in a batch that the loss mines as a whole; None if they are all there are."""
        inside = tf.distribute.get_replica_context() is not None
        return Share.of(logits) if self.loss.mining == "global" and replicas() > 1 and inside else None

    def _terms(self, y: Any, logits: tf.Tensor, features: Any, share: Share | None) -> Terms:
        return self.loss.batch_terms(y, logits, features, whole=None if share is None else share.gathered)

    def _objective(self, terms: Terms, sample_weight: Any, share: Share | None) -> _Objective:
        if self.loss.reduction not in ("sum_over_batch_size", "mean"):
            kind = type(self.loss).__name__
            raise ValueError(f"CRLModel takes a {kind} with reduction='sum_over_batch_size', received {self.loss.reduction!r}")
        per_sample = terms.per_sample
        if sample_weight is not None:
            weight = per_sample_weight(sample_weight)
            per_sample *= weight if share is None else share.gathered(weight)
        # A replica's share of the last batch may be empty, and the mean over nothing is 0 here.
        mean = tf.math.divide_no_nan(tf.reduce_sum(per_sample), tf.cast(tf.size(per_sample), per_sample.dtype))
        regularization = [tf.cast(term, per_sample.dtype) for term in self.losses]
        value = tf.add_n([mean, *regularization])
        if share is None:
            return _Objective(value / replicas(), value)
        # The loss of the whole batch has the gradient of this replica's samples alone: the parts add up to it as they are.
        return _Objective(tf.add_n([mean, *(term / replicas() for term in regularization)]), value)

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


def _one_or_more(values: tf.Tensor) -> tf.Tensor:
    """The samples; where there are none, one of zeros."""
    shape = tf.shape(values)
    return tf.concat([values, tf.zeros([tf.cast(shape[0] == 0, tf.int32), *tf.unstack(shape[1:])], values.dtype)], axis=0)


def _taken_apart(outputs: Any) -> tuple[Any, Any]:
    """Features and logits of a network's output; ValueError for an output of another form."""
    if isinstance(outputs, dict) and {"features", "logits"} <= set(outputs):
        return outputs["features"], outputs["logits"]
    if isinstance(outputs, (tuple, list)) and len(outputs) == 2:
        return tuple(outputs)
    kind = sorted(outputs) if isinstance(outputs, dict) else type(outputs).__name__
    raise ValueError(f"network must yield {{'features': ..., 'logits': ...}} or the pair (features, logits), received {kind}")
