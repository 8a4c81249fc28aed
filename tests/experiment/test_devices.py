"""Machines of a training: which addresses are taken, which a Slurm step has, and what is said where one cannot listen."""

import json
import shutil
import socket
import subprocess
import sys

import pytest

from crl_tf.experiment.devices import set_machines, slurm_job

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


def test_the_tasks_of_a_slurm_step_are_the_machines(monkeypatch):
    step = {"NUM_TASKS": "4", "TASKS_PER_NODE": "2(x2)", "NODELIST": "node[3-4]"}
    for name, value in {**{f"SLURM_STEP_{name}": value for name, value in step.items()}, "SLURM_PROCID": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    job = slurm_job()
    # TensorFlow's resolver counts ports from 8888.
    tasks = ["node3:8888", "node3:8889", "node4:8888", "node4:8889"]
    assert job.cluster_spec().as_dict() == {"worker": tasks}
    assert (job.task_type, job.task_id, job.rpc_layer) == ("worker", 2, "grpc")
    assert job.num_accelerators() == {"GPU": 0}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    job = slurm_job()
    assert job.cluster_spec().as_dict() == {"worker": tasks} and job.num_accelerators() == {"GPU": 1}


def test_slurm_outside_of_a_step_is_refused(monkeypatch):
    for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"train\.distribute='slurm' needs the variables of a Slurm step.*SLURM_PROCID"):
        slurm_job()


REPLICAS = """
import tensorflow as tf
from crl_tf.experiment.devices import shared, strategy_of

strategy = strategy_of("mirrored:2")
iterator = iter(shared(lambda shares=None: tf.data.Dataset.range(4).batch(2), strategy))
print([made._dataset.options().autotune.enabled for made in iterator._iterators[0]._iterator._device_iterators])
"""


def test_the_iterators_of_replicas_do_not_wait_for_a_tuner():
    """The end of an epoch took up to a minute. A new version of TensorFlow may make these iterators otherwise."""
    ran = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1:] == ["[False, False]"], ran.stderr
