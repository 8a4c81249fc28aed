"""Large Margin Local Embedding: a network per label, by quintuplets, decided by clusters (Huang et al., CVPR 2016)."""

from __future__ import annotations

import time
from collections.abc import Sequence

import keras
import numpy as np

from crl_tf.callbacks import StopAtNaN
from crl_tf.experiment.trainers.base import StageInput, check_settings
from crl_tf.experiment.trainers.features import feature_model
from crl_tf.experiment.trainers.lmle.label_training import learn_label
from crl_tf.experiment.trainers.lmle.learned import Learned, keep, kept, write_history
from crl_tf.layers.cluster_decision import ClusterDecision
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy


def learn_lmle(given: StageInput) -> tuple[keras.Model, float]:
    """LMLE as published: label by label, each on a network of its own that starts from common, pre-trained weights.

    Decision, ours: pre-training is `pretraining_epochs` of cross-entropy on all labels, in the place of the published features of
    face recognition. A label is then trained for as many iterations as another method's run has, epochs times
    ceil(n / batch_size). All else is said where it is done: `clusters`, `quintuplets`, `anchors`, `label_training`,
    `cluster_decision` and `crl_tf.losses.quintuplet`.

    The start and every finished label are kept in workdir/embedding, so that a run that is stopped goes on with the next label;
    seconds in history.csv there.

    Args:
        given: of its settings, all but `margin` and `references` are looked at.
    Returns:
        a `Stage`'s model, and seconds, those before it was stopped included.
    Raises:
        ValueError: a label that no training image is annotated for.
    """
    check_settings(given.settings)
    train, schema = given.dataset.splits["train"].labels, given.dataset.schema
    empty = [name for name, column in zip(schema.names, train.T, strict=True) if not (column >= 0).any()]
    if empty:
        raise ValueError(f"lmle: every label must have an annotated training image, received none for {', '.join(empty)}")
    folder = given.workdir / "embedding"
    rows = ["pretraining", *schema.names]
    learned = [_start(given)]
    write_history(folder, rows, learned)
    iterations = given.epochs * given.steps_per_epoch
    for label, name in enumerate(schema.names):
        path = folder / f"label_{label:04d}.npz"
        found = kept(path, iterations)
        if found is None:
            found = learn_label(given, label, learned[0].weights, iterations)
            keep(path, found)
        learned.append(found)
        write_history(folder, rows, learned)
        print(_progress(name, [label.seconds for label in learned[1:]], len(schema)), flush=True)
    began = time.perf_counter()
    model = _decision_model(given, learned[1:])
    return model, sum(found.seconds for found in learned) + time.perf_counter() - began


def _start(given: StageInput) -> Learned:
    """The weights that all labels start from."""
    path = given.workdir / "embedding" / "start.npz"
    iterations = given.settings.pretraining_epochs * given.steps_per_epoch
    found = kept(path, iterations)
    if found is not None:
        return found
    began = time.perf_counter()
    keras.utils.set_random_seed(given.seed)
    model = given.make_model()
    if iterations:
        optimizer = given.make_optimizer(model, given.steps_per_epoch)
        model.compile(optimizer, loss=MultiLabelCrossEntropy(list(given.dataset.schema.num_classes)))
        epochs = given.settings.pretraining_epochs
        # Else what is no number would be kept as the start of every label.
        model.fit(given.pipeline("train", True, None), epochs=epochs, shuffle=False, verbose=2, callbacks=[StopAtNaN()])
    none = np.zeros(0, np.float32)
    found = Learned(model.network.get_weights(), iterations, time.perf_counter() - began, none, none)
    keep(path, found)
    return found


def _progress(name: str, seconds: Sequence[float], labels: int) -> str:
    left = (labels - len(seconds)) * sum(seconds) / len(seconds)
    rest = f"about {left / 60:,.1f} min left" if left else "all labels are learned"
    return f"lmle {len(seconds)}/{labels} {name}: {seconds[-1]:,.1f} s, {rest}"


def _decision_model(given: StageInput, learned: Sequence[Learned]) -> keras.Model:
    """All labels' networks side by side, each with the clusters of its last features."""
    images = keras.Input((*given.image_size, 3), dtype="float32", name="images")
    logits = []
    for label, (found, size) in enumerate(zip(learned, given.dataset.schema.num_classes, strict=True)):
        model = given.make_model()
        model.network.set_weights(found.weights)
        features = feature_model(model, label, name=f"features_{label}")(images)
        decision = ClusterDecision.of(
            found.centres,
            found.classes,
            num_classes=size,
            neighbours=given.settings.neighbours,
            name=f"decision_{label}",
        )
        logits.append(decision(features))
    return keras.Model(images, keras.layers.Concatenate(name="logits")(logits) if len(logits) > 1 else logits[0], name="lmle")
