"""MTCT (Dong et al., WACV 2017), the network of the paper's X-Domain experiments (Sec. 4.2)."""

from __future__ import annotations

import keras

from crl_tf.models.backbones import nin


def mtct(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """Five stacked NIN units (`nin`); each label has a branch of 256 and 64 units on them.

    The paper: "five stacked NIN conv units and n_attr parallel branches with each a 3-FC-layers sub-network for modelling a
    distinct attribute". The last of the three layers is taken to be the classifier: two layers and the logits. Not published:
    their units. 64 is what Sec. 4.1 gives an attribute's features; 256 is the geometric mean of 64 and the trunk's 1,024. No
    curriculum, whose second stage needs a second domain.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 32 x 32 on (227 x 227, usual with this first layer; not published).
        width: multiplies the filters.
    Returns:
        features [B, 1024].
    """
    return nin.nin_units(images, width)
