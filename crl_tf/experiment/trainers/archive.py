"""Reads .keras files, of checkpoints and of finished models: whether they are whole, and what is in them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import keras

from crl_tf.text import shortened

PARTS = {"config.json", "metadata.json", "model.weights.h5"}
"""What a .keras file consists of."""


def damage_of(path: Path) -> str | None:
    """What is wrong with a .keras file, all of which is read; None for a whole one.

    Raises:
        PermissionError: the file may not be read, and so may be whole.
    """
    try:
        with zipfile.ZipFile(path) as content:
            missing, broken = PARTS - set(content.namelist()), content.testzip()
    except PermissionError:
        raise
    # A flipped bit can say that a part is encrypted (RuntimeError) or packed in an unknown way (NotImplementedError).
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        return str(error) or type(error).__name__
    if missing:
        return f"it lacks {', '.join(sorted(missing))}"
    return f"its part {broken} has another checksum" if broken else None


def load_trained(path: Path) -> keras.Model:
    """The model of a finished run.

    Raises:
        ValueError: the file is damaged, or holds no model that this program knows.
    """
    if damage := damage_of(path):
        raise ValueError(
            f"{path} is damaged ({damage}): delete it and the results beside it, and --resume makes them anew from the last"
            " checkpoint"
        )
    try:
        return keras.saving.load_model(path)
    # What Keras makes of a configuration that was changed.
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = shortened(str(error) or type(error).__name__, 200)
        raise ValueError(f"{path} holds no model that can be read ({type(error).__name__}: {reason})") from error
