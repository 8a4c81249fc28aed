"""DARN (Huang et al., ICCV 2015) for one domain, which the paper compares with on X-Domain (Sec. 4.2)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.models.backbones import nin
from crl_tf.models.heads import scaled


def darn(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """NIN units and two fully connected layers for all labels; each label has a branch of 64 units on them.

    Differs from the paper: one network for one domain, where the paper has one for the shop's and one for the street's images;
    no triplet ranking loss, which needs pairs across domains. Not published: the trunk is `nin`, as MTCT's; the two layers have
    4,096 units, as AlexNet's; a label's layer has 64, as an attribute's features in Sec. 4.1.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 32 x 32 on (227 x 227 as MTCT; not published).
        width: multiplies the filters and units.
    Returns:
        features [B, 4096].
    """
    x = nin.nin_units(images, width)
    for _ in range(2):
        x = layers.Dense(scaled(4096, width), "relu", kernel_initializer="he_normal")(x)
    return x
