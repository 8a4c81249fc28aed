"""Loads an export, to answer with it and to say what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from crl_tf.files import read_json
from crl_tf.schema import AttributeSchema
from crl_tf.serving.export import CARD, DEFAULT
from crl_tf.serving.scoring import Scoring
from crl_tf.text import shortened

SAVED_MODEL = "saved_model.pb"


@dataclass(frozen=True)
class Served:
    """A loaded export.

    folder: of the SavedModel. schema: its labels and classes. image_size: (height, width) of its images. scoring: how it decides.
    card: the content of its `model.json`. signatures: by name, each from keyword arguments to tensors by name.
    """

    folder: Path
    schema: AttributeSchema
    image_size: tuple[int, int]
    scoring: Scoring
    card: Mapping[str, Any]
    signatures: Mapping[str, Any]

    def answer(self, signature: str, **inputs: Any) -> dict[str, np.ndarray]:
        """The outputs of a signature, as arrays; texts are bytes."""
        return {name: value.numpy() for name, value in self.signatures[signature](**inputs).items()}


def is_export(folder: Path) -> bool:
    """Whether a folder is a SavedModel."""
    return (Path(folder) / SAVED_MODEL).is_file()


def load_served(folder: Path) -> Served:
    """Loads an export.

    Raises:
        ValueError: the folder is none, or damaged, or of an older version of this program.
    """
    folder = Path(folder)
    if not is_export(folder):
        raise ValueError(f"workdir must be the folder of a run or an export of it; {folder} holds no {SAVED_MODEL}")
    path = folder / "assets.extra" / CARD
    if not path.is_file():
        raise ValueError(
            f"{folder} has no assets.extra/{CARD}, as exports of older versions: export the run again, --mode=export"
        )
    card = read_json(path)
    try:
        schema = AttributeSchema.from_config(card["schema"])
        height, width = (int(side) for side in card["image_size"])
        scoring = Scoring.from_config(card["scoring"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {shortened(str(error), 200)})") from error
    try:
        signatures = tf.saved_model.load(str(folder)).signatures
    # What TensorFlow makes of a damaged or a missing part.
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise ValueError(f"{folder} cannot be loaded ({type(error).__name__}: {shortened(str(error), 200)})") from error
    if DEFAULT not in signatures:
        raise ValueError(f"{folder} has no signature {DEFAULT}; there are {sorted(signatures)}")
    return Served(folder, schema, (height, width), scoring, card, signatures)
