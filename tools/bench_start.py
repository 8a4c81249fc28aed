"""Measures what a command costs before and after its training, and whether a training's memory grows.

    python tools/bench_start.py                     starts: import keras, import crl_tf, --help, --version
    python tools/bench_start.py --job               a whole run of the digits: seconds outside of its training
    python tools/bench_start.py --memory=50         resident memory after each of 50 epochs of the digits

Each start is a process of its own; rounds visit all of them in turn, one of them twice (A/A). Shown are the processor time of the
process, which other work on the machine does not change much, and the time that passed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import benchmark_tables
import measuring
import numpy as np

COMMAND = ("-m", "crl_tf.main")
STARTS: dict[str, tuple[str, ...]] = {
    "import keras": ("-c", "import keras"),
    "import keras, again (A/A)": ("-c", "import keras"),
    "import crl_tf": ("-c", "import crl_tf"),
    "--help": (*COMMAND, "--help"),
    "--version": (*COMMAND, "--version"),
}
BASELINE = "import keras"


def seconds_of(arguments: Sequence[str]) -> tuple[float, float]:
    """Processor time and wall time of a Python process."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - started


def starts(rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of every start, and the ratio of its processor time to that of `import keras`, as JSON."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
    for name in STARTS:  # not counted: the first one reads from the disk
        seconds_of(STARTS[name])
    for _ in range(rounds):
        for name, arguments in STARTS.items():
            taken[name].append(seconds_of(arguments))
    base = np.array(taken[BASELINE])[:, 0]
    rows = {}
    for name, values in taken.items():
        processor, wall = np.array(values).T
        rows[name] = {
            "processor": measuring.quartiles(processor),
            "wall": measuring.quartiles(wall),
            "ratio": measuring.quartiles(processor / base),
        }
    return rows


def job(flags: Sequence[str]) -> list[str]:
    """A run of the command: processor time of all of it, and of its training."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "job.py"
        script.write_text(JOB)
        arguments = [str(script), f"--workdir={folder}/run", *flags]
        cpu, wall = seconds_of(arguments)
        training = float((Path(folder) / "run" / "seconds.txt").read_text())
    return [
        f"processor time {cpu:.1f} s, of its training {training:.1f} s, outside of it {cpu - training:.1f} s (wall {wall:.1f} s)"
    ]


JOB = """
import sys, time
from pathlib import Path
from absl import app
from crl_tf import main
from crl_tf.experiment import run

of_run, spent = run.train, []
def train(*arguments):
    started = time.process_time()
    result = of_run(*arguments)
    spent.append(time.process_time() - started)
    return result
run.train = train
def timed(argv):
    main.main(argv)
    folder = next(argument for argument in sys.argv if argument.startswith("--workdir=")).partition("=")[2]
    Path(folder, "seconds.txt").write_text(str(sum(spent)))
app.run(timed)
"""


def memory(epochs: int) -> list[str]:
    """Resident memory after the epochs of a training of the digits, a fifth of them and a quarter of the filters."""
    import keras

    from crl_tf.experiment.config import load_recipe, override
    from crl_tf.experiment.run import run
    from crl_tf.progress import Progress

    class Watched(Progress):
        def __init__(self) -> None:
            self.megabytes: list[float] = []

        def callbacks(self) -> list[keras.callbacks.Callback]:
            def note(epoch: int, logs: Mapping[str, Any] | None = None) -> None:
                resident = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
                self.megabytes.append(int(resident[1]) / 1024)

            return [keras.callbacks.LambdaCallback(on_epoch_end=note)]

    watched = Watched()
    settings = {"train.epochs": epochs, "data.train_share": 0.2, "network.width": 0.25, "train.batch_size": 128}
    with tempfile.TemporaryDirectory() as folder:
        run(override(load_recipe("handwriting"), settings), Path(folder) / "run", export=False, progress=watched)
    found = watched.megabytes
    after = found[min(4, len(found) - 1)]
    shown = [
        f"{number}: {found[number - 1]:.0f}" for number in range(1, len(found) + 1) if number in (1, 2, 5) or number % 10 == 0
    ]
    return [
        f"resident memory after epoch, MB: {', '.join(shown)}; the last is {100 * (found[-1] / after - 1):+.1f} % of the fifth's"
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, and prints."""
    flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    flags.add_argument("--rounds", type=int, default=7, help="of the starts; default: 7")
    flags.add_argument("--json", type=Path, help="JSON file for every number of the starts")
    flags.add_argument("--job", action="store_true", help="a whole run; further flags are those of crl_tf.main")
    flags.add_argument("--memory", type=int, metavar="EPOCHS", help="of so many epochs")
    given, others = flags.parse_known_args(arguments)
    if others and not given.job:
        flags.error(f"unknown: {others[0]}")
    if given.job or given.memory:
        print("\n".join(job(others) if given.job else memory(given.memory)))
        return
    started = time.perf_counter()
    rows = starts(given.rounds)
    result = {**measuring.facts(measuring.cores(), started), "rounds": given.rounds, "starts": rows}
    benchmark_tables.show(result, benchmark_tables.start(result), in_markdown=True)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
