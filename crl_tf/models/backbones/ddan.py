"""DDAN (Chen et al., CVPR 2015) for one domain, which the paper compares with on X-Domain (Sec. 4.2)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.models.backbones import nin
from crl_tf.models.heads import scaled

SMALLEST_SIDE = nin.SMALLEST_SIDE

BRANCH = (64,)
"""Units of the layer that every label has to itself, before its logits."""


def ddan(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """NIN units and one fully connected layer for all labels, what is left of two columns when there is one domain.

    Published: a column for the shop's images and one for the street's; alignment cost layers between them draw the features of
    the two domains together, and the attributes are predicted from what the columns are merged into. Here: one column. With
    nothing to align, the costs are gone, and the layer that merges is an ordinary one; that makes one shared layer where DARN
    has two. How many there were, and how wide, could not be confirmed. Ours: the trunk that MTCT has (`nin`), 4,096 units as
    in DARN, and one layer of 64 for each label, what the paper gives an attribute's features in Sec. 4.1.

    Args:
        images: [B, H, W, 3] in [-1, 1]; height and width are free from 32 on (227 x 227 is ours, as for MTCT).
        width: multiplies the filters and units.
    Returns:
        features [B, 4096].
    """
    return layers.Dense(scaled(4096, width), "relu", kernel_initializer="he_normal")(nin.nin_units(images, width))
