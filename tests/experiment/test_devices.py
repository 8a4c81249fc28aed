"""Machines of a training: which addresses are taken, and what is said of one that cannot be listened at."""

import json
import socket
import subprocess
import sys

import pytest

from crl_tf.experiment.devices import set_machines

SCRIPT = """
from crl_tf.experiment.devices import strategy_of
try:
    strategy_of("multiworker")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize("worker", ["first", "first:0", "first:65536", "first:2222/x", "[::1]"])
def test_an_address_without_a_port_that_there_is_is_refused(worker):
    with pytest.raises(ValueError, match=r"workers must be host:port with a port in \[1, 65535\], .* received"):
        set_machines(["other:65535", worker], 0)


def test_a_port_that_is_taken_is_named_as_the_reason(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        workers = [f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:9"]
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert "train.distribute='multiworker': this machine cannot listen at its address" in ran.stdout, ran.stderr[-2000:]
