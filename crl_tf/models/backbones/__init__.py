"""Backbones: one file per network, images [-1, 1] to features [B, F]; the table of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras

from crl_tf.models.backbones import cifarnet, deepid2


class Backbone(NamedTuple):
    build: Callable[[keras.KerasTensor], keras.KerasTensor]
    smallest_side: int


BACKBONES: dict[str, Backbone] = {
    "deepid2": Backbone(deepid2.deepid2, deepid2.SMALLEST_SIDE),
    "cifarnet": Backbone(cifarnet.cifarnet, cifarnet.SMALLEST_SIDE),
}
