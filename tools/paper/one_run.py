"""Runs one job in a process of its own: python tools/paper/one_run.py JOB.json. Started by `paper.runs`, not by hand.

JOB.json holds "config", "folder", "borrows" (a folder or null) and "state", the file that it writes its progress and its error
to. It ends when the process that started it does, which holds its standard input open.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import keras

from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import from_json
from crl_tf.experiment.precision import settled
from crl_tf.experiment.run import run_parts
from crl_tf.files import read_json, write_json
from crl_tf.progress import Progress


class StateFile(Progress):
    """Writes the number of finished epochs to a file."""

    def __init__(self, path: Path, epochs: int) -> None:
        self._path, self._epochs = path, epochs

    def callbacks(self) -> list[Any]:
        def write(epoch: int, logs: dict[str, Any] | None = None) -> None:
            write_json(self._path, {"epoch": epoch + 1, "of": self._epochs})

        return [keras.callbacks.LambdaCallback(on_epoch_end=write)]


def end_with_parent() -> None:
    """Ends this process when its standard input does, so that no run outlives the command that was killed."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def main(path: str) -> None:
    """Runs the job that the file describes."""
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = read_json(Path(path))
    folder, state = Path(job["folder"]), Path(job["state"])
    try:
        parts = assemble(settled(from_json(job["config"]), folder))
        progress = StateFile(state, parts.names["epochs"])
        trained = Path(job["borrows"]) if job["borrows"] else None
        run_parts(parts, folder, resume=True, export=False, trained=trained, progress=progress)
    except Exception as error:  # whatever it is, the others go on, and the table names it
        write_json(state, {"error": f"{type(error).__name__}: {error}".partition("\n")[0]})
        logging.exception("failed")
        sys.exit(1)
    # What a finished run continues from is several times as large as the run.
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
