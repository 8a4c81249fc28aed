"""The devices of a training: the strategies of `tf.distribute` by name."""

from __future__ import annotations

import functools
import re

import tensorflow as tf

NONE = "none"
WORDS = "none, mirrored (all GPUs), or mirrored:N (N GPUs; without a GPU, N logical CPUs)"


def is_distribution(name: str) -> bool:
    """Whether `strategy_of` knows a name.

    >>> [name for name in ("none", "mirrored", "mirrored:4", "mirrored:0", "tpu") if is_distribution(name)]
    ['none', 'mirrored', 'mirrored:4']
    """
    return re.fullmatch(r"none|mirrored(:[1-9]\d{0,2})?", name) is not None


@functools.cache
def strategy_of(name: str) -> tf.distribute.Strategy:
    """The strategy of a name, which is made once in a process: those of two strategies would be mixed up in their exchanges.

    Call before TensorFlow computes anything: logical CPUs must be set up before it starts.

    Args:
        name: as `WORDS` says.
    Raises:
        ValueError: there are not so many GPUs, none and no number of CPUs, or TensorFlow has started.
    """
    if name == NONE:
        return tf.distribute.get_strategy()
    count = int(name.partition(":")[2] or 0)
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        if count > gpus:
            raise ValueError(f"train.distribute must be of at most {gpus} GPUs, which there are, received {name!r}")
        return tf.distribute.MirroredStrategy([f"GPU:{number}" for number in range(count or gpus)])
    if not count:
        raise ValueError(f"train.distribute must be mirrored:N without a GPU, for N logical CPUs, received {name!r}")
    _make_logical_cpus(name, count)
    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(count)])


def _make_logical_cpus(name: str, count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise ValueError(
            f"train.distribute={name!r} must be set up before TensorFlow starts: choose it in a new process"
        ) from error
