"""Losses, layers, metrics and a training step for badly imbalanced labels, in TensorFlow and Keras 3."""

import os
import sys

from crl_tf.quiet import without_native_messages

if sys.orig_argv[1:] == ["-m", "crl_tf.main", "--help"]:
    from crl_tf.help import show_help

    show_help()

if sys.orig_argv[1:3] == ["-m", "crl_tf.main"] and os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") not in ("0", "1"):
    # Only as a command: TensorFlow's lines about kernels and a GPU that is not there would hide what follows.
    with without_native_messages():
        import tensorflow

        tensorflow.config.list_physical_devices()

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(f"crl_tf needs Keras's TensorFlow backend (KERAS_BACKEND=tensorflow), received {keras.backend.backend()!r}")

from crl_tf import optimizers as optimizers  # registers what the models of runs were trained with
from crl_tf.callbacks import AlphaWarmup, TrainingProgress
from crl_tf.crl_model import CRLModel
from crl_tf.imbalance import imbalance_measure
from crl_tf.layers import HOG, ClusterDecision, CosineLogits, JoinFeatures, NearestNeighbours
from crl_tf.losses.asymmetric import AsymmetricLoss
from crl_tf.losses.crl.loss import CRL, crl_losses
from crl_tf.losses.crl.profiling import minority_classes
from crl_tf.losses.crl.rectification import class_rectification_loss
from crl_tf.losses.cross_entropy import MultiLabelCrossEntropy
from crl_tf.losses.curriculum import CurriculumLoss
from crl_tf.losses.focal import FocalLoss
from crl_tf.losses.ldam import LDAMLoss
from crl_tf.losses.logit_adjusted import BalancedSoftmaxLoss, LogitAdjustedLoss
from crl_tf.losses.reweighted import ClassBalancedLoss, CostSensitiveLoss
from crl_tf.losses.triplet import TripletLoss
from crl_tf.metrics import ClassBalancedAccuracy
from crl_tf.schedules import RateWarmup
from crl_tf.version import __version__

__all__ = [
    "CRL",
    "HOG",
    "AlphaWarmup",
    "AsymmetricLoss",
    "BalancedSoftmaxLoss",
    "CRLModel",
    "ClassBalancedAccuracy",
    "ClassBalancedLoss",
    "ClusterDecision",
    "CosineLogits",
    "CostSensitiveLoss",
    "CurriculumLoss",
    "FocalLoss",
    "JoinFeatures",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "MultiLabelCrossEntropy",
    "NearestNeighbours",
    "RateWarmup",
    "TrainingProgress",
    "TripletLoss",
    "__version__",
    "class_rectification_loss",
    "crl_losses",
    "imbalance_measure",
    "minority_classes",
]
