"""Methods: what a loss, a resampling and a decision rule are together, by name (`--method`), and how to make the loss."""

from crl_tf.methods.losses import LOSSES, STAGES, check_loss, make_loss
from crl_tf.methods.table import METHODS, PLAIN, Method, check_method, method_name, settings_of

__all__ = [
    "LOSSES",
    "METHODS",
    "PLAIN",
    "STAGES",
    "Method",
    "check_loss",
    "check_method",
    "make_loss",
    "method_name",
    "settings_of",
]
