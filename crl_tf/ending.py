"""How the command ends when it does not come to its end: one line, an exit code, and no traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import tensorflow as tf
from absl import logging as absl_logging


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run as Ctrl-C does."""


def _terminate(*_: Any) -> None:
    raise Terminated


def _stop(stop: KeyboardInterrupt, what: str) -> NoReturn:
    absl_logging.debug("traceback", exc_info=True)
    sys.stderr.write(f"\ncrl_tf: stopped; {what}\n")
    sys.exit(143 if isinstance(stop, Terminated) else 130)


@contextlib.contextmanager
def told_how_to_go_on(workdir: Path) -> Iterator[None]:
    """Ends a run that is stopped by Ctrl-C or SIGTERM with a line that says how to continue it; exit code 130 or 143.

    The step under way is finished; what is being written is finished or left as it was.

    Args:
        workdir: the folder of the run, comparison or search.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        begun = any(not path.name.startswith(".") for path in workdir.glob("*.json"))
        command = f"python -m crl_tf.main --resume --workdir={shlex.quote(str(workdir))}"
        _stop(stop, f"go on with: {command}" if begun else "nothing was trained yet")


@contextlib.contextmanager
def ended_in_one_line() -> Iterator[None]:
    """Ends the program with what went wrong, or that it was stopped, and no traceback (--verbosity=1 shows it)."""
    with contextlib.suppress(ValueError):  # not in the main thread: whoever runs the program there has its signals
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as stop:
        _stop(stop, "nothing was written")
    except BrokenPipeError:
        # Whoever read the output has left, as head does. Python's own last flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        absl_logging.debug("traceback", exc_info=True)
        reason = str(error).partition("\n")[0] or "no more could be had"
        sys.exit(f"crl_tf: out of memory ({reason}): take a smaller batch_size, image_size or width")
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        absl_logging.debug("traceback", exc_info=True)
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        sys.exit(f"crl_tf: {error}" + ("; make room and go on with --resume: what was written is whole" if full else ""))
    except tf.errors.OpError as error:
        absl_logging.debug("traceback", exc_info=True)
        # The message of an assertion in the graph stands between TensorFlow's own words.
        assertion = re.search(r"assertion failed: \[(.+)\]", error.message)
        sys.exit(f"crl_tf: {assertion[1] if assertion else error.message}")
