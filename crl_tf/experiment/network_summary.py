"""What is trained, in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from crl_tf.crl_model import CRLModel
from crl_tf.experiment.data import Data
from crl_tf.experiment.proposal import FEW_IMAGES
from crl_tf.models import BACKBONE
from crl_tf.models.transfer import weighted_layers


def network_summary(network: Mapping[str, Any], data: Data, model: CRLModel) -> str:
    """One line, so that weights, frozen layers and sizes are seen to be what was meant.

    Args:
        network: its name, the source of its weights and the rate of its backbone (`Parts.network`).
    """
    height, width = data.image_size
    layers = weighted_layers(model.network.get_layer(BACKBONE))
    frozen = sum(not layer.trainable for layer in layers)
    trained = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    size = f"{network['name']} at {height} x {width} (height, width)"
    lines = [f"{size}: {trained:,} of {model.count_params():,} parameters are trained"]
    lines.append(f"augmentation: {', '.join(data.augment) or 'none'}")
    train = data.dataset.splits["train"]
    if network["pretrained"]:
        lines.append(f"backbone from {network['pretrained']}")
    elif train.in_files and len(train) < FEW_IMAGES:
        lines.append("random weights (--config=finetune starts from ImageNet's, which so few images gain from)")
    if frozen:
        lines.append(f"{frozen} of its {len(layers)} layers frozen")
    if network["backbone_rate"] != 1 and frozen < len(layers):
        lines.append(f"it learns at {network['backbone_rate']:g} of the rate")
    if frozen and not network["pretrained"]:
        lines.append("what is frozen keeps its random weights: no --pretrained is given")
    return "; ".join(lines)
