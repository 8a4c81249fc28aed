"""The flags of the command: their definitions, the configuration that they describe, and which go together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import flags
from ml_collections import ConfigDict

from crl_tf.experiment.auto import DEFAULT_BUDGET
from crl_tf.experiment.config import exactly_so_many_epochs, flattened, load_recipe, override, refuse_clash, with_method
from crl_tf.experiment.devices import SEVERAL_MACHINES, set_machines, strategy_of
from crl_tf.experiment.halving import duration_text
from crl_tf.experiment.methods import METHODS, canonical, with_loss
from crl_tf.experiment.settings import SETTINGS, Rule, absolute_path, check_setting
from crl_tf.text import shortened

KINDS = {
    "savedmodel": (),
    "litert": ("litert", "litert_float16", "litert_int8"),
    "litert_float32": ("litert",),
    "litert_float16": ("litert_float16",),
    "litert_int8": ("litert_int8",),
    "onnx": ("onnx",),
    "none": (),
}
"""What --export takes, and the conversions that each means."""


def conversions(kinds: Sequence[str]) -> list[str]:
    """The conversions that --export names, each once.

    Raises:
        ValueError: an unknown name, or none beside others.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds or ("none" in kinds and len(kinds) > 1):
        words = ", ".join(kind for kind in KINDS if kind != "none")
        raise ValueError(f"export must be none, or some of {words}, received {','.join(kinds)!r}")
    return list(dict.fromkeys(conversion for kind in kinds for conversion in KINDS[kind]))


CONFIG = flags.DEFINE_string(
    "config", None, "recipe: a name in configs/, a file (.py), or a run's config.json; default: the dataset's recipe"
)
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "inspect", "predict", "serve", "export"],
    "train; evaluate: measure the finished run in --workdir again, or on --data_dir; inspect: look at the data; predict: the"
    " images in --input; serve: a page and a REST server; export: SavedModel, LiteRT, ONNX, with other thresholds",
)
WORKDIR = flags.DEFINE_string("workdir", None, "the folder of the run; default: runs/<dataset>-<method>-<time>")
COMPARE = flags.DEFINE_list(
    "compare",
    None,
    "methods to run on the same data: ce,class_rel,focal; several joined by + are one; or all; or auto, which finds the best one",
)
BUDGET = flags.DEFINE_string(
    "budget", None, f"with --compare=auto: the time for all of it, as 90s, 30m or 2h; default: {duration_text(DEFAULT_BUDGET)}"
)
SEEDS = flags.DEFINE_list("seeds", None, "with --compare: run each method with each of these seeds: 0,1,2")
LOSS = flags.DEFINE_enum(
    "loss",
    None,
    [name for name, row in METHODS.items() if row.loss or row.trainer],
    "another loss for the recipe's method: its resampling and its decision rule stay",
)
WORKERS = flags.DEFINE_list(
    "workers", None, "with --distribute=multiworker: host:port of every machine, the same list on each; default: TF_CONFIG"
)
TASK = flags.DEFINE_integer("task", None, "with --workers: the place of this machine in the list, from 0", lower_bound=0)
RESUME = flags.DEFINE_bool("resume", False, "continue from the checkpoint in --workdir, with its configuration")
EXPORT = flags.DEFINE_list("export", ["savedmodel"], f"what is exported after training, or by --mode=export: {', '.join(KINDS)}")
NOEXPORT = flags.DEFINE_bool("noexport", False, "the same as --export=none")
INPUT = flags.DEFINE_multi_string(
    "input", None, "with --mode=predict: image files, folders, patterns such as 'new/*.jpg', or a table with a column path"
)
OUTPUT = flags.DEFINE_string("output", "predictions.csv", "with --mode=predict: a new file, .csv, .parquet or .jsonl")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "with --mode=predict: replace an output that exists")
SCORES = flags.DEFINE_bool("scores", False, "with --mode=predict: write the score of every class")
FEATURES = flags.DEFINE_bool("features", False, "with --mode=predict: write the features")
HOST = flags.DEFINE_string("host", "127.0.0.1", "with --mode=serve: the address that is listened at; 0.0.0.0 for all")
PORT = flags.DEFINE_integer("port", 8501, "with --mode=serve: the port; 0 for any that is free", 0, 65535)
NAME = flags.DEFINE_string("name", "model", "with --mode=serve: the model's name in /v1/models/NAME")
SHOW_IMAGES = flags.DEFINE_bool("show_images", True, "with --mode=serve: show a run's nearest training images on the page")
CHANGED_ROWS = flags.DEFINE_bool(
    "allow_changed_rows",
    False,
    "with --resume and --mode=evaluate: go on although images or rows were added, left out or changed",
)
CHECK_IMAGES = flags.DEFINE_bool("check_images", True, "with --mode=inspect: read every image; --nocheck_images: lists only")
VERSION = flags.DEFINE_bool("version", False, "print the version and stop")


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
    name = CONFIG.value if CONFIG.present else values.get("dataset", SETTINGS["dataset"].default)
    config = started or load_recipe(name)
    if LOSS.present:
        if "method" in values:
            raise ValueError(f"method and loss must not be given both, received {values['method']!r} and {LOSS.value!r}")
        values["method"] = with_loss(config.method, LOSS.value)
    if started is None:
        values = exactly_so_many_epochs(values)
    # A comparison sets its methods later, on a configuration without what the recipe's method had set.
    own = SETTINGS["method"].default if COMPARE.present else config.method
    config = override(with_method(config, canonical(values.pop("method", own))), values)
    if COMPARE.value is None:
        changed = {key: value for key, value in flattened(config.to_dict()).items() if value != SETTINGS[key].default}
        refuse_clash(config.method, {**changed, **values})
    return config


def methods_of_flags() -> list[str] | None:
    """The methods that --compare names."""
    if COMPARE.present and names_one_method():
        raise ValueError("compare names the methods; --method and --loss are for one run")
    return [method.strip() for method in COMPARE.value] if COMPARE.present else None


def exports_of_flags() -> list[str]:
    """What --export and --noexport ask for; true and false are those of a version in which it was a switch."""
    words = {"true": "savedmodel", "false": "none"}
    kinds = ["none"] if NOEXPORT.value else [words.get(kind.strip(), kind.strip()) for kind in EXPORT.value]
    conversions(kinds)
    return kinds


OF_PREDICT = ["input", "output", "overwrite", "scores", "features"]
OF_SERVE = ["host", "port", "name", "show_images"]
OF_DECISIONS = [name for key in ("rule", "threshold", "calibrate") for name in (key, f"config.decision.{key}")]
OF_NEW_DATA = [
    name
    for key in ("data.dir", "data.schema", "data.skip_unreadable", "data.allow_outside_root")
    for name in (f"config.{key}", SETTINGS[key].flag)
]
OF_SETTINGS = [name for key, row in SETTINGS.items() for name in (f"config.{key}", row.flag) if name] + ["config", "loss"]
OF_TRAINING = ["resume", "compare", "seeds", "budget", "workers", "task"]
"""Flags that go together: of predictions, of a server, of thresholds, of other data to measure on, of a recipe, of training."""


def devices_of(distribute: str) -> tf.distribute.Strategy:
    """The devices and machines of a configuration and of --workers and --task, set up before TensorFlow computes anything."""
    if (WORKERS.value is None) != (TASK.value is None):
        raise ValueError("workers and task must be given together: --workers=first:2222,second:2222 --task=0")
    if WORKERS.value is not None:
        if distribute != "multiworker":
            raise ValueError(f"workers are for --distribute=multiworker, received --distribute={distribute}")
        set_machines([worker.strip() for worker in WORKERS.value], TASK.value)
    if COMPARE.present and distribute in SEVERAL_MACHINES:
        raise ValueError(f"compare trains on one machine, received --distribute={distribute}: train its methods one by one")
    return strategy_of(distribute)


def refuse_others(mode: str, why: str, own: Sequence[str]) -> None:
    """Refuses every flag that has no effect in a mode, all but its own."""
    every = [*OF_SETTINGS, *OF_TRAINING, *OF_PREDICT, *OF_SERVE, "export", "noexport", "check_images", "allow_changed_rows"]
    refuse(f"{mode}, {why}" if why else mode, [name for name in every if name not in own])


def refuse(mode: str, names: Sequence[str]) -> None:
    """Refuses flags that have no effect in a mode."""
    given = [f"--{name}" for name in names if flags.FLAGS[name].present]
    if given:
        advice = "; --mode=export sets it for a finished run" if given[0].removeprefix("--") in OF_DECISIONS else ""
        raise ValueError(f"{given[0]} has no effect with --mode={mode}: leave it out{advice}")


def names_one_method() -> bool:
    """Whether a method or a loss is named, which a comparison has no place for."""
    return flags.FLAGS["method"].present or flags.FLAGS["config.method"].present or LOSS.present


def refuse_config_on_resume(workdir: Path | None) -> None:
    """Refuses a recipe beside --resume."""
    if RESUME.value and CONFIG.present:
        raise ValueError(f"config must not be given with --resume, which takes that of {workdir}, received {CONFIG.value!r}")


def given_workdir() -> Path | None:
    """The folder of --workdir."""
    if WORKDIR.value and "\0" in WORKDIR.value:
        raise ValueError(f"workdir must be a path, received {WORKDIR.value!r}")
    return Path(WORKDIR.value).expanduser() if WORKDIR.value else None


def seeds_of_flags() -> list[int] | None:
    """The seeds of --seeds."""
    if SEEDS.value is None:
        return None
    if not all(seed.strip().isdecimal() and len(seed.strip()) <= 9 for seed in SEEDS.value):
        raise ValueError(f"seeds must be integers >= 0 of up to 9 digits, received {shortened(','.join(SEEDS.value))!r}")
    return [int(seed) for seed in SEEDS.value]


def needed_workdir(what: str) -> Path:
    """The folder of --workdir, which must be given; `what` says what for."""
    workdir = given_workdir()
    if workdir is None:
        raise ValueError(f"workdir must be given: the folder of the run to {what}, or an export of it")
    return workdir
