"""The table of networks: one file per backbone, one row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from crl_tf.layers.preprocessing import ApplicationInput, StandardizedImages, to_unit_range
from crl_tf.models.backbones import (
    anet,
    cifarnet,
    darn,
    ddan,
    deepid2,
    densenet,
    fashionnet,
    mtct,
    panda,
    resnet10,
    resnet32,
    resnet50,
)
from crl_tf.models.heads import Head, branches, linear


class Network(NamedTuple):
    """A row of the table.

    backbone: (preprocessed images, width) to features [B, F], in the precision of the policy. width multiplies the filters and
        units of every layer; 1 is the published network. Weights start by He's rule where the paper does not say how.
    head: from these features to the features and logits of every label.
    image_size: (height, width) of its images as published.
    published_classes: classes per label of the data that the paper trained it on, for counting its parameters.
    smallest_side: the least height and width of an image, of which a pixel is left after the last pooling.
    preprocess: from images in [0, 255] to what the backbone takes.
    widths: whether width can differ from 1.
    parts: whether the backbone also takes `regions` (`crl_tf.models.backbones.panda`).
    linear_svm: whether a linear SVM per label replaces the last layer after training.
    depthwise: whether it has depthwise convolutions, whose gradients bfloat16 makes slower on a processor.
    """

    backbone: Callable[..., keras.KerasTensor]
    head: Head
    image_size: tuple[int, int]
    published_classes: tuple[int, ...]
    smallest_side: int
    preprocess: Callable[[keras.KerasTensor], keras.KerasTensor] = to_unit_range
    widths: bool = True
    parts: bool = False
    linear_svm: bool = False
    depthwise: bool = False


CELEBA = (2,) * 40
XDOMAIN = (6, 6, 7, 9, 14, 18, 25, 38, 55)
"""Nine labels of 6 to 55 classes, 178 in all (Table 2). The sizes of the other seven are not published; these add up."""
DEEPFASHION = (2,) * 1000
CIFAR = (100,)

NETWORKS: dict[str, Network] = {
    "deepid2": Network(deepid2.deepid2, branches(64), (55, 47), CELEBA, 32),
    "mtct": Network(mtct.mtct, branches(256, 64), (227, 227), XDOMAIN, 32),
    "cifarnet": Network(cifarnet.cifarnet, linear, (32, 32), CIFAR, 4, preprocess=lambda images: StandardizedImages()(images)),
    "resnet10": Network(resnet10.resnet10, linear, (64, 64), CIFAR, 8),
    "resnet32": Network(resnet32.resnet32, linear, (32, 32), CIFAR, 8),
    "densenet": Network(densenet.densenet, linear, (32, 32), CIFAR, 8),
    "resnet50": Network(
        resnet50.resnet50, linear, (224, 224), DEEPFASHION, 32, preprocess=lambda images: ApplicationInput("resnet")(images)
    ),
    "anet": Network(anet.anet, linear, (55, 47), CELEBA, 16, linear_svm=True),
    "panda": Network(panda.panda, linear, (112, 92), CELEBA, 32, parts=True),
    "darn": Network(darn.darn, branches(64), (227, 227), XDOMAIN, 32),
    "ddan": Network(ddan.ddan, branches(64), (227, 227), XDOMAIN, 32),
    "fashionnet": Network(fashionnet.fashionnet, linear, (224, 224), XDOMAIN, 32),
}
