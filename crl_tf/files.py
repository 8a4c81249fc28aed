"""Atomic file writes, and JSON."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file or a folder atomically: `write` fills a temporary one beside it, which is then renamed to `path`.

    If `write` fails, a full disk included, `path` is as it was, and the temporary one is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keras goes by the suffix. The name is random: processes in two containers that share a folder may have the same number.
    partial = path.with_name(f".partial-{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        write(partial)
        if partial.is_dir() and path.is_dir():
            shutil.rmtree(path)  # a rename replaces a file, but not a folder
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically; NaN and infinity are refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def below(folder: Path, name: Any, where: Path) -> Path:
    """The path of a name in a folder, which a file names; ValueError for one that leads out of the folder.

    Args:
        where: the file that names it, for the error.
    """
    if not isinstance(name, str) or not name or os.path.isabs(name) or ".." in Path(name).parts:
        raise ValueError(f"{where} must name what lies in {folder}, received {name!r}")
    return folder / name


def read_json(path: Path) -> Any:
    """Reads a JSON file; a broken one is a ValueError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    # JSONDecodeError and UnicodeDecodeError are ValueErrors, as is that of a number with too many digits.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
