"""What the command does with a finished run: predict, serve, export, measure other data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from crl_tf.command_flags import conversions
from crl_tf.console import ConsoleProgress, show_line
from crl_tf.datasets.inputs import find_images
from crl_tf.decision import best_rule
from crl_tf.experiment import report
from crl_tf.experiment.finished import Finished, export_again, export_of, opened, run_folder
from crl_tf.experiment.workdir import CONVERTED, EXPORT
from crl_tf.serving.facts import decision_words
from crl_tf.serving.predict import ERROR, check_output, predict_files
from crl_tf.serving.served import Served, load_served
from crl_tf.text import counted

MOST_REPORTED = 10
"""Unreadable images that are named one by one."""

SOME_UNREADABLE = 3
"""Exit code: everything is written but what could not be read."""

NOT_GOOD = 4
"""Exit code: an export loses more than a point."""


def predict(
    console: Console,
    workdir: Path,
    inputs: Sequence[str],
    output: Path,
    *,
    scores: bool,
    features: bool,
    overwrite: bool,
    batch_size: int,
) -> int:
    """Predicts images in files; returns the exit code."""
    check_output(output, overwrite=overwrite)
    if output.exists() and any(os.path.exists(one) and os.path.samefile(one, output) for one in inputs):
        raise ValueError(f"output must be another file than the input, received {str(output)!r} for both")
    folder = export_of(workdir)
    images = find_images(inputs)
    if images.passed_over:
        kinds = ", ".join(f"{ending} {count:,}" for ending, count in images.passed_over.most_common(MOST_REPORTED))
        total = sum(images.passed_over.values())
        show_line(console, f"! passed over {counted(total, 'file')} in folders, which do not end as images do: {kinds}")
    served = loaded(console, folder)
    options = {"scores": scores, "features": features, "overwrite": overwrite, "batch_size": batch_size}
    summary = predict_files(served, images.paths, output, names=images.names, **options, progress=ConsoleProgress(console))
    for name, reason in summary.unreadable[:MOST_REPORTED]:
        show_line(console, f"! unreadable: {name or 'an empty path'} ({reason})")
    if len(summary.unreadable) > MOST_REPORTED:
        show_line(console, f"! and {len(summary.unreadable) - MOST_REPORTED:,} more: the column {ERROR!r} has the reasons")
    rate = summary.predicted / max(summary.seconds, 1e-9)
    show_line(
        console,
        f"{output}: {summary.predicted:,} of {counted(len(images.paths), 'image')} predicted,"
        f" {len(summary.unreadable):,} unreadable; {summary.seconds:.1f} s, {rate:,.0f} images/s",
    )
    return SOME_UNREADABLE if summary.unreadable else 0


def loaded(console: Console, folder: Path) -> Served:
    """Loads an export, and says what decides in it."""
    with console.status("loading the model"):
        served = load_served(folder)
    show_line(console, f"the decision is made by {decision_words(served)}")
    return served


def serve(console: Console, workdir: Path, *, host: str, port: int, name: str, show_images: bool) -> None:
    """Serves a model until it is stopped."""
    # Not above: FastAPI is an extra.
    from crl_tf.experiment.neighbourhood import neighbours_of
    from crl_tf.serving.server import run_server

    folder = export_of(workdir)
    served = loaded(console, folder)
    neighbours = None
    if show_images and folder != Path(workdir):
        neighbours = neighbours_of(run_folder(Path(workdir)), folder, progress=ConsoleProgress(console))

    def started(address: str) -> None:
        show_line(console, f"{folder}: a page at {address}/ and TensorFlow Serving's REST contract at {address}/v1/models/{name}")
        show_line(console, "Ctrl-C stops it")

    run_server(served, name=name, host=host, port=port, neighbours=neighbours, started=started)


def export(console: Console, workdir: Path, kinds: Sequence[str], settings: Mapping[str, Any], *, changed_rows: bool) -> int:
    """Exports a finished run anew, and converts it; returns the exit code."""
    if "none" in kinds:
        raise ValueError("export must name what to export with --mode=export, received 'none'")
    wanted = conversions(kinds)
    check_convertible(wanted)
    with opened(workdir, settings, changed_rows=changed_rows, progress=ConsoleProgress(console)) as finished:
        if "savedmodel" in kinds or settings:
            show_decision(console, export_again(finished))
            show_line(console, f"the SavedModel: {finished.context.workdir / EXPORT}")
        return _convert(console, finished, wanted) if wanted else 0


def show_better_rule(console: Console, result: Mapping[str, Any], workdir: Path) -> None:
    """Says which decision rule is better on the validation images than that of the run, if one is, and how to take it."""
    on_validation = {name: of_rule["balanced_accuracy"] or 0.0 for name, of_rule in result["validation"]["rules"].items()}
    best, own = best_rule(result["validation"]["rules"]), result["rule"]
    if on_validation[best] > on_validation[own]:
        better = f"{best} {100 * on_validation[best]:.1f} %, {own} {100 * on_validation[own]:.1f} %"
        show_line(console, f"validation images, class-balanced: {better}")
        show_line(console, f"to decide by {best}: --mode=export --workdir={workdir} --rule=best")


def check_convertible(wanted: Sequence[str]) -> None:
    """Refuses conversions whose libraries are missing."""
    if wanted:
        # Not above: TensorFlow's converter takes a while to load.
        from crl_tf.serving.convert import check_installed

        check_installed(wanted)


def convert(console: Console, workdir: Path, wanted: Sequence[str]) -> int:
    """Converts a finished run; returns the exit code."""
    if not wanted:
        return 0
    with opened(workdir, progress=ConsoleProgress(console)) as finished:
        return _convert(console, finished, wanted)


def _convert(console: Console, finished: Finished, wanted: Sequence[str]) -> int:
    # Not above: what converts is in extras.
    from crl_tf.experiment.exporting import export_finished

    rows = export_finished(finished, wanted, progress=ConsoleProgress(console))
    for table in report.exports_tables(rows):
        console.print()
        console.print(table)
    for row in rows:
        if not row["good"]:
            show_line(console, f"! {row['kind']} loses more than a point: {row['file']} is not to be used")
    show_line(console, f"exports: {finished.context.workdir / CONVERTED}")
    return 0 if all(row["good"] for row in rows) else NOT_GOOD


def show_decision(console: Console, result: Mapping[str, Any]) -> None:
    """Shows what thresholds and temperatures reach."""
    for table in report.decision_tables(result):
        console.print()
        console.print(table)
