"""DARN (Huang et al., ICCV 2015) for one domain, which the paper compares with on X-Domain (Sec. 4.2)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.models.backbones import nin
from crl_tf.models.heads import scaled

SMALLEST_SIDE = nin.SMALLEST_SIDE

BRANCH = (64,)
"""Units of the layer that every label has to itself, before its logits."""


def darn(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """NIN units and two fully connected layers for all labels, the stem of a tree whose branches are the labels.

    Published: two such networks, one for the shop's images and one for the street's, each NIN's convolutions, two fully
    connected layers and a tree of layers for the attributes; a triplet ranking loss ties the two, on features joined from both
    depths. Here: one of the two, and no ranking, which needs pairs across domains; what is left is its multi-label classifier.
    Ours, for lack of published numbers: the trunk that MTCT has (`nin`), 4,096 units in both layers as in AlexNet, and one
    layer of 64 for each label, what the paper gives an attribute's features in Sec. 4.1.

    Args:
        images: [B, H, W, 3] in [-1, 1]; height and width are free from 32 on (227 x 227 is ours, as for MTCT).
        width: multiplies the filters and units.
    Returns:
        features [B, 4096].
    """
    x = nin.nin_units(images, width)
    for _ in range(2):
        x = layers.Dense(scaled(4096, width), "relu", kernel_initializer="he_normal")(x)
    return x
