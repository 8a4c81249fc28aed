"""Networks by name: `build_network` makes one, `NETWORKS` and `application_names` say which there are."""

from crl_tf.models.backbones import NETWORKS
from crl_tf.models.build import build_network, check_network, find_network, network_names
from crl_tf.models.transfer import BACKBONE

__all__ = ["BACKBONE", "NETWORKS", "build_network", "check_network", "find_network", "network_names"]
