"""What the command shows: one line per epoch, nothing of TensorFlow's start, and lines that fit the window."""

import io
import logging
import os
import subprocess
import sys
import warnings

import pytest
from rich.console import Console

from crl_tf.console import EpochLines, epoch_line, show_logs_and_warnings
from crl_tf.quiet import without_native_messages

LOGS = {"loss": 12345.678, "balanced_accuracy": 1.0, "val_loss": 1.5e18, "val_balanced_accuracy": 0.0712, "L_ce": 1.0}


def train(console, epochs=2, steps=3):
    """Shows a training of steps that come two at a time."""
    lines = EpochLines(console)
    lines.set_params({"epochs": epochs, "steps": steps})
    for epoch in range(epochs):
        lines.on_epoch_begin(epoch)
        for last_step in (1, 3):  # the second execution holds only one of its two steps
            lines.on_train_batch_end(last_step, {})
        lines.on_epoch_end(epoch, {**LOGS, "seconds": 3661.0})
    lines.on_train_end()


@pytest.mark.parametrize("terminal", [True, False])
def test_an_epoch_is_one_line_that_fits_80_columns(terminal):
    shown = io.StringIO()
    train(Console(file=shown, width=80, force_terminal=terminal))
    text = shown.getvalue()
    for epoch in (1, 2):
        line = f"epoch {epoch}/2: loss 1.235e+04, balanced 100.0 %; validation: 1.5e+18, 7.1 %; 3661 s"
        assert line in text and len(line) <= 80
    assert ("3/3" in text) == terminal and "4/3" not in text
    if not terminal:
        assert len(text.splitlines()) == 2


def test_a_line_has_what_the_logs_have():
    assert epoch_line(1, 5, {"loss": 0.5, "seconds": 1.2}) == "epoch 1/5: loss 0.5; 1 s"
    assert epoch_line(7, 12, {"val_balanced_accuracy": 0.5, "seconds": 0}) == "epoch  7/12: 50.0 %; 0 s"


def test_log_lines_break_between_words_in_a_terminal_and_never_in_a_file():
    line = "a sentence of " + " ".join(["several"] * 12) + " words"
    try:
        for terminal in (True, False):
            shown = io.StringIO()
            show_logs_and_warnings(Console(file=shown, width=40, force_terminal=terminal))
            logging.getLogger("crl_tf.test").info(line)
            lines = shown.getvalue().splitlines()
            assert " ".join(part.strip() for part in lines) == line
            assert (len(lines) == 1) != terminal and all(len(part) <= 40 for part in lines) == terminal
    finally:
        logger = logging.getLogger("crl_tf")
        logger.handlers, logger.propagate = [], True


def test_a_warning_is_one_line_without_the_line_of_code(capsys):
    with warnings.catch_warnings():
        try:
            show_logs_and_warnings(Console(file=io.StringIO(), width=80, force_terminal=False))
            warnings.simplefilter("always")
            warnings.warn("mind this", stacklevel=1)
        finally:
            logger = logging.getLogger("crl_tf")
            logger.handlers, logger.propagate = [], True
    assert capsys.readouterr().err == "crl_tf: mind this\n"


def test_native_messages_are_hidden_and_shown_if_the_block_fails(capfd):
    with without_native_messages():
        os.write(2, b"about a kernel\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError), without_native_messages():
        os.write(2, b"why it fails\n")
        raise ImportError
    assert capfd.readouterr().err == "why it fails\n"


@pytest.mark.parametrize("level, quiet", [(None, True), ("0", False)])
def test_the_command_shows_nothing_of_tensorflows_start_unless_asked_for(level, quiet):
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    command = [sys.executable, "-m", "crl_tf.main", "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0 and ran.stdout.startswith("crl_tf ")
    assert (ran.stderr == "") == quiet, ran.stderr
