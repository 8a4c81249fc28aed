"""FashionNet (Liu et al., CVPR 2016) without its landmark branch, as the paper compares with it (Sec. 4.2, footnote 7)."""

from __future__ import annotations

import keras
from keras import layers

from crl_tf.models.heads import scaled

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Filters and number of 3x3 convolutions of each stage of VGG-16."""


def fashionnet(images: keras.KerasTensor, width: float = 1.0) -> keras.KerasTensor:
    """VGG-16 (Simonyan and Zisserman, 2015) up to its last layer but one.

    Differs from FashionNet, whose last convolutions and fully connected layers have three branches, for landmarks, for the
    regions around them and for the whole image: X-Domain has no landmarks, so only the last is here, which is VGG-16. No heads
    for categories and triplets; the paper predicts attributes only. It does not say from which weights it started. Trained from
    scratch, 16 layers without batch normalisation need He's initialisation.

    Args:
        images: [B, H, W, 3] in [-1, 1], of any size from 32 x 32 on (published with 224 x 224).
        width: multiplies the filters and units.
    Returns:
        features [B, 4096] after ReLU; in training, dropout of a half follows both fully connected layers.
    """
    x = images
    for filters, convolutions in STAGES:
        for _ in range(convolutions):
            x = layers.Conv2D(scaled(filters, width), 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    for name in ("fc6", "fc7"):
        x = layers.Dense(scaled(4096, width), "relu", kernel_initializer="he_normal", name=name)(x)
        x = layers.Dropout(0.5)(x)
    return x
