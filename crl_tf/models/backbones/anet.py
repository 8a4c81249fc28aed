"""ANet (Liu et al., ICCV 2015), a face network that the paper compares with on CelebA (Sec. 4.1)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.models.heads import scaled


def anet(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """Four convolutions, the first three pooled, and one fully connected layer: features for a linear SVM per label.

    Differs from the paper: no LNet, which finds the face, since CelebA's images are aligned faces; no training on identities;
    convolutions share their filters over the whole image, where the paper's third and fourth have filters for each cell of a
    grid. The numbers of filters and units are those of the DeepID networks, since the published ones could not be confirmed.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 16 x 16 on (55 x 47 as DeepID2; not published).
        width: multiplies the filters and units.
    Returns:
        features [B, 160], non-negative.
    """
    x = images
    for filters, kernel in ((20, 4), (40, 3), (60, 3)):
        x = layers.Conv2D(scaled(filters, width), kernel, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(scaled(80, width), 2, padding="same", activation="relu", kernel_initializer="he_normal")(x)
    return layers.Dense(scaled(160, width), "relu", kernel_initializer="he_normal", name="fc")(layers.Flatten()(x))
