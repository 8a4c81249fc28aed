"""Works with finished runs: finds the export of one, and makes it anew with another decision."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import keras

from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import override
from crl_tf.experiment.deciding import Decision
from crl_tf.experiment.health import judged
from crl_tf.experiment.measure import Measured
from crl_tf.experiment.predictions import PREDICTIONS, save_predictions
from crl_tf.experiment.run import (
    Context,
    check_data,
    decided,
    export_model,
    measure,
    save_decision_figures,
)
from crl_tf.experiment.trainers.archive import load_trained
from crl_tf.experiment.trainers.gradient import HISTORY
from crl_tf.experiment.workdir import (
    AUTO,
    COMPARISON,
    CONFIG,
    CONVERTED,
    EXPORT,
    MODEL,
    RESULT,
    config_in,
    finished_runs,
    held,
    read_result,
)
from crl_tf.files import read_json, write_json
from crl_tf.progress import SILENT, Progress
from crl_tf.serving.served import is_export
from crl_tf.text import listed


def run_folder(workdir: Path) -> Path:
    """The folder of one finished run: itself, or the winner of a search.

    Raises:
        ValueError: it is a comparison, which has several, or holds no finished run.
    """
    folders = finished_runs(Path(workdir))
    if (workdir / COMPARISON).is_file() and not (workdir / AUTO).is_file():
        raise ValueError(f"workdir must be the folder of one run; {workdir} holds a comparison: pass one of {listed(folders, 8)}")
    return folders[0]


def export_of(workdir: Path) -> Path:
    """The SavedModel of a finished run, of the winner of a search, or the folder itself if it is one."""
    workdir = Path(workdir)
    if is_export(workdir):
        return workdir
    folder = run_folder(workdir)
    if not is_export(folder / EXPORT):
        raise ValueError(f"{folder} has no {EXPORT}/: make it with --mode=export --workdir={folder}")
    return folder / EXPORT


class Finished(NamedTuple):
    """A finished run, loaded and measured again: its parts, data and folder; its model; what it kept; what is measured now."""

    context: Context
    model: keras.Model
    result: dict[str, Any]
    measured: Measured
    decision: Decision


@contextlib.contextmanager
def opened(
    workdir: Path,
    settings: Mapping[str, Any] = MappingProxyType({}),
    *,
    changed_rows: bool = False,
    progress: Progress = SILENT,
) -> Iterator[Finished]:
    """Loads a finished run with its data, measures its model, and holds its folder as long as it is worked on.

    Args:
        settings: that differ from those of the run, by dotted key.
        changed_rows: go on with other rows than those of the training too.
    """
    folder = run_folder(Path(workdir))
    with held(folder):
        result = read_result(folder)
        parts = assemble(override(config_in(folder, CONFIG), settings))
        context = Context(parts, parts.load(use_cache=False, progress=progress), folder, progress)
        check_data(context, f"export {folder}", changed_rows)
        model = load_trained(folder / MODEL)
        measured = measure(context, model)
        yield Finished(context, model, result, measured, decided(context, measured))


def export_again(finished: Finished) -> dict[str, Any]:
    """Makes the export of a finished run anew, with the thresholds and temperatures of its settings.

    The model is the one that was trained. `config.json`, "decision" of `result.json`, `export/` and the figures of the decisions
    are replaced; with another decision rule, what it decides in `result.json` and `predictions.npz` too.

    Returns:
        the content of `result.json`.
    """
    context, folder = finished.context, finished.context.workdir
    result = {**finished.result, "decision": finished.decision.numbers}
    if finished.measured.numbers["rule"] != result["rule"]:
        result |= finished.measured.numbers
        result |= judged(result["labels"], folder / HISTORY)
        save_predictions(finished.measured.predictions, folder / PREDICTIONS)
    export_model(context, finished.model, result, finished.decision)
    # Converted files hold the decision of before.
    shutil.rmtree(folder / CONVERTED, ignore_errors=True)
    save_decision_figures(folder, result, finished.measured.test, context.data, finished.decision)
    description = read_json(folder / CONFIG)
    description["recipe"] = {**description["recipe"], "decision": dict(context.parts.recipe["decision"])}
    write_json(folder / CONFIG, description)
    write_json(folder / RESULT, result)
    return result
