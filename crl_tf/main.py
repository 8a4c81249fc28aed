"""Train, measure, compare and export attribute models on badly imbalanced labels.

  python -m crl_tf.main                                          the embedded dataset with class-level relative CRL
  python -m crl_tf.main --compare=ce,class_rel                   cross-entropy beside CRL, one table
  python -m crl_tf.main --compare=all --seeds=0,1,2              every method that the labels give a meaning to, and a report
  python -m crl_tf.main --compare=auto --budget=30m              what to use on these data: many methods, halved until one is left
  python -m crl_tf.main --method=list                            the methods, their sources and their costs
  python -m crl_tf.main --dataset=celeba --data_dir=~/celeba --loss=class_rel
  python -m crl_tf.main --dataset=attribute_csv --data_dir=~/shop --loss=class_rel --epochs=20
  python -m crl_tf.main --config=celeba_paper --data_dir=~/celeba          a recipe of configs/ by name, or a file
  python -m crl_tf.main --config=runs/mine/config.json           the same run again
  python -m crl_tf.main --dataset=celeba --config.train.schedule=cosine    any setting of the recipe
  python -m crl_tf.main --resume --workdir=runs/mine             continue after a crash
  python -m crl_tf.main --mode=evaluate --workdir=runs/mine      the same numbers again; with --data_dir, those of new images
  python -m crl_tf.main --mode=predict --workdir=runs/mine --input=new/ --output=new.csv
  python -m crl_tf.main --mode=serve --workdir=runs/mine         a page to drop pictures on, and a REST server
  python -m crl_tf.main --mode=export --workdir=runs/mine --export=litert,onnx --threshold=recall:0.9
  python -m crl_tf.main --mode=inspect --dataset=celeba --data_dir=~/celeba   how imbalanced it is, and what is wrong with it

Settings come from the defaults, then the recipe (configs/<dataset>.py unless --config names another), then
--config.key=value, then the other flags; of a repeated flag the last one counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import app, flags
from absl import logging as absl_logging
from rich.console import Console
from rich.progress import track

import crl_tf
from crl_tf import command_flags as given
from crl_tf import commands
from crl_tf.command_flags import configuration, conversions
from crl_tf.console import ConsoleProgress, show_line, show_logs_and_warnings
from crl_tf.ending import end_though_it_waits, ended_in_one_line, told_how_to_go_on
from crl_tf.experiment import report
from crl_tf.experiment.auto import auto
from crl_tf.experiment.candidates import NAME as AUTO
from crl_tf.experiment.compare import ALL, compare
from crl_tf.experiment.devices import SEVERAL_MACHINES
from crl_tf.experiment.halving import budget_seconds
from crl_tf.experiment.inspect import inspect
from crl_tf.experiment.methods import METHODS
from crl_tf.experiment.new_data import evaluate_on
from crl_tf.experiment.run import evaluate, run
from crl_tf.experiment.workdir import AUTO as SEARCH
from crl_tf.experiment.workdir import finalist_folders, started_with
from crl_tf.models import NETWORKS, application_names, describe
from crl_tf.progress import Progress
from crl_tf.serving.predict import BATCH_SIZE

MOST_LABELS = 100
"""The per-label table is omitted above this many labels; result.json has them all."""

MOST_NAMED = 5
"""The default name of a comparison's folder names at most this many methods."""

MOST_RUNS = 8
"""The per-label table is omitted above this many runs; report.md and labels.csv have them all."""


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        sys.exit(
            f"crl_tf: flags only, received {' '.join(argv[1:])!r}; a flag of several values is repeated: --input=a --input=b"
        )
    console = Console()
    _set_up_logging(console)
    if given.VERSION.value:
        console.print(f"crl_tf {crl_tf.__version__}", highlight=False)
    elif flags.FLAGS["model"].value in LISTS:
        _list_networks(console, flags.FLAGS["model"].value)
    elif flags.FLAGS["method"].value == "list":
        console.print(report.method_list(METHODS))
    elif given.MODE.value == "inspect":
        with ended_in_one_line():
            _inspect(console)
    elif given.MODE.value in AFTERWARDS:
        with ended_in_one_line():
            code = AFTERWARDS[given.MODE.value](console)
        sys.exit(code)
    else:
        with ended_in_one_line():
            if (found := _search(ConsoleProgress(console))) is not None:
                _show_search(console, *found)
                return
            results, workdir = _results(ConsoleProgress(console))
            if not any(results):
                console.print(
                    f"trained together with the first machine, which measures and writes {workdir}",
                    highlight=False,
                    soft_wrap=True,
                )
                return
            _show(console, results)
            if given.MODE.value == "train":
                console.print(f"models, SavedModels, figures, logs: {workdir}", highlight=False, soft_wrap=True)
                if len(results) == 1:
                    commands.show_better_rule(console, results[0], workdir)
                code = commands.convert(console, workdir, conversions(given.exports_of_flags()))
        if given.MODE.value == "train" and code:
            sys.exit(code)


def _set_up_logging(console: Console) -> None:
    if not flags.FLAGS["verbosity"].present:
        # TensorFlow tells of every file it saves, through both loggers.
        absl_logging.set_verbosity(absl_logging.WARNING)
        tf.get_logger().setLevel("WARNING")
    # Every training of a comparison traces its step once, which TensorFlow takes for a mistake where epochs are short.
    tf.get_logger().addFilter(lambda record: "triggered tf.function retracing" not in record.getMessage())
    show_logs_and_warnings(console)


LISTS = {"list": lambda: list(NETWORKS), "list:keras": application_names}
"""What `--model` prints instead of training."""


def _list_networks(console: Console, which: str) -> None:
    # One after the other: a minute for those of Keras.
    facts = [describe(name) for name in track(LISTS[which](), "building", console=console, transient=True)]
    console.print(report.networks_table(facts))
    if which == "list":
        console.print(f"and keras:NAME of the {len(application_names())} networks of keras.applications: --model=list:keras")


def _inspect(console: Console) -> None:
    given.refuse("inspect", [*given.OF_TRAINING, *given.OF_PREDICT, *given.OF_SERVE, "export", "noexport"])
    config = configuration()
    workdir = given.given_workdir() or _new_workdir(f"inspect-{config.dataset}")
    facts = inspect(config, workdir, check_images=given.CHECK_IMAGES.value, progress=ConsoleProgress(console))
    for table in (report.split_table(facts), report.imbalance_table(facts), report.rarest_table(facts)):
        console.print(table)
    console.print(
        "in reach: at least half of the batches hold two of the class, without which nothing can rectify it", highlight=False
    )
    if line := report.association_line(facts):
        console.print(line, highlight=False, markup=False)
    for sentence in facts["findings"]:
        show_line(console, f"! {sentence}")
    show_line(console, facts["proposal"])
    console.print(f"inspection.json, co_occurrence.csv, figures: {workdir}", highlight=False, soft_wrap=True)


def _results(progress: Progress) -> tuple[list[dict[str, Any]], Path]:
    """Runs, compares or evaluates as the flags say; the results and their folder."""
    workdir, resume = given.given_workdir(), given.RESUME.value
    options: dict[str, Any] = {"progress": progress, "changed_rows": given.CHANGED_ROWS.value}
    if workdir is None and (resume or given.MODE.value == "evaluate"):
        raise ValueError("workdir must be given: the folder of the run to resume or to evaluate")
    if given.MODE.value == "evaluate":
        given.refuse_others("evaluate", "which takes the settings of the run", [*given.OF_NEW_DATA, "allow_changed_rows"])
        if settings := given.settings_of_flags():
            if "data.dir" not in settings:
                raise ValueError("data_dir must be given to evaluate other data than those of the run")
            return evaluate_on(workdir, settings, progress=progress), workdir
        return evaluate(workdir, **options), workdir
    given.refuse("train", [*given.OF_PREDICT, *given.OF_SERVE])
    kinds = given.exports_of_flags()
    options["export"] = kinds != ["none"]
    if wanted := conversions(kinds):
        if given.COMPARE.present:
            raise ValueError("export must be savedmodel or none for a comparison: convert one of its runs, --mode=export")
        commands.check_convertible(wanted)
    one_method = given.names_one_method()
    given.refuse_config_on_resume(workdir)
    methods, seeds = given.methods_of_flags(), given.seeds_of_flags()
    started, plan = started_with(workdir) if resume else (None, None)
    if plan is not None:
        if one_method:
            raise ValueError(f"compare names the methods of {workdir}; --method and --loss are for one run")
        methods = plan["methods"] if methods is None else methods
        seeds = plan["seeds"] if seeds is None else seeds
    config = configuration(started)
    if seeds is not None and methods is None:
        raise ValueError("seeds are for --compare; one run takes --seed")
    names = [config.method] if methods is None else methods
    more = ["and-more"] if len(names) > MOST_NAMED else []
    workdir = workdir or _new_workdir("-".join([config.dataset, *names[:MOST_NAMED], *more]))
    with told_how_to_go_on(workdir):
        if config.train.distribute in SEVERAL_MACHINES:
            end_though_it_waits(workdir)
        given.devices_of(config.train.distribute)
        if methods is None:
            return [run(config, workdir, resume=resume, **options)], workdir
        return compare(config, ALL if methods == [ALL] else methods, workdir, seeds=seeds, resume=resume, **options), workdir


def _search(progress: Progress) -> tuple[dict[str, Any], Path] | None:
    """Runs the search of --compare=auto, or continues it; None if the flags ask for something else."""
    workdir, resume, methods = given.given_workdir(), given.RESUME.value, given.methods_of_flags()
    continued = methods is None and resume and workdir is not None and (workdir / SEARCH).is_file()
    if given.MODE.value != "train" or not (continued or AUTO in (methods or [])):
        if given.BUDGET.present:
            raise ValueError(f"budget is for --compare={AUTO}: leave it out, received {given.BUDGET.value!r}")
        return None
    if given.SEEDS.present:
        raise ValueError(
            f"seeds must not be given with --compare={AUTO}, whose budget is for methods, received {given.SEEDS.value}"
        )
    if workdir is None and resume:
        raise ValueError("workdir must be given: the folder of the search to resume")
    if continued and given.names_one_method():
        raise ValueError(f"compare names the methods of {workdir}; --method and --loss are for one run")
    given.refuse_config_on_resume(workdir)
    config = configuration(started_with(workdir)[0] if resume else None)
    given.devices_of(config.train.distribute)
    workdir = workdir or _new_workdir(f"{config.dataset}-{AUTO}")
    named = None if continued else [name for name in methods if name != AUTO]
    budget = budget_seconds(given.BUDGET.value) if given.BUDGET.present else None
    options = {
        "budget": budget,
        "named": named,
        "resume": resume,
        "export": given.exports_of_flags() != ["none"],
        "progress": progress,
    }
    with told_how_to_go_on(workdir):
        return auto(config, workdir, **options), workdir


def _show_search(console: Console, search: dict[str, Any], workdir: Path) -> None:
    for table in report.auto_tables(search):
        console.print()
        console.print(table)
    for sentence in report.auto_sentences(search, workdir):
        # A command is copied: it must not be broken.
        console.print(sentence, highlight=False, markup=False, soft_wrap=" -m crl_tf" in sentence)
    console.print(f"\nreport.md, auto.json, trainings: {workdir}", highlight=False, soft_wrap=True)
    model = finalist_folders(workdir)[0]
    files = "model.keras and export/, the SavedModel" if (model / "export").is_dir() else "model.keras"
    console.print(f"{files}: {model}", highlight=False, soft_wrap=True)


def _predict(console: Console) -> int:
    given.refuse_others("predict", "", [*given.OF_PREDICT, "batch_size"])
    if not given.INPUT.present:
        raise ValueError("input must be given with --mode=predict: image files, folders, patterns or a table")
    settings = given.settings_of_flags()
    return commands.predict(
        console,
        given.needed_workdir("predict with"),
        given.INPUT.value,
        Path(given.OUTPUT.value).expanduser(),
        scores=given.SCORES.value,
        features=given.FEATURES.value,
        overwrite=given.OVERWRITE.value,
        batch_size=settings.get("train.batch_size", BATCH_SIZE),
    )


def _serve(console: Console) -> int:
    given.refuse_others("serve", "", given.OF_SERVE)
    workdir = given.needed_workdir("serve")
    commands.serve(
        console, workdir, host=given.HOST.value, port=given.PORT.value, name=given.NAME.value, show_images=given.SHOW_IMAGES.value
    )
    return 0


def _export(console: Console) -> int:
    given.refuse_others("export", "", [*given.OF_DECISIONS, "export", "allow_changed_rows"])
    workdir = given.needed_workdir("export")
    return commands.export(
        console, workdir, given.exports_of_flags(), given.settings_of_flags(), changed_rows=given.CHANGED_ROWS.value
    )


AFTERWARDS = {"predict": _predict, "serve": _serve, "export": _export}
"""What is done with a finished run, by mode; each returns the exit code."""


def _show(console: Console, results: list[dict[str, Any]]) -> None:
    """Prints the tables of finished runs."""
    console.print()
    many = len({result["seed"] for result in results}) > 1 or len(results) > 2
    console.print(report.methods_table(results) if many else report.comparison_table(results))
    console.print(report.rules_table(results))
    if any("intervals" in result for result in results):
        console.print(report.ranking_table(results))
    if 1 < len(results[0]["labels"]) <= MOST_LABELS and len(results) <= MOST_RUNS:
        console.print(report.label_table(results))
    if any("top5" in result for result in results):
        console.print(report.group_table(results))
    if len(results) == 1 and results[0].get("decision", {}).keys() - {"calibration"}:
        commands.show_decision(console, results[0])


def _new_workdir(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


# --help shows the flags of this file alone.
flags.adopt_module_key_flags(given)

if __name__ == "__main__":
    app.run(main)
