"""What bench_loss.py runs: settings, synthetic imbalanced batches, and programs that loop inside one graph.

A program holds many iterations in one graph, so that calling it is not what is timed. No iteration can be skipped, shared or
moved ahead: each takes the next of several batches, its outputs shifted by 1e-30 of the gradient of the iteration before (which
changes no digit), and one runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from crl_tf.crl_model import CRLModel
from crl_tf.imbalance import power_law_counts
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.crl.rectification import class_rectification_loss
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.models import build_network

# (labels [B, L], logits [B, columns], features [B, L, D]) to a scalar
Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

BATCHES = 4
NUDGE = 1e-30


class Setting(NamedTuple):
    """frequencies: how often each class of each label occurs, one array per label."""

    name: str
    frequencies: tuple[np.ndarray, ...]
    batch: int
    network: str
    image_size: tuple[int, int]
    features: int = 64

    @property
    def num_classes(self) -> tuple[int, ...]:
        return tuple(len(f) for f in self.frequencies)


class Batches(NamedTuple):
    """BATCHES of them. labels: int32 [BATCHES, B, L]. logits: float32 [BATCHES, B, columns]. features: [BATCHES, B, L, D]."""

    labels: tf.Tensor
    logits: tf.Tensor
    features: tf.Tensor


def _normalised(weights: Sequence[float]) -> np.ndarray:
    return np.asarray(weights, np.float64) / np.sum(weights)


def _power_law(classes: int, ratio: float) -> np.ndarray:
    """Class frequencies falling to 1 : ratio."""
    return _normalised(np.arange(1.0, classes + 1) ** -(np.log(ratio) / np.log(classes)))


def settings(quick: bool) -> dict[str, Setting]:
    """Three settings like the paper's: many binary labels, few labels with many classes, one label with a hundred classes."""
    rates = np.random.default_rng(1).permutation(np.geomspace(0.02, 0.5, 4 if quick else 40))
    sizes = (3, 4, 6) if quick else (6, 6, 7, 9, 14, 18, 25, 38, 55)
    one_label = _power_law(5, 4) if quick else _normalised(power_law_counts(100, 1.0, 500, 25))
    side, batch = ((32, 32), 24) if quick else ((55, 47), 256)
    made = (
        Setting("celeba", tuple(np.array([1 - rate, rate]) for rate in rates), batch, "deepid2", side),
        Setting(
            "xdomain",
            tuple(
                _power_law(size, ratio)
                for size, ratio in zip(sizes, np.geomspace(2 if quick else 20, 4 if quick else 4000, len(sizes)), strict=True)
            ),
            batch // 2,
            "deepid2",
            side,
        ),
        Setting("cifar", (one_label,), batch, "cifarnet", (32, 32)),
    )
    return {setting.name: setting for setting in made}


def make_batches(setting: Setting, batch: int, seed: int = 0) -> Batches:
    """Labels at the setting's frequencies, and outputs of a half-trained model: some hinges are active, some are not.

    The first labels are not learned at all, the last ones well; within a label some samples are harder than others.
    """
    rng = np.random.default_rng([seed, batch])
    count = BATCHES * batch
    labels, logits, features = [], [], []
    for j, frequency in enumerate(setting.frequencies):
        size, learned = len(frequency), (j + 1) / len(setting.frequencies)
        label = rng.choice(size, count, p=frequency)
        easy = rng.uniform(0.0, 1.0, (count, 1))
        labels.append(label.astype(np.int32))
        logits.append(rng.normal(size=(count, size)) + learned * (3.0 + 6.0 * easy) * np.eye(size)[label])
        centres = rng.normal(size=(size, setting.features))
        features.append(0.08 * rng.normal(size=(count, setting.features)) + learned * easy * centres[label])
    joined = np.stack(labels, 1), np.concatenate(logits, 1).astype(np.float32), np.stack(features, 1).astype(np.float32)
    return Batches(*(tf.constant(x.reshape(BATCHES, batch, *x.shape[1:])) for x in joined))


def cross_entropy(setting: Setting) -> Loss:
    """The cross-entropy, as a function of a batch."""
    loss = MultiLabelCrossEntropy(setting.num_classes)
    return lambda labels, logits, features: tf.reduce_mean(loss.call(labels, logits))


def objective(setting: Setting, level: str, comparison: str, **parameters: object) -> Loss:
    """Eq. 8 with its cross-entropy, which is what a training step computes."""
    loss = CRL(setting.num_classes, level=level, comparison=comparison, alpha=0.5, **parameters)

    def of(labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(loss.batch_terms(labels, logits, features).per_sample)

    return of


def rectification(setting: Setting, level: str, comparison: str, **parameters: object) -> Loss:
    """L_crl alone, summed over labels: what naive loops and other packages compute."""

    def of(labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        inputs = logits if level == "class" else features
        options = {"num_classes": setting.num_classes, "level": level, "comparison": comparison, **parameters}
        return tf.reduce_sum(class_rectification_loss(labels, inputs, **options))

    return of


def nothing(labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Almost no computation: it measures the loop itself."""
    return tf.reduce_sum(logits[0]) + tf.cast(labels[0, 0], tf.float32)


def value_and_gradient(loss: Loss, *, needs_features: bool, xla: bool = False) -> Callable[..., tuple[tf.Tensor, ...]]:
    """(labels, logits, features) to (value, gradient by logits, and by features where they are needed)."""

    @tf.function(jit_compile=xla)
    def of(labels: tf.Tensor, logits: tf.Tensor, features: tf.Tensor) -> tuple[tf.Tensor, ...]:
        sources = (logits, features) if needs_features else (logits,)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            value = loss(labels, logits, features)
        return value, *tape.gradient(value, sources, unconnected_gradients="zero")

    return of


def loss_loop(step: Callable[..., tuple[tf.Tensor, ...]], batches: Batches, *, needs_features: bool) -> Callable[[int], float]:
    """run(n): value and gradient, `step` from `value_and_gradient`, n times in one graph; returns the mean value."""

    @tf.function
    def loop(iterations: tf.Tensor) -> tf.Tensor:
        def body(i: tf.Tensor, total: tf.Tensor, shift: tf.Tensor) -> tuple[tf.Tensor, ...]:
            labels, logits = (tf.gather(x, i % BATCHES) for x in (batches.labels, batches.logits))
            features = tf.gather(batches.features, i % BATCHES) + shift if needs_features else batches.features[0]
            value, *gradients = step(labels, logits + shift, features)
            return i + 1, total + value, NUDGE * tf.add_n([tf.reduce_sum(g) for g in gradients])

        start = tf.constant(0), tf.constant(0.0), tf.constant(0.0)
        return tf.while_loop(lambda i, *_: i < iterations, body, start, parallel_iterations=1)[1]

    return lambda iterations: float(loop(tf.constant(iterations))) / iterations


def make_model(setting: Setting, loss: keras.losses.Loss, precision: str = "float32") -> CRLModel:
    """The network of the setting, compiled."""
    classes = setting.num_classes
    network = build_network(setting.network, image_size=setting.image_size, num_classes=classes, precision=precision)
    model = CRLModel(network, dtype=precision)
    # So small a rate that the thousandth step is the same work as the first.
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9), loss=loss)
    return model


def make_images(setting: Setting) -> np.ndarray:
    """BATCHES batches of noise, float32 [BATCHES, B, H, W, 3]."""
    shape = (BATCHES, setting.batch, *setting.image_size, 3)
    return np.random.default_rng(2).uniform(0, 255, shape).astype(np.float32)


def training_loop(
    setting: Setting, loss: keras.losses.Loss, batches: Batches, *, xla: bool = False, precision: str = "float32"
) -> Callable[[int], float]:
    """run(n): n whole training steps in one graph; returns the running loss. With xla the step is compiled."""
    model, images = make_model(setting, loss, precision), tf.constant(make_images(setting))
    # Builds what the step keeps (slots of the optimizer, metrics), which a compiled step may not.
    model.train_step((images[0], batches.labels[0]))
    step = tf.function(lambda x, y: model.train_step((x, y))["loss"], jit_compile=xla)

    @tf.function
    def loop(iterations: tf.Tensor) -> tf.Tensor:
        def body(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, step(tf.gather(images, i % BATCHES), tf.gather(batches.labels, i % BATCHES))

        return tf.while_loop(lambda i, _: i < iterations, body, (tf.constant(0), tf.constant(0.0)), parallel_iterations=1)[1]

    return lambda iterations: float(loop(tf.constant(iterations)))
