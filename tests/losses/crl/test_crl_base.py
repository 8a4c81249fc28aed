"""`CRL` beside another loss than the cross-entropy; the callbacks that it asks for."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from objective_cases import batch_of

from crl_tf.callbacks import AlphaWarmup, CollapseWarning, TrainingProgress
from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.losses.curriculum import CurriculumLoss
from crl_tf.losses.focal import FocalLoss
from crl_tf.losses.ldam import LDAMLoss

SIZES, COUNTS = [2, 3, 5], [[90, 10], [50, 0, 7], [400, 30, 20, 1, 0]]


def value_and_gradient(loss, labels, outputs):
    x = tf.constant(outputs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x)
    return float(value), tape.gradient(value, x).numpy()


def test_crl_with_cross_entropy_as_its_base_is_crl():
    labels, logits, _ = batch_of(11, 30, SIZES, unannotated=0.1)
    for level, options in (("class", {}), ("instance", {"feature_shape": 4})):
        y_pred = logits if level == "class" else np.concatenate([logits[:, :4], logits], axis=1)
        plain = CRL(SIZES, level=level, alpha=0.4, **options)
        based = CRL(SIZES, level=level, alpha=0.4, base=MultiLabelCrossEntropy(SIZES), **options)
        expected, slopes = value_and_gradient(plain, labels, y_pred)
        value, gradient = value_and_gradient(based, labels, y_pred)
        assert value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-7)


def test_crl_may_be_the_base_of_crl():
    """Any loss that needs no features: eq. 8 within eq. 8."""
    labels, logits, _ = batch_of(14, 30, SIZES, unannotated=0.1)
    inner = CRL(SIZES, comparison="distribution", alpha=0.5, alpha_warmup_epochs=2)
    value = float(CRL(SIZES, alpha=0.25, base=inner)(labels, logits))
    only = float(CRL(SIZES, alpha=1.0)(labels, logits))
    assert value == pytest.approx(0.25 * only + 0.75 * float(inner(labels, logits)), rel=1e-5)
    assert [type(c) for c in CRL(SIZES, alpha=0.25, base=inner).callbacks(3)] == [CollapseWarning, AlphaWarmup]


def test_crl_has_the_progress_of_its_base():
    base = LDAMLoss(SIZES, COUNTS)
    loss = CRL(SIZES, alpha=0.4, base=base)
    TrainingProgress(loss, epochs=4).on_epoch_begin(3)
    assert float(base.progress) == 0.75 and loss.base is base
    with pytest.raises(ValueError, match="loss"):
        TrainingProgress(CRL(SIZES, alpha=0.4, base=FocalLoss(SIZES)), epochs=4)


def test_a_loss_says_which_callbacks_training_needs():
    ldam = LDAMLoss(SIZES, COUNTS)
    kinds = {
        FocalLoss(SIZES): [],
        ldam: [TrainingProgress],
        CurriculumLoss(SIZES, COUNTS): [TrainingProgress],
        CRL(SIZES, alpha=0.4): [CollapseWarning],
        CRL(SIZES, alpha=0.4, gate=True): [],
        CRL(SIZES, alpha=0.4, comparison="distribution"): [],
        CRL(SIZES, alpha=0.4, alpha_warmup_epochs=3): [AlphaWarmup, CollapseWarning],
        CRL(SIZES, alpha=0.4, alpha_warmup_epochs=3, base=ldam): [AlphaWarmup, CollapseWarning, TrainingProgress],
    }
    for loss, expected in kinds.items():
        assert [type(callback) for callback in loss.callbacks(epochs=10)] == expected
    loss = CRL(SIZES, alpha=0.4, alpha_warmup_epochs=4, base=ldam)
    for callback in loss.callbacks(epochs=10):
        callback.set_params({"steps": 2})
        callback.on_epoch_begin(2)
    assert float(loss.alpha_scale) == 0.5 and float(ldam.progress) == pytest.approx(0.2)


def test_a_config_of_before_there_was_a_base_or_a_warmup():
    config = CRL(SIZES, alpha=0.4).get_config()
    assert config.pop("base") is None and config.pop("alpha_warmup_epochs") == 0
    assert CRL.from_config(config).get_config() == {**config, "base": None, "alpha_warmup_epochs": 0}
    again = CRL.from_config(CRL(SIZES, alpha=0.4, alpha_warmup_epochs=3).get_config())
    assert again.alpha_warmup_epochs == 3 and keras.saving.serialize_keras_object(again)["registered_name"] == "crl_tf>CRL"
