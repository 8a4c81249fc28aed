"""Reads the files of images: regular files of a bounded size, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import tensorflow as tf

LARGEST_FILE = 1 << 29
"""Bytes of an image file that is read: an uncompressed image of `decode.MAX_PIXELS` has 300 to 400 million."""

MISSING = "missing"


def read_encoded(path: str) -> tuple[bytes | None, str | None]:
    """The bytes of an image file, or why it cannot be read: "missing", a folder, or the system's reason."""
    try:
        if "://" not in path and (reason := _no_image_file(os.stat(path))):
            return None, reason
        return tf.io.read_file(path).numpy() if "://" in path else Path(path).read_bytes(), None
    except (FileNotFoundError, tf.errors.NotFoundError):
        return None, MISSING
    except OSError as error:
        return None, f"cannot be opened ({error.strerror})"
    except tf.errors.OpError:
        return None, "cannot be opened"


def _no_image_file(found: os.stat_result) -> str | None:
    """Why what is found is no file of an image; reading a pipe waits for ever, and reading a device never ends."""
    if stat.S_ISDIR(found.st_mode):
        return "a folder, not an image file"
    if not stat.S_ISREG(found.st_mode):
        return "a pipe, device or socket, not an image file"
    if found.st_size > LARGEST_FILE:
        return f"a file of {found.st_size:,} bytes, of which at most {LARGEST_FILE:,} are read"
    return None
