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
  python -m crl_tf.main --mode=evaluate --workdir=runs/mine      the same numbers again
  python -m crl_tf.main --mode=inspect --dataset=celeba --data_dir=~/celeba   how imbalanced it is, and what is wrong with it

Settings come from the defaults, then the recipe (configs/<dataset>.py unless --config names another), then
--config.key=value, then the other flags; of a repeated flag the last one counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

import crl_tf
from crl_tf.console import ConsoleProgress, show_line, show_logs_and_warnings
from crl_tf.ending import ended_in_one_line, told_how_to_go_on
from crl_tf.experiment import report
from crl_tf.experiment.auto import DEFAULT_BUDGET, auto
from crl_tf.experiment.candidates import NAME as AUTO
from crl_tf.experiment.compare import ALL, compare
from crl_tf.experiment.config import exactly_so_many_epochs, flattened, load_recipe, override, refuse_clash, with_method
from crl_tf.experiment.halving import budget_seconds, duration_text
from crl_tf.experiment.inspect import inspect
from crl_tf.experiment.methods import METHODS, canonical, with_loss
from crl_tf.experiment.run import evaluate, run
from crl_tf.experiment.settings import SETTINGS, Rule, absolute_path, check_setting
from crl_tf.experiment.workdir import AUTO as SEARCH
from crl_tf.experiment.workdir import finalist_folders, started_with
from crl_tf.models import NETWORKS, application_names, describe
from crl_tf.progress import Progress
from crl_tf.text import shortened

MOST_LABELS = 100
"""The per-label table is omitted above this many labels; result.json has them all."""

MOST_NAMED = 5
"""The default name of a comparison's folder names at most this many methods."""

MOST_RUNS = 8
"""The per-label table is omitted above this many runs; report.md and labels.csv have them all."""

_CONFIG = flags.DEFINE_string(
    "config", None, "recipe: a name in configs/, a file (.py), or a run's config.json; default: the dataset's recipe"
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "inspect"],
    "train; measure the finished run in --workdir again; or look at the data: imbalance, what CRL can reach, unreadable images",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "the folder of the run; default: runs/<dataset>-<method>-<time>")
_COMPARE = flags.DEFINE_list(
    "compare",
    None,
    "methods to run on the same data: ce,class_rel,focal; several joined by + are one; or all; or auto, which finds the best one",
)
_BUDGET = flags.DEFINE_string(
    "budget", None, f"with --compare=auto: the time for all of it, as 90s, 30m or 2h; default: {duration_text(DEFAULT_BUDGET)}"
)
_SEEDS = flags.DEFINE_list("seeds", None, "with --compare: run each method with each of these seeds: 0,1,2")
_LOSS = flags.DEFINE_enum(
    "loss",
    None,
    [name for name, row in METHODS.items() if row.loss or row.trainer],
    "another loss for the recipe's method: its resampling and its decision rule stay",
)
_RESUME = flags.DEFINE_bool("resume", False, "continue from the checkpoint in --workdir, with its configuration")
_EXPORT = flags.DEFINE_bool("export", True, "write a SavedModel to export/ in the workdir")
_CHANGED_ROWS = flags.DEFINE_bool(
    "allow_changed_rows",
    False,
    "with --resume and --mode=evaluate: go on although images or rows were added, left out or changed",
)
_CHECK_IMAGES = flags.DEFINE_bool("check_images", True, "with --mode=inspect: read every image; --nocheck_images: lists only")
_VERSION = flags.DEFINE_bool("version", False, "print the version and stop")


class _SettingParser(flags.ArgumentParser):
    """Parses the text of a flag by the rule of its setting, which is checked later, with the settings of the recipe."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.syntactic_help = ""

    def parse(self, argument: Any) -> Any:
        return self._rule.parse(argument) if isinstance(argument, str) else argument

    def flag_type(self) -> str:
        return self._rule.kind.__name__


def _define_settings() -> None:
    """Defines a flag --config.KEY for every setting, and its short flag where it has one."""
    for key, setting in SETTINGS.items():
        for name in (f"config.{key}", setting.flag):
            if name is None:
                continue
            if setting.rule.kind is bool:
                flags.DEFINE_bool(name, None, setting.what)
            else:
                text = f"{setting.what} ({setting.rule.words}); default: the recipe's"
                flags.DEFINE(_SettingParser(setting.rule), name, None, text, serializer=flags.ArgumentSerializer())


_define_settings()


def settings_of_flags() -> dict[str, Any]:
    """The settings that flags give, by dotted key; --config.KEY first, so that the short flags win."""
    values: dict[str, Any] = {}
    for prefix in ("config.", ""):
        for key, setting in SETTINGS.items():
            name = f"config.{key}" if prefix else setting.flag
            if name is not None and flags.FLAGS[name].present:
                # What is wrong is named by the flag that the user wrote.
                value = setting.rule.converted(flags.FLAGS[name].value)
                check_setting(key, value)
                values[key] = absolute_path(key, value)
    return values


def configuration(started: ConfigDict | None = None) -> ConfigDict:
    """The configuration that the flags describe: defaults, recipe, --config.KEY, short flags.

    Args:
        started: the configuration of the run that is resumed, in place of a recipe.
    """
    values = settings_of_flags()
    name = _CONFIG.value if _CONFIG.present else values.get("dataset", SETTINGS["dataset"].default)
    config = started or load_recipe(name)
    if _LOSS.present:
        if "method" in values:
            raise ValueError(f"method and loss must not be given both, received {values['method']!r} and {_LOSS.value!r}")
        values["method"] = with_loss(config.method, _LOSS.value)
    if started is None:
        values = exactly_so_many_epochs(values)
    # A comparison sets its methods later, on a configuration without what the recipe's method had set.
    own = SETTINGS["method"].default if _COMPARE.present else config.method
    config = override(with_method(config, canonical(values.pop("method", own))), values)
    if _COMPARE.value is None:
        changed = {key: value for key, value in flattened(config.to_dict()).items() if value != SETTINGS[key].default}
        refuse_clash(config.method, {**changed, **values})
    return config


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"flags only, received {argv[1:]}")
    console = Console()
    _set_up_logging(console)
    if _VERSION.value:
        console.print(f"crl_tf {crl_tf.__version__}", highlight=False)
    elif flags.FLAGS["model"].value in LISTS:
        _list_networks(console, flags.FLAGS["model"].value)
    elif flags.FLAGS["method"].value == "list":
        console.print(report.method_list(METHODS))
    elif _MODE.value == "inspect":
        with ended_in_one_line():
            _inspect(console)
    else:
        with ended_in_one_line():
            if (found := _search(ConsoleProgress(console))) is not None:
                _show_search(console, *found)
                return
            results, workdir = _results(ConsoleProgress(console))
            _show(console, results)
        if _MODE.value == "train":
            console.print(f"models, SavedModels, figures, logs: {workdir}", highlight=False, soft_wrap=True)


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
    _refuse("inspect", _OF_TRAINING)
    config = configuration()
    workdir = _given_workdir() or _new_workdir(f"inspect-{config.dataset}")
    facts = inspect(config, workdir, check_images=_CHECK_IMAGES.value, progress=ConsoleProgress(console))
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
    workdir, resume, options = _given_workdir(), _RESUME.value, {"progress": progress, "changed_rows": _CHANGED_ROWS.value}
    if workdir is None and (resume or _MODE.value == "evaluate"):
        raise ValueError("workdir must be given: the folder of the run to resume or to evaluate")
    if _MODE.value == "evaluate":
        _refuse("evaluate, which takes the settings of the run", [*_SETTING_FLAGS, *_OF_TRAINING])
        return evaluate(workdir, **options), workdir
    options["export"] = _EXPORT.value
    one_method = _names_one_method()
    _refuse_config_on_resume(workdir)
    methods, seeds = _methods(), _seeds()
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
        if methods is None:
            return [run(config, workdir, resume=resume, **options)], workdir
        return compare(config, ALL if methods == [ALL] else methods, workdir, seeds=seeds, resume=resume, **options), workdir


def _search(progress: Progress) -> tuple[dict[str, Any], Path] | None:
    """Runs the search of --compare=auto, or continues it; None if the flags ask for something else."""
    workdir, resume, methods = _given_workdir(), _RESUME.value, _methods()
    continued = methods is None and resume and workdir is not None and (workdir / SEARCH).is_file()
    if _MODE.value != "train" or not (continued or AUTO in (methods or [])):
        if _BUDGET.present:
            raise ValueError(f"budget is for --compare={AUTO}: leave it out, received {_BUDGET.value!r}")
        return None
    if _SEEDS.present:
        raise ValueError(f"seeds must not be given with --compare={AUTO}, whose budget is for methods, received {_SEEDS.value}")
    if workdir is None and resume:
        raise ValueError("workdir must be given: the folder of the search to resume")
    if continued and _names_one_method():
        raise ValueError(f"compare names the methods of {workdir}; --method and --loss are for one run")
    _refuse_config_on_resume(workdir)
    config = configuration(started_with(workdir)[0] if resume else None)
    workdir = workdir or _new_workdir(f"{config.dataset}-{AUTO}")
    named = None if continued else [name for name in methods if name != AUTO]
    budget = budget_seconds(_BUDGET.value) if _BUDGET.present else None
    options = {"budget": budget, "named": named, "resume": resume, "export": _EXPORT.value, "progress": progress}
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


def _methods() -> list[str] | None:
    """The methods that --compare names."""
    if _COMPARE.present and _names_one_method():
        raise ValueError("compare names the methods; --method and --loss are for one run")
    return [method.strip() for method in _COMPARE.value] if _COMPARE.present else None


_SETTING_FLAGS = [name for key, row in SETTINGS.items() for name in (f"config.{key}", row.flag) if name] + ["config", "loss"]
_OF_TRAINING = ["resume", "compare", "seeds", "budget"]


def _refuse(mode: str, names: Sequence[str]) -> None:
    """Refuses flags that have no effect in a mode."""
    given = [f"--{name}" for name in names if flags.FLAGS[name].present]
    if given:
        raise ValueError(f"{given[0]} has no effect with --mode={mode}: leave it out")


def _names_one_method() -> bool:
    return flags.FLAGS["method"].present or flags.FLAGS["config.method"].present or _LOSS.present


def _refuse_config_on_resume(workdir: Path | None) -> None:
    if _RESUME.value and _CONFIG.present:
        raise ValueError(f"config must not be given with --resume, which takes that of {workdir}, received {_CONFIG.value!r}")


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


def _given_workdir() -> Path | None:
    if _WORKDIR.value and "\0" in _WORKDIR.value:
        raise ValueError(f"workdir must be a path, received {_WORKDIR.value!r}")
    return Path(_WORKDIR.value).expanduser() if _WORKDIR.value else None


def _new_workdir(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _seeds() -> list[int] | None:
    if _SEEDS.value is None:
        return None
    if not all(seed.strip().isdecimal() and len(seed.strip()) <= 9 for seed in _SEEDS.value):
        raise ValueError(f"seeds must be integers >= 0 of up to 9 digits, received {shortened(','.join(_SEEDS.value))!r}")
    return [int(seed) for seed in _SEEDS.value]


if __name__ == "__main__":
    app.run(main)
