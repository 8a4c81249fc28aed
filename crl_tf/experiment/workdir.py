"""The folder of a run: the names of its files, and which run may continue in it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from crl_tf.experiment.config import flattened, from_json
from crl_tf.files import below, read_json
from crl_tf.schema import AttributeSchema

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_log = logging.getLogger(__name__)

CONFIG, RESULT, COMPARISON, MODEL, EXPORT = "config.json", "result.json", "comparison.json", "model.keras", "export"
CONVERTED = "exports"
"""The folder of LiteRT and ONNX files."""
AUTO, VALIDATION, FINAL = "auto.json", "validation.json", "final"
"""A search of `--compare=auto`, one of its trainings, which is scored on validation images only, and the folder of the runs that
are measured on the test images."""

FREE_ON_RESUME = (
    *("train.epochs", "train.checkpoint_every", "train.steps_per_execution", "train.xla", "train.distribute"),
    *("data.cache", "data.skip_unreadable"),
)
"""Settings that a resumed run may change. What skip_unreadable leaves out counts as changed rows. Precision is not among them: it
changes what is learned, not only the speed."""


def open_run(recipe: Mapping[str, Any], workdir: Path, resume: bool) -> dict[str, Any] | None:
    """Checks that a run may write into a folder; returns its result if it is finished already.

    Args:
        recipe: all settings of the run.

    Raises:
        ValueError: the folder is not empty and `resume` is False, or it holds the run of another configuration.
    """
    refuse_file(workdir)
    if not clean_folder(workdir, resume):
        return None
    if not (workdir / CONFIG).is_file():
        raise ValueError(f"workdir {workdir} holds no run to resume ({CONFIG} is missing): pass another --workdir")
    previous = config_in(workdir, CONFIG).to_dict()
    different = differences(previous, recipe, free=FREE_ON_RESUME)
    if different:
        raise ValueError(f"resume: {workdir} was started with another recipe ({'; '.join(different)})")
    started, epochs = previous["train"]["epochs"], recipe["train"]["epochs"]
    if started == epochs and (workdir / RESULT).is_file():
        return read_result(workdir)
    if epochs < started:
        raise ValueError(f"resume: epochs must be {started} or more, as started, received {epochs}")
    return None


def differences(previous: Mapping[str, Any], current: Mapping[str, Any], *, free: Iterable[str]) -> list[str]:
    """What differs between the settings of two runs, one text per setting; settings in `free` may differ."""
    before, now, free = flattened(previous), flattened(current), set(free)
    return [f"{key}: {before[key]!r} there, {now[key]!r} now" for key in now if key not in free and before[key] != now[key]]


def refuse_file(workdir: Path) -> None:
    """Refuses a folder of a run that is a file or a link to nothing, or lies below one."""
    blocking = next((path for path in (workdir, *workdir.parents) if os.path.lexists(path) and not path.is_dir()), None)
    if blocking is not None:
        raise ValueError(f"workdir must be a folder, but {blocking} is a {'file' if blocking.exists() else 'link to nothing'}")


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds a folder for one run, and makes it if it is missing; a made one that stays empty is removed again.

    Nothing is written into it. The system lets go of it when the process ends, however it ends. Where it has no such locks, as
    on some network drives and on Windows, nothing is held.

    Raises:
        ValueError: the folder is a file, or a run that is not finished holds it.
    """
    refuse_file(workdir)
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(workdir):
            yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


def _of_a_live_run(path: Path, workdir: Path) -> bool:
    """Whether a file below a folder is of a run in it, one of a comparison, that another process holds."""
    inner = [folder for folder in path.parents if workdir in folder.parents and (folder / CONFIG).is_file()]
    try:
        with contextlib.ExitStack() as stack:
            for folder in inner:
                stack.enter_context(_locked(folder))
    except ValueError:
        return True
    return False


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    folder = os.open(workdir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise ValueError(
            f"workdir {workdir} is in use by a run that is not finished: wait for it, or pass another --workdir"
        ) from None
    except OSError as error:
        _log.debug("%s cannot be locked: %s", workdir, error)
    try:
        yield
    finally:
        os.close(folder)


def clean_folder(workdir: Path, resume: bool) -> bool:
    """Removes what a killed run left half-written; returns whether the folder holds anything else.

    Raises:
        ValueError: it holds something, and `resume` is False.
    """
    content = list(workdir.iterdir()) if workdir.is_dir() else []
    if content and not resume:
        raise ValueError(f"workdir {workdir} is not empty: pass --resume to continue what is in it, or another --workdir")
    for path in [path for path in workdir.rglob(".partial-*") if not _of_a_live_run(path, workdir)] if content else []:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return any(path.exists() for path in content)


def config_in(workdir: Path, name: str) -> ConfigDict:
    """The configuration in a run's `config.json` or a comparison's `comparison.json`."""
    content = read_json(workdir / name)
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        raise ValueError(f"{workdir / name} must hold a configuration under 'recipe', as a run writes it; it does not")
    try:
        return from_json(content["recipe"])
    except ValueError as error:
        raise ValueError(f"{workdir / name}: {error}") from error


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a finished run; ValueError, with the file's name, for anything else in its place."""
    content = read_json(folder / RESULT)
    parts = {"method": str, "rules": dict, "labels": dict}
    wrong = [key for key, kind in parts.items() if not isinstance(content, dict) or not isinstance(content.get(key), kind)]
    if not wrong:
        wrong = [key for key in ("rules", "labels") if not all(isinstance(part, dict) for part in content[key].values())]
    if wrong:
        raise ValueError(
            f"{folder / RESULT} must be the result of a run, and lacks {wrong[0]!r}: delete it, and --resume the run"
        )
    return content


def read_description(folder: Path) -> dict[str, Any]:
    """What a run's `config.json` says of its data; ValueError, with the file's name, for values of another kind."""
    content = read_json(folder / CONFIG)
    kinds = {"images": int, "digests": (str, type(None))}
    wrong = [
        key
        for key, kind in kinds.items()
        if key in content
        and not (isinstance(content[key], dict) and all(isinstance(value, kind) for value in content[key].values()))
    ]
    try:
        if "schema" in content:
            AttributeSchema.from_config(content["schema"])
    except (ValueError, TypeError, KeyError, AttributeError):
        wrong.append("schema")
    if wrong:
        raise ValueError(f"{folder / CONFIG} must say which data a run had, and its {wrong[0]!r} was changed; it cannot go on")
    return content


def started_with(workdir: Path) -> tuple[ConfigDict, dict[str, Any] | None]:
    """What `--resume` continues: the configuration in a folder, and methods and seeds if it holds a comparison."""
    if (workdir / COMPARISON).is_file():
        return config_in(workdir, COMPARISON), methods_and_seeds(workdir)
    if (workdir / AUTO).is_file():
        return config_in(workdir, AUTO), None
    if (workdir / CONFIG).is_file():
        return config_in(workdir, CONFIG), None
    raise ValueError(f"workdir {workdir} holds no run to resume ({CONFIG} is missing)")


def read_search(workdir: Path) -> dict[str, Any]:
    """The `auto.json` of a search; ValueError, with the file's name, for anything else in its place."""
    content = read_json(workdir / AUTO)
    kinds = {"finished": bool, "budget": (int, float), "seconds": (int, float), "named": list, "not_tried": dict, "rungs": list}
    of_rung = {"epochs": int, "methods": list, "scores": dict, "dropped": dict}

    def holds(part: Any, kinds: Mapping[str, Any]) -> bool:
        return isinstance(part, dict) and all(isinstance(part.get(key), kind) for key, kind in kinds.items())

    whole = holds(content, kinds) and all(holds(rung, of_rung) for rung in content["rungs"])
    if not whole or not isinstance(content.get("finalists", None if content["finished"] else {}), dict):
        raise ValueError(f"{workdir / AUTO} must be what a search keeps, and was changed: pass another --workdir")
    return content


def finalist_folders(workdir: Path) -> list[Path]:
    """The folders of the runs of a finished search that were measured on the test images, the winner's first."""
    content = read_search(workdir)
    if not content["finished"]:
        raise ValueError(f"workdir must hold a finished run; the search in {workdir} is not finished: --resume continues it")
    return [below(workdir / FINAL, name, workdir / AUTO) for name in content["finalists"].values()]


def methods_and_seeds(workdir: Path) -> dict[str, Any]:
    """The methods of a comparison, its seeds, and what failed of it.

    Seeds None: the configuration's seed, whose runs have no folder of a seed.
    """
    content = read_json(workdir / COMPARISON)
    content = content if isinstance(content, dict) else {}
    methods, seeds = content.get("methods", content.get("losses")), content.get("seeds")
    sound = isinstance(methods, list) and (seeds is None or (isinstance(seeds, list) and all(type(s) is int for s in seeds)))
    failed = content.get("failed", {})
    if not sound or not isinstance(failed, dict):
        raise ValueError(f"{workdir / COMPARISON} must hold the methods and seeds of a comparison; it does not")
    for method in methods:
        below(workdir, method, workdir / COMPARISON)
    return {"methods": methods, "seeds": seeds, "failed": failed}


def folder_of(workdir: Path, method: str, seed: int | None) -> Path:
    """The folder of one run of a comparison."""
    return workdir / method if seed is None else workdir / f"seed{seed}" / method


def finished_runs(workdir: Path) -> list[Path]:
    """The folders of the finished runs in a folder: of the run itself, of a comparison, or of a search's finalists."""
    if (workdir / AUTO).is_file():
        return finalist_folders(workdir)
    if (workdir / COMPARISON).is_file():
        plan = methods_and_seeds(workdir)
        folders = [folder_of(workdir, method, seed) for seed in plan["seeds"] or [None] for method in plan["methods"]]
        # A run that diverged, or has not started, has nothing to measure.
        finished = [folder for folder in folders if (folder / RESULT).is_file()]
        if not finished:
            raise ValueError(f"workdir must hold a finished run; no run of the comparison in {workdir} is finished")
        return finished
    missing = [name for name in (CONFIG, MODEL, RESULT) if not (workdir / name).is_file()]
    if missing:
        raise ValueError(f"workdir must hold a finished run; {workdir} lacks {', '.join(missing)}")
    return [workdir]
