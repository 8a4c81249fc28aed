"""Two processes, and three, on loopback train and measure as one: a killed one ends the others by one line, and they go on where
they were, on the same or another number of machines."""

import csv
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from crl_tf.experiment.run import evaluate
from crl_tf.experiment.trainers.archive import load_trained
from crl_tf.files import read_json

TRAINING = [
    "--method=class_rel",
    "--model=deepid2",
    "--epochs=6",
    "--config.data.train_share=0.1",
    "--config.train.least_steps=0",
]
TRAINING += ["--noexport", "--precision=float32", "--seed=1"]
PATIENCE = 240
LOST = "crl_tf: another machine of the training is lost, or has stopped; start all of them again with --resume --workdir={}"


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(workdir, *flags, log):
    with open(log, "w") as file:
        command = [sys.executable, "-m", "crl_tf.main", *flags, f"--workdir={workdir}"]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def machines(workdir, *flags, count=2, own=((),) * 3):
    """Processes that train together, each with flags of its own, and where they write what they say."""
    workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(count))
    logs = [workdir.with_name(f"{workdir.name}-{task}-{len(flags)}.log") for task in range(count)]
    together = ["--distribute=multiworker", f"--workers={workers}"]
    processes = [start(workdir, *flags, *together, f"--task={task}", *own[task], log=log) for task, log in enumerate(logs)]
    return processes, logs


def rows(workdir):
    path = workdir / "history.csv"
    return list(csv.DictReader(path.open(newline=""))) if path.is_file() else []


def kill_the_last(workdir, processes):
    """Kills the last machine in its third epoch or later; returns how the others end: exit codes, and seconds."""
    ends = time.monotonic() + PATIENCE
    while len(rows(workdir)) < 2 and processes[0].poll() is None and time.monotonic() < ends:
        time.sleep(0.05)
    processes[-1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    codes = [process.wait(PATIENCE) for process in processes[:-1]]
    processes[-1].wait()
    return codes, time.monotonic() - killed


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """A training of two processes, one of which is killed after its first epochs, that goes on; one that nothing stopped; and the
    same on one device."""
    folder = tmp_path_factory.mktemp("machines")
    several, unstopped, one = (folder / name for name in ("several", "unstopped", "one"))
    processes, logs = machines(several, *TRAINING)
    codes, seconds = kill_the_last(several, processes)
    stopped = (codes, seconds, logs[0].read_text(), len(rows(several)))
    processes, again = machines(several, "--resume")
    codes = [process.wait(PATIENCE) for process in processes]
    others = [*machines(unstopped, *TRAINING)[0], start(one, *TRAINING, log=folder / "one.log")]
    assert [process.wait(PATIENCE) for process in others] == [0, 0, 0]
    return several, unstopped, one, stopped, codes, [log.read_text() for log in again]


def test_other_settings_on_one_machine_are_refused_on_both(tmp_path):
    rates = ("0.01", "0.02")
    processes, logs = machines(tmp_path / "run", *TRAINING, own=[[f"--learning_rate={rate}"] for rate in rates])
    assert [process.wait(PATIENCE) for process in processes] == [1, 1]
    for rate, log in zip(rates, logs, strict=True):
        said = log.read_text()
        assert said.splitlines()[-1].startswith(f"crl_tf: train.learning_rate={rate} must be the same on all machines"), said
    assert not (tmp_path / "run").exists()


def test_a_lost_machine_ends_the_others_by_one_line(trainings):
    several, _, _, (codes, seconds, said, epochs), _, _ = trainings
    assert codes == [1] and seconds < 60 and 2 <= epochs < 6, said
    assert said.splitlines()[-1] == LOST.format(several)
    assert "Traceback" not in said


def test_they_go_on_and_train_as_one_device(trainings):
    several, _, one, _, codes, (first, second) = trainings
    assert codes == [0, 0], first + second
    assert f"trained together with the first machine, which measures and writes {several}" in second
    assert (several / "result.json").is_file() and "class-balanced accuracy" in first
    together, alone = rows(several), rows(one)
    assert [row["epoch"] for row in together] == [str(epoch) for epoch in range(6)]
    for name in ("loss", "L_crl", "balanced_accuracy", "val_loss", "val_balanced_accuracy"):
        found, expected = ([float(row[name]) for row in of] for of in (together, alone))
        assert found == pytest.approx(expected, rel=0.02), name
        assert found[0] == pytest.approx(expected[0], rel=1e-5), name


def test_what_goes_on_ends_as_what_was_never_stopped(trainings):
    several, unstopped = trainings[:2]
    for one, other in zip(
        *([w.numpy() for w in load_trained(f / "model.keras").weights] for f in (several, unstopped)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(rows(several), rows(unstopped), strict=True):
        assert {**one, "seconds": None} == {**other, "seconds": None}


def test_both_measure_what_one_device_measures(trainings):
    several = trainings[0]
    (measured,), result = evaluate(several), read_json(several / "result.json")
    assert {name: label["confusion"] for name, label in result["labels"].items()} == {
        name: label["confusion"] for name, label in measured["labels"].items()
    }
    assert result["validation"]["balanced_accuracy"] == pytest.approx(measured["validation"]["balanced_accuracy"], abs=1e-6)


def test_two_go_on_with_what_three_began(trainings, tmp_path):
    folder = tmp_path / "three"
    processes, logs = machines(folder, *TRAINING, count=3)
    codes, seconds = kill_the_last(folder, processes)
    begun = rows(folder)
    said = [log.read_text() for log in logs]
    assert codes == [1, 1] and seconds < 60 and 2 <= len(begun) < 6, said
    assert [text.splitlines()[-1] for text in said[:2]] == [LOST.format(folder)] * 2
    assert "3 replicas share each batch" in said[0]
    processes, logs = machines(folder, "--resume")
    assert [process.wait(PATIENCE) for process in processes] == [0, 0], [log.read_text() for log in logs]
    together, alone = rows(folder), rows(trainings[2])
    # The epoch in which the machine was lost may have been written, but not saved.
    assert together[: len(begun) - 1] == begun[:-1]
    assert [row["epoch"] for row in together] == [str(epoch) for epoch in range(6)]
    for name in ("loss", "L_crl", "val_loss"):
        found, expected = ([float(row[name]) for row in of] for of in (together, alone))
        assert found == pytest.approx(expected, rel=0.02), name
        assert found[0] == pytest.approx(expected[0], rel=1e-5), name
    assert (folder / "result.json").is_file()
