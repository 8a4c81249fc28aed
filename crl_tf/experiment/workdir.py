"""The folder of a run: what is in it by which name, and who may go on in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from crl_tf.experiment.config import flattened, from_json
from crl_tf.files import read_json

CONFIG, RESULT, COMPARISON, MODEL, HISTORY = "config.json", "result.json", "comparison.json", "model.keras", "history.csv"
INSPECTION = "inspection.json"

FREE_ON_RESUME = ("train.epochs", "data.cache", "train.steps_per_execution", "train.xla")
"""What a resumed run may change. Precision is not among them: it changes what is learned, not only how fast."""


def open_workdir(config: ConfigDict, workdir: Path, resume: bool) -> dict[str, Any] | None:
    """Refuses to mix two runs in one folder. The result, where there is nothing left to do."""
    refuse_file(workdir)
    occupied = occupied_by_run(workdir, resume)
    if occupied and not (workdir / CONFIG).is_file():
        raise ValueError(f"workdir {workdir} holds no run to resume ({CONFIG} is missing): pass another --workdir")
    if not occupied:
        return None
    before = recipe_in(workdir, CONFIG)
    comparable = before.copy_and_resolve_references()
    comparable.update_from_flattened_dict({key: flattened(config.to_dict())[key] for key in FREE_ON_RESUME})
    if comparable.to_json() != config.to_json():
        mine, theirs = (flattened(c.to_dict()) for c in (config, comparable))
        different = [f"{key}: {theirs[key]!r} there, {mine[key]!r} now" for key in mine if mine[key] != theirs[key]]
        raise ValueError(f"resume: {workdir} was started with another recipe ({'; '.join(different)})")
    if before.train.epochs == config.train.epochs and (workdir / RESULT).is_file():
        return read_json(workdir / RESULT)
    if config.train.epochs < before.train.epochs:
        raise ValueError(f"resume: epochs must be {before.train.epochs} or more, as started, received {config.train.epochs}")
    return None


def refuse_file(workdir: Path) -> None:
    """A file cannot be a run's folder, nor hold one."""
    blocking = next((path for path in (workdir, *workdir.parents) if path.exists() and not path.is_dir()), None)
    if blocking is not None:
        raise ValueError(f"workdir must be a folder, but {blocking} is a file")


def occupied_by_run(workdir: Path, resume: bool) -> bool:
    """Whether there is anything in a folder, as only a resumed run may find; what a killed one left half-written goes."""
    found = list(workdir.iterdir()) if workdir.is_dir() else []
    if found and not resume:
        raise ValueError(f"workdir {workdir} is not empty: pass --resume to go on with what is in it, or another --workdir")
    for path in list(workdir.rglob(".partial-*")) if found else []:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return any(path.exists() for path in found)


def recipe_in(workdir: Path, name: str) -> ConfigDict:
    """The recipe in a run's `config.json` or a comparison's `comparison.json`."""
    content = read_json(workdir / name)
    if not isinstance(content, dict) or not isinstance(content.get("recipe"), dict):
        raise ValueError(f"{workdir / name} must hold a recipe, as a run writes it; it does not")
    return from_json(content["recipe"])


def started_with(workdir: Path) -> tuple[ConfigDict, dict[str, Any] | None]:
    """What `--resume` goes on with: the recipe in `workdir`, and the plan (methods, seeds) if it is a comparison."""
    workdir = Path(workdir)
    if (workdir / COMPARISON).is_file():
        return recipe_in(workdir, COMPARISON), plan_in(workdir)
    if (workdir / CONFIG).is_file():
        return recipe_in(workdir, CONFIG), None
    raise ValueError(f"workdir {workdir} holds no run to resume ({CONFIG} is missing)")


def plan_in(workdir: Path) -> dict[str, Any]:
    """The methods and seeds (None: the recipe's, in no folder of its own) of a comparison."""
    plan = read_json(workdir / COMPARISON)
    # Comparisons of before 0.2 had losses, of one seed.
    return {"methods": plan.get("methods", plan.get("losses")), "seeds": plan.get("seeds")}


def folder_of(workdir: Path, method: str, seed: int | None) -> Path:
    """Where a comparison keeps a run."""
    return workdir / method if seed is None else workdir / f"seed{seed}" / method
