"""DDAN (Chen et al., CVPR 2015) for one domain, which the paper compares with on X-Domain (Sec. 4.2)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.models.backbones import nin
from crl_tf.models.heads import scaled


def ddan(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """NIN units and one fully connected layer for all labels; each label has a branch of 64 units on it.

    Differs from the paper: one column for one domain, where the paper has one for the shop's and one for the street's images
    with alignment costs between their layers, and a layer that merges them. That layer is the fully connected one. Not
    published, as far as could be confirmed: the numbers of layers and units. The trunk is `nin`, as MTCT's; the layers have
    4,096 and 64 units, as DARN's.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 32 x 32 on (227 x 227 as MTCT; not published).
        width: multiplies the filters and units.
    Returns:
        features [B, 4096].
    """
    return layers.Dense(scaled(4096, width), "relu", kernel_initializer="he_normal")(nin.nin_units(images, width))
