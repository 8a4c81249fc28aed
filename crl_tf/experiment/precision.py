"""The precision of a run whose configuration leaves it to the processor."""

from __future__ import annotations

import logging
from pathlib import Path

from ml_collections import ConfigDict

from crl_tf import machine
from crl_tf.experiment.config import override
from crl_tf.experiment.settings import AUTO_PRECISION
from crl_tf.experiment.workdir import AUTO, COMPARISON, CONFIG, config_in
from crl_tf.models import find_network

_log = logging.getLogger(__name__)

KEY = "train.precision"


def settled(config: ConfigDict, workdir: Path | None = None) -> ConfigDict:
    """The configuration with a precision in place of auto; every other one as it is.

    Args:
        workdir: the folder of a run, a comparison or a search. What is in it goes on in the precision that it was started with,
            on another processor too.
    """
    if config.train.precision != AUTO_PRECISION:
        return config
    began = None if workdir is None else next((name for name in (COMPARISON, AUTO, CONFIG) if (workdir / name).is_file()), None)
    if began is not None:
        chosen, why = config_in(workdir, began).train.precision, f"{workdir} was started with it"
    else:
        fast, why = machine.bfloat16()
        if fast and find_network(config.model).depthwise and not machine.gpu_capabilities():
            fast, why = False, f"{why}, but {config.model} has depthwise convolutions, which bfloat16 makes slower there"
        chosen = "mixed_bfloat16" if fast else "float32"
    _log.info("precision: %s, as auto chose: %s (another processor may choose another, and a seed's results differ)", chosen, why)
    return override(config, {KEY: chosen})
