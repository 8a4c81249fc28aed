"""How the command ends when it is stopped: one line that says how to go on, and the exit code of the signal."""

import signal
import subprocess
import sys

import pytest

from crl_tf.ending import ended_in_one_line, told_how_to_go_on


def stopped(capsys, workdir, number):
    """The exit code and what is said, where a signal arrives in a run."""
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    # A test run in the background of a shell ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end, ended_in_one_line(), told_how_to_go_on(workdir):
            signal.raise_signal(number)
            raise AssertionError("the signal did not stop it")
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(capsys, tmp_path, number, code):
    folder = tmp_path / "a run"
    folder.mkdir()
    assert stopped(capsys, folder, number) == (code, "\ncrl_tf: stopped; nothing was trained yet\n")
    (folder / "config.json").touch()
    line = f"\ncrl_tf: stopped; go on with: python -m crl_tf.main --resume --workdir='{folder}'\n"
    assert stopped(capsys, folder, number) == (code, line)


def test_what_writes_nothing_says_so(capsys):
    with pytest.raises(SystemExit) as end, ended_in_one_line():
        raise KeyboardInterrupt
    assert (end.value.code, capsys.readouterr().err) == (130, "\ncrl_tf: stopped; nothing was written\n")


WAITING = """
import ctypes, pathlib, sys, threading
from crl_tf.ending import end_though_it_waits, ended_in_one_line

with ended_in_one_line():
    end_though_it_waits(pathlib.Path(sys.argv[1]), patience=0.2)
    threading.Timer(1.0, lambda: print("waits", flush=True)).start()
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""
"""A deadlock in C, which no handler of Python gets into."""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_waits_outside_of_python_ends_all_the_same(tmp_path, number, code):
    (tmp_path / "config.json").touch()
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    # A test run in the background of a shell ignores Ctrl-C.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heard) as process:
        assert process.stdout.readline() == "waits\n"
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
    line = "crl_tf: stopped while it waited for the other machines; go on with: python -m crl_tf.main --resume --workdir="
    assert (process.returncode, said.splitlines()[-1]) == (code, f"{line}{tmp_path}")


def test_a_signal_within_an_exception_of_tensorflow_is_told_as_a_stop(capsys, tmp_path):
    text = "pybind11::error_already_set: MISMATCH: ORIGINAL UnavailableError REPLACED BY"
    for name, code in (("Terminated", 143), ("KeyboardInterrupt", 130)):
        with pytest.raises(SystemExit) as end, told_how_to_go_on(tmp_path):
            raise RuntimeError(f"{text} {name}: <EMPTY MESSAGE>")
        assert (end.value.code, capsys.readouterr().err) == (code, "\ncrl_tf: stopped; nothing was trained yet\n")
    with pytest.raises(RuntimeError, match="another"), told_how_to_go_on(tmp_path):
        raise RuntimeError("another")
