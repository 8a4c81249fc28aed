"""DeepID2 (Sun et al., 2014), the five-layer network of the paper's CelebA experiments (Sec. 4.1)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.layers.locally_shared_convolution import LocallySharedConv2D
from crl_tf.models.heads import scaled


def deepid2(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """Four convolutions, the first three pooled, and 160 features of a layer on the last two of them.

    The third convolution shares its filters within each 2 x 2 positions of its output only, and the fourth not at all (a locally
    connected layer), as published: weights that belong to a place of the face. "Locally shared in every 2 x 2 regions" is taken
    as regions of 2 x 2 positions, which are also what a position of the pooled output covers.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 32 x 32 on (published with 55 x 47).
        width: multiplies the filters and units.
    Returns:
        features [B, 160].
    """
    x = images
    for filters, kernel in ((20, 4), (40, 3)):
        x = layers.Conv2D(scaled(filters, width), kernel, activation="relu", kernel_initializer="he_normal")(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
    x = LocallySharedConv2D(scaled(60, width), 3, region=2, activation="relu")(x)
    x = layers.MaxPooling2D(2, padding="same")(x)
    deepest = LocallySharedConv2D(scaled(80, width), 2, activation="relu")(x)
    both_scales = layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(deepest)])
    return layers.Dense(scaled(160, width), activation="relu", kernel_initializer="he_normal", name="deepid")(both_scales)
