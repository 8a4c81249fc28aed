"""MTCT (Dong et al., WACV 2017), the network of the paper's X-Domain experiments (Sec. 4.2)."""

from __future__ import annotations

import keras

from crl_tf.models.backbones import nin

SMALLEST_SIDE = nin.SMALLEST_SIDE

BRANCH = (256, 64)
"""Units of the layers that every label has to itself, before its logits."""


def mtct(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """Five stacked NIN units; each label's branch on them (`BRANCH`) is its own down to the convolutions.

    The paper: "five stacked NIN conv units and n_attr parallel branches with each a 3-FC-layers sub-network for modelling a
    distinct attribute". Nothing is named after these three, so the last of them is taken to be the attribute's classifier, as
    AlexNet counts its three: two layers and the logits. Their widths are not told; 64 is what Sec. 4.1 gives an attribute's
    features, and 256 is half-way, in the logarithm, from the trunk's 1,024. No curriculum: one domain has no second stage.

    Args:
        images: [B, H, W, 3] in [-1, 1]; height and width are free from 32 on. The paper names no size; 227 x 227 is usual for
            networks with this first layer.
        width: multiplies the filters.
    Returns:
        features [B, 1024].
    """
    return nin.nin_units(images, width)
