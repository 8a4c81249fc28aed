"""The table of networks: one file per backbone, one row each that says what stands on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

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
    resnet32,
    resnet50,
)
from crl_tf.models.heads import branches, linear
from crl_tf.models.preprocessing import as_application, to_unit_range

Head = Callable[..., dict[str, keras.KerasTensor]]
"""(features [B, F], classes per label, width) to {"features": [B, D] or [B, L, D], "logits": [B, sum(num_classes)]}, float32."""


class Network(NamedTuple):
    """A row of the table.

    backbone: (images as `preprocess` gives them, width) to features [B, F], in the policy's precision. width multiplies the
        filters of every layer: 1 is the published network.
    head: what stands on it, with the width too.
    image_size: (height, width) of its images as published.
    published_classes: classes per label of the data that the paper trained it on; for counting its parameters and FLOPs.
    smallest_side: of an image, what is left of which after the last pooling is no less than a pixel.
    preprocess: images in [0, 255] to what the backbone wants.
    widths: whether width can be anything but 1.
    parts: whether the backbone takes `regions`, too (`crl_tf.models.backbones.panda`).
    linear_svm: whether, after training, a linear SVM per label takes the place of the last layer (`crl_tf.experiment.trainers.linear_svm`).
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


CELEBA = (2,) * 40
XDOMAIN = (6, 6, 7, 9, 14, 18, 25, 38, 55)
"""Nine labels of 6 to 55 classes, 178 in all (Table 2); how many each of the others has is not told there."""
DEEPFASHION = (2,) * 1000
CIFAR = (100,)

NETWORKS: dict[str, Network] = {
    "deepid2": Network(deepid2.deepid2, branches(64), (55, 47), CELEBA, deepid2.SMALLEST_SIDE),
    "mtct": Network(mtct.mtct, branches(*mtct.BRANCH), (227, 227), XDOMAIN, mtct.SMALLEST_SIDE),
    "cifarnet": Network(cifarnet.cifarnet, branches(64), (32, 32), CIFAR, cifarnet.SMALLEST_SIDE),
    "resnet32": Network(resnet32.resnet32, linear, (32, 32), CIFAR, resnet32.SMALLEST_SIDE),
    "densenet": Network(densenet.densenet, linear, (32, 32), CIFAR, densenet.SMALLEST_SIDE),
    "resnet50": Network(
        resnet50.resnet50, linear, (224, 224), DEEPFASHION, resnet50.SMALLEST_SIDE, preprocess=as_application("resnet")
    ),
    "anet": Network(anet.anet, linear, (55, 47), CELEBA, anet.SMALLEST_SIDE, linear_svm=True),
    "panda": Network(panda.panda, linear, (112, 92), CELEBA, panda.SMALLEST_SIDE, parts=True),
    "darn": Network(darn.darn, branches(*darn.BRANCH), (227, 227), XDOMAIN, darn.SMALLEST_SIDE),
    "ddan": Network(ddan.ddan, branches(*ddan.BRANCH), (227, 227), XDOMAIN, ddan.SMALLEST_SIDE),
    "fashionnet": Network(fashionnet.fashionnet, linear, (224, 224), XDOMAIN, fashionnet.SMALLEST_SIDE),
}
