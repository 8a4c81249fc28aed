"""Runs the command as users do, each time in a process of its own, forked from one that has imported the program already."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["crl_tf.main"])


def command(*flags, cwd):
    """The exit code, standard output and standard error of `python -m crl_tf.main FLAGS` in the folder `cwd`."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("out", "err")]
        process = _CONTEXT.Process(target=_run, args=(flags, str(cwd), *paths))
        process.start()
        process.join()
        out, err = (Path(path).read_text(encoding="utf-8") for path in paths)
        return process.exitcode, out, err


def _run(flags, cwd, out_path, err_path):
    os.chdir(cwd)
    for stream, path, number in ((sys.stdout, out_path, 1), (sys.stderr, err_path, 2)):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    from absl import app

    from crl_tf import main

    try:
        app.run(main.main, argv=["crl_tf.main", *flags])
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else int(stop.code is not None))
