"""Networks by name: a backbone and a head that gives features and logits of every label."""

from crl_tf.models.applications import application_names
from crl_tf.models.backbones import NETWORKS
from crl_tf.models.build import build_network, check_network, find_network, network_names
from crl_tf.models.describe import describe
from crl_tf.models.transfer import BACKBONE

__all__ = [
    "BACKBONE",
    "NETWORKS",
    "application_names",
    "build_network",
    "check_network",
    "describe",
    "find_network",
    "network_names",
]
