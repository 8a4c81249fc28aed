"""The task that a configuration gives its trainer."""

from pathlib import Path

from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.run import Context, prepare


def task_of(config, data=None, workdir=Path("unused")):
    """Loads the data of the configuration unless they are given."""
    parts = assemble(config)
    return prepare(Context(parts, data or parts.load(), workdir))
