"""Keras layers. All are registered here, so that `import crl_tf` is enough to load a saved model."""

from crl_tf.layers.batch_normalization import BatchNormalization
from crl_tf.layers.cluster_decision import ClusterDecision
from crl_tf.layers.hog import HOG
from crl_tf.layers.join_features import JoinFeatures
from crl_tf.layers.local_response_normalization import LocalResponseNormalization
from crl_tf.layers.locally_shared_convolution import LocallySharedConv2D
from crl_tf.layers.logits import CosineLogits, LabelLogits
from crl_tf.layers.nearest_neighbours import NearestNeighbours
from crl_tf.layers.preprocessing import ApplicationInput, StandardizedImages
from crl_tf.layers.unit_features import UnitFeatures

__all__ = [
    "HOG",
    "ApplicationInput",
    "BatchNormalization",
    "ClusterDecision",
    "CosineLogits",
    "JoinFeatures",
    "LabelLogits",
    "LocalResponseNormalization",
    "LocallySharedConv2D",
    "NearestNeighbours",
    "StandardizedImages",
    "UnitFeatures",
]
