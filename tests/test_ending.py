"""How the command ends when it is stopped: one line that says how to go on, and the exit code of the signal."""

import signal

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
