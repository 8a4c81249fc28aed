"""Shows the help of the command from a file, before TensorFlow is loaded, which takes longer than anybody waits for help."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

HELP = Path(__file__).with_name("help.txt")
"""What `--helpshort` prints, which absl makes from the flags; `python tools/settings_table.py` writes it."""


def show_help() -> NoReturn:
    """Prints the help and ends the process, with the exit code of absl's own helps."""
    try:
        sys.stdout.write(HELP.read_text(encoding="utf-8"))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has left, as head does. Python's own last flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
