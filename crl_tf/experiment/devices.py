"""The devices and machines of a training: the strategies of `tf.distribute` by name."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from crl_tf.datasets.pipeline import Shares

_log = logging.getLogger(__name__)

Batches = tf.data.Dataset | tf.distribute.DistributedDataset
"""Of one device, or of the replicas of a strategy."""

NONE = "none"
WORDS = (
    "none; mirrored (all GPUs); mirrored:N (N GPUs; without a GPU, N logical CPUs); multiworker (the machines of TF_CONFIG); or"
    " slurm (those of a Slurm job)"
)
SEVERAL_MACHINES = ("multiworker", "slurm")
"""The names of strategies of several machines."""

LOST = re.compile(
    r"Collective ops is aborted|Connection reset|heartbeat|UNAVAILABLE|failed to connect|Socket closed", re.IGNORECASE
)
"""What TensorFlow says when an exchange between machines fails."""


def is_distribution(name: str) -> bool:
    """Whether `strategy_of` knows a name.

    >>> [name for name in ("none", "mirrored", "mirrored:4", "mirrored:0", "tpu") if is_distribution(name)]
    ['none', 'mirrored', 'mirrored:4']
    """
    return name in SEVERAL_MACHINES or re.fullmatch(r"none|mirrored(:[1-9]\d{0,2})?", name) is not None


@functools.cache
def strategy_of(name: str) -> tf.distribute.Strategy:
    """The strategy of a name, which is made once in a process: those of two strategies would be mixed up in their exchanges.

    Call before TensorFlow computes anything: logical CPUs must be set up before it starts.

    Args:
        name: as `WORDS` says.
    Raises:
        ValueError: there are not so many GPUs, none and no number of CPUs, no machines are named, or TensorFlow has started.
    """
    if name == NONE:
        return tf.distribute.get_strategy()
    if name in SEVERAL_MACHINES:
        return _of_several_machines(name)
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


def writes(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files of a run: of several machines the first one does."""
    resolver = getattr(strategy, "cluster_resolver", None)
    return resolver is None or resolver.task_type in (None, "chief") or (resolver.task_type, resolver.task_id) == ("worker", 0)


def shared(make: Callable[..., tf.data.Dataset], strategy: tf.distribute.Strategy) -> Batches:
    """Batches of which each replica gets its share, and each machine reads no others.

    Args:
        make: from `shares` (`crl_tf.datasets.pipeline.Shares`) to those of each batch; without, to undivided batches.
    Returns:
        for a strategy of one replica, undivided batches.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return make()

    here = 0

    def of_machine(context: tf.distribute.InputContext) -> tf.data.Dataset:
        nonlocal here
        here = replicas // context.num_input_pipelines
        return make(shares=Shares(context.input_pipeline_id * here, here, replicas))

    turn_tuning_off()
    batches = strategy.distribute_datasets_from_function(of_machine)
    # TensorFlow counts shares, and Keras takes their number for that of the steps.
    batches._cardinality //= here
    return batches


@functools.cache
def turn_tuning_off() -> None:
    """Turns the tuner of `tf.data` off in the iterators of replicas: the end of an epoch waits, up to a minute, for it to wake.

    TensorFlow makes the datasets of these iterators itself and has no option for them.
    """
    from tensorflow.python.data.ops import multi_device_iterator_ops

    create = getattr(multi_device_iterator_ops, "_create_device_dataset", None)
    if create is None:  # another version of TensorFlow
        return

    def create_without_tuning(*arguments: Any) -> tf.data.Dataset:
        options = tf.data.Options()
        options.autotune.enabled = False
        return create(*arguments).with_options(options)

    multi_device_iterator_ops._create_device_dataset = create_without_tuning


def steps_of(batches: Batches) -> int:
    """How many batches there are in an epoch."""
    number = batches.cardinality
    return int(number() if callable(number) else number)


def set_machines(workers: Sequence[str], task: int) -> None:
    """Names the machines of `multiworker` to TensorFlow, as the variable TF_CONFIG does.

    Args:
        workers: host:port of each. task: the place of this one among them.
    """
    address = re.compile(r"(?:[^\s:/]+|\[[0-9a-fA-F:]+\]):(\d{1,5})")
    ports = {worker: int(match[1]) for worker in workers if (match := address.fullmatch(worker))}
    wrong = next((worker for worker in workers if not 0 < ports.get(worker, 0) < 1 << 16), None)
    if wrong is not None:
        raise ValueError(f"workers must be host:port with a port in [1, 65535], separated by commas, received {wrong!r}")
    if len(set(workers)) < len(workers):
        raise ValueError(f"workers must name each machine once, received {','.join(workers)!r}")
    if not 0 <= task < len(workers):
        raise ValueError(f"task must be in [0, {len(workers) - 1}], the place of this machine in workers, received {task}")
    cluster = {"cluster": {"worker": list(workers)}, "task": {"type": "worker", "index": task}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)


@contextlib.contextmanager
def told_of_lost_machines(strategy: tf.distribute.Strategy, workdir: Path, begun: bool = True) -> Iterator[None]:
    """Raises one clear error where a machine of several no longer answers: the others cannot go on without it.

    Args:
        workdir: the folder of the run, for the advice. begun: False before the machines have heard of each other.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if getattr(strategy, "cluster_resolver", None) is None or not LOST.search(error.message):
            raise
        raise RuntimeError(
            f"another machine of the training is lost, or has stopped; start all of them again with --resume --workdir={workdir}"
            if begun
            else "another machine of the training does not answer, or has stopped, before anything was trained; all of them need"
            " the same list in --workers, and each says why it stops"
        ) from error


def _of_several_machines(name: str) -> tf.distribute.Strategy:
    resolver = None
    if name == "slurm":
        resolver = slurm_job()
    elif not os.environ.get("TF_CONFIG"):
        raise ValueError("train.distribute='multiworker' needs --workers and --task, or the variable TF_CONFIG, received neither")
    # TensorFlow waits for an hour, without a word.
    _log.info("waiting for the other machines of the training, each of which needs the same list and a place of its own in it")
    try:
        with _before_tensorflow_starts(name), _stopped_at_once():
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except tf.errors.OpError as error:
        raise ValueError(
            f"train.distribute={name!r}: this machine cannot listen at its address, or not reach the others ({error.message}):"
            " the port must be free, and --task its own place in --workers"
        ) from error


def slurm_job() -> tf.distribute.cluster_resolver.ClusterResolver:
    """The machines of the Slurm step that this process is a task of; of a node without GPUs too."""
    resolvers = tf.distribute.cluster_resolver
    has_gpus = bool(os.environ.get("CUDA_VISIBLE_DEVICES") or shutil.which("nvidia-smi"))
    # TensorFlow's resolver asks nvidia-smi for GPUs, and divides by their number. Without any it gets some to give away.
    without = {} if has_gpus else {"gpus_per_node": 1 << 16, "gpus_per_task": 1, "auto_set_gpu": False}
    try:
        job = resolvers.SlurmClusterResolver(**without)
    except RuntimeError as error:
        raise ValueError(f"train.distribute='slurm' needs the variables of a Slurm step, as srun sets them: {error}") from error
    if has_gpus:
        return job
    machines = job.cluster_spec()
    place = {"task_type": job.task_type, "task_id": job.task_id}
    return resolvers.SimpleClusterResolver(machines, **place, num_accelerators={"GPU": 0}, rpc_layer=job.rpc_layer)


@contextlib.contextmanager
def _stopped_at_once() -> Iterator[None]:
    """Lets signals end the process as the system does: TensorFlow keeps all of Python waiting while it waits for machines."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_logical_cpus(name: str, count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) >= count:
        return
    with _before_tensorflow_starts(name):
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


@contextlib.contextmanager
def _before_tensorflow_starts(name: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"train.distribute={name!r} must be set up before TensorFlow starts: begin a new process") from error
