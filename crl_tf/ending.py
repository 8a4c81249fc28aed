"""How the command ends when it does not come to its end: one line, an exit code, and no traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import tensorflow as tf
from absl import logging as absl_logging

PATIENCE = 10.0
"""Seconds that a stopped machine of several has to end by itself."""


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
        _stop(stop, _how_to_go_on(workdir))
    except RuntimeError as error:
        # A signal that arrives while TensorFlow's bindings make an exception of their own.
        if not (replaced := re.search(r"REPLACED BY (Terminated|KeyboardInterrupt)", str(error))):
            raise
        _stop(Terminated() if replaced[1] == Terminated.__name__ else KeyboardInterrupt(), _how_to_go_on(workdir))


def _how_to_go_on(workdir: Path) -> str:
    begun = any(not path.name.startswith(".") for path in workdir.glob("*.json"))
    command = f"python -m crl_tf.main --resume --workdir={shlex.quote(str(workdir))}"
    return f"go on with: {command}" if begun else "nothing was trained yet"


def end_though_it_waits(workdir: Path, patience: float = PATIENCE) -> None:
    """Ends the process by Ctrl-C or SIGTERM even while it waits, inside of TensorFlow, for other machines.

    Python runs its handlers of signals between its own instructions only. So a thread of its own hears of the signal, and ends
    the process, with the same line and exit code, where the main thread has not done so in time. Call once, in the main thread.

    Args:
        workdir: the folder of the run. patience: seconds in which the process may end by itself.
    """
    hears, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        with told:  # which has to stay open
            while (number := hears.recv(1)[0]) not in (signal.SIGINT, signal.SIGTERM):
                pass
            threading.Event().wait(patience)
            sys.stderr.write(f"\ncrl_tf: stopped while it waited for the other machines; {_how_to_go_on(workdir)}\n")
            sys.stderr.flush()
            os._exit(128 + number)

    threading.Thread(target=wait, name="ends the process", daemon=True).start()


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
