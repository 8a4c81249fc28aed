"""Train, measure, compare and export attribute models on badly imbalanced labels.

  python -m crl_tf.main                                          the embedded dataset with class-level relative CRL
  python -m crl_tf.main --compare=ce,class_rel                   cross-entropy beside CRL, one table
  python -m crl_tf.main --compare=all --seeds=0,1,2              everything that one would otherwise try, and a report
  python -m crl_tf.main --method=list                            what that is, by whom, at which cost
  python -m crl_tf.main --dataset=celeba --data_dir=~/celeba --loss=class_rel
  python -m crl_tf.main --dataset=attribute_csv --data_dir=~/shop --loss=class_rel --epochs=20
  python -m crl_tf.main --config=celeba_paper --data_dir=~/celeba          a recipe of configs/ by name, or a file
  python -m crl_tf.main --config=runs/mine/config.json           the same run again
  python -m crl_tf.main --dataset=celeba --config.train.schedule=cosine    any setting of the recipe
  python -m crl_tf.main --resume --workdir=runs/mine             go on after a crash
  python -m crl_tf.main --mode=evaluate --workdir=runs/mine      the same numbers again
  python -m crl_tf.main --mode=inspect --dataset=celeba --data_dir=~/celeba   how imbalanced it is, and what is wrong with it

Settings come from the recipe (configs/<dataset>.py unless --config names another), then from the flags below.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import app, flags, logging
from ml_collections.config_flags import config_flags
from rich.console import Console
from rich.progress import track

from crl_tf.datasets import DATASETS, cache
from crl_tf.experiment import compare as comparing
from crl_tf.experiment import config as recipe
from crl_tf.experiment import report
from crl_tf.experiment import run as experiment
from crl_tf.experiment.methods import METHODS, method_name, settings_of
from crl_tf.experiment.trainers import gradient as training
from crl_tf.experiment.workdir import started_with
from crl_tf.models import counting, transfer
from crl_tf.models.applications import application_names
from crl_tf.models.backbones import NETWORKS

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "recipe: a name in configs/ or a file; --config.train.epochs=3 sets one value. Default: the dataset's recipe"
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "inspect"],
    "train; measure the finished run in --workdir again; or look at the data: imbalance, what CRL can reach, unreadable images",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run leaves everything; default: runs/<dataset>-<loss>-<time>")
_COMPARE = flags.DEFINE_list(
    "compare", None, "methods to run on the same data: ce,class_rel,focal; several joined by + are one; or all"
)
_SEEDS = flags.DEFINE_list("seeds", None, "with --compare: run each method with each of these seeds: 0,1,2")
_METHOD = flags.DEFINE_string(
    "method", None, "loss, resampling and decision rule by name, or several joined by +; list prints what there is"
)
_RESUME = flags.DEFINE_bool("resume", False, "go on from the checkpoint in --workdir, with the recipe that it was started with")
_EXPORT = flags.DEFINE_bool("export", True, "write a SavedModel to export/ in the workdir")
_CHECK_IMAGES = flags.DEFINE_bool("check_images", True, "with --mode=inspect: read every image; --nocheck_images: lists only")

flags.DEFINE_enum("dataset", None, sorted(DATASETS), "what to learn from; default: the recipe's, and handwriting without one")
_LOSS = flags.DEFINE_enum(
    "loss", None, [name for name, row in METHODS.items() if "loss" in row.settings], "the method of that name: the short way"
)
flags.DEFINE_string(
    "model", None, "the network: a name, or keras:NAME of keras.applications; list and list:keras print what there is"
)
flags.DEFINE_string(
    "pretrained",
    None,
    "weights of the backbone: imagenet (keras:NAME only), a file (.h5, .weights.h5, a run's model.keras), or none",
)
flags.DEFINE_string(
    "freeze",
    None,
    "so many of the backbone's layers with weights stay as they are, from the first on; or all. Wants --pretrained",
)
flags.DEFINE_float(
    "backbone_rate", None, "learning rate of the backbone, as a multiple of the head's (1, if not given)", lower_bound=0.0
)
flags.DEFINE_float(
    "width", None, "multiplies the filters of every layer, > 0; networks of keras.applications have 1 only", lower_bound=0.0
)
flags.DEFINE_string("data_dir", None, "folder of the dataset, in its publisher's layout; for attribute_csv also the table itself")
flags.DEFINE_bool("download", None, "fetch celeba or cifar100 through tensorflow-datasets")
flags.DEFINE_string(
    "schema", None, "YAML file that says what the columns of attribute_csv mean; default: schema.yaml beside the table"
)
flags.DEFINE_bool("skip_unreadable", None, "leave out images that cannot be decoded, and say which; more than 1 % stops the run")
flags.DEFINE_string(
    "cache", None, "keep images decoded and resized: memory, a folder (for later runs too), or none (the default)"
)
flags.DEFINE_integer("epochs", None, "passes over the training images", lower_bound=1)
flags.DEFINE_integer("batch_size", None, "images per step (n_bs of eq. 3)", lower_bound=1)
flags.DEFINE_float("learning_rate", None, "of the optimizer, at the start", lower_bound=0.0)
flags.DEFINE_integer(
    "steps_per_execution", None, "steps that run between two returns to Python: no other result, less overhead", lower_bound=1
)
flags.DEFINE_enum("xla", None, training.XLA, "compile the step with XLA; auto (the default): not on a CPU")
flags.DEFINE_enum("precision", None, training.PRECISIONS, "what the network computes in; weights, head and losses stay float32")
flags.DEFINE_integer("seed", None, "of everything random: weights, order, augmentation, what a long-tailed set keeps")
flags.DEFINE_string("kappa", None, "hard positives and negatives mined per class or anchor (Sec. 3.2), or none to take all")
flags.DEFINE_float("rho", None, "minority classes of a label hold at most this share of a batch (eq. 3), in (0, 1]")
flags.DEFINE_float("eta", None, "alpha = eta * Omega: weight of rectification per unit of imbalance (eq. 8)", lower_bound=0.0)
flags.DEFINE_float("alpha", None, "weight of rectification itself, in [0, 1], instead of eta * Omega", 0.0, 1.0)
flags.DEFINE_enum("scope", None, ["minority", "all"], "which classes are rectified (Table 12)")
flags.DEFINE_float("gamma", None, "power of the class sizes of cifar100_imb and cifar100_bln (Sec. 4.3)", lower_bound=0.0)
flags.DEFINE_integer("alpha_warmup_epochs", None, "ramp alpha up from 0 over so many epochs", lower_bound=0)

MOST_LABELS = 100
"""More labels than this are not printed one by one; result.json has them all."""

MOST_NAMED = 5
"""Of more methods than this, the default name of a folder names only these."""

MOST_RUNS = 8
"""More runs than this are no columns of a terminal; report.md and labels.csv have them all."""

LISTS = {"list": lambda: list(NETWORKS), "list:keras": application_names}
"""What `--model` prints instead of training."""

# Where each flag goes in the recipe.
_SETTINGS = {
    "dataset": "dataset",
    "model": "model",
    "seed": "seed",
    "data_dir": "data.dir",
    **{name: f"network.{name}" for name in ("width", "pretrained", "freeze", "backbone_rate")},
    **{name: f"data.{name}" for name in ("cache", "gamma", "schema", "download", "skip_unreadable")},
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    **{name: f"train.{name}" for name in ("learning_rate", "steps_per_execution", "xla", "precision")},
    **{name: f"crl.{name}" for name in ("kappa", "rho", "eta", "alpha", "scope", "alpha_warmup_epochs")},
}


def parse(argv: Sequence[str]) -> list[str]:
    """absl's parser, after filling in the recipe: the file of a name, or the dataset's where none is given."""
    argv = list(argv)
    try:
        named = _value(argv, "config")
        if named is None:
            argv.insert(1, f"--config={recipe.recipe_path(_dataset(argv))}")
        else:
            at, width, name = named
            argv[at : at + width] = [f"--config={recipe.recipe_path(name)}"]
        return app.parse_flags_with_usage(argv)
    except (ValueError, AttributeError, TypeError, SyntaxError, ImportError) as error:
        # ml_collections tells of an unknown key by the key alone, quoted twice over.
        if key := re.match(r"[\"'\\]+(\w+)", str(error)):
            close = re.search(r'Did you mean "(\w+)"', str(error))
            sys.exit(f"crl_tf: config has no setting {key[1]!r}" + (f"; did you mean {close[1]!r}?" if close else ""))
        sys.exit(f"crl_tf: config: {error}" if not str(error).startswith("config") else f"crl_tf: {error}")
    except KeyError as error:
        sys.exit(f"crl_tf: config has no setting {error.args[0]}")


def _dataset(argv: Sequence[str]) -> str:
    given = _value(argv, "dataset")
    # An unknown one is left to the flag itself, whose error lists what there is.
    return given[2] if given and given[2] in DATASETS else "handwriting"


def _value(argv: Sequence[str], flag: str) -> tuple[int, int, str] | None:
    """Place, width and value of a flag before absl has parsed it: the recipe to parse with depends on it."""
    for i, arg in enumerate(argv):
        if arg in (f"--{flag}", f"-{flag}") and i + 1 < len(argv):
            return i, 2, argv[i + 1]
        if arg.startswith((f"--{flag}=", f"-{flag}=")):
            return i, 1, arg.split("=", 1)[1]
    return None


def given_settings() -> dict[str, Any]:
    """The settings that flags give, by their key in the recipe."""
    values: dict[str, Any] = {}
    if _METHOD.present:
        values |= settings_of(_METHOD.value)
    if _LOSS.present:
        # Only what the row says: a recipe's resampling and rule stay.
        values |= METHODS[_LOSS.value].settings
    values |= {key: flags.FLAGS[flag].value for flag, key in _SETTINGS.items() if flags.FLAGS[flag].present}
    if "crl.kappa" in values:
        kappa = values["crl.kappa"].strip().lower()
        if kappa != "none" and not (kappa.isdigit() and int(kappa) > 0):
            raise ValueError(f"kappa must be an integer >= 1, or none, received {values['crl.kappa']!r}")
        values["crl.kappa"] = None if kappa == "none" else int(kappa)
    if "network.freeze" in values:
        freeze = values["network.freeze"].strip().lower()
        if freeze != "all" and not freeze.isdigit():
            raise ValueError(f"freeze must be an integer >= 0, or all, received {values['network.freeze']!r}")
        values["network.freeze"] = -1 if freeze == "all" else int(freeze)
    if values.get("network.pretrained") == "none":
        values["network.pretrained"] = None
    # Absolute, so that the run can be evaluated and resumed from elsewhere.
    no_paths = {"data.cache": ("", cache.NONE, cache.MEMORY), "network.pretrained": ("", transfer.IMAGENET)}
    for key in ("data.dir", "data.schema", "data.cache", "network.pretrained"):
        if values.get(key) is not None and values[key] not in no_paths.get(key, ()):
            values[key] = str(Path(values[key]).expanduser().absolute())
    return values


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the program with what went wrong and no traceback (--verbosity=1 shows it)."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        logging.debug("where it came from", exc_info=True)
        sys.exit(f"crl_tf: {error}")
    except tf.errors.OpError as error:
        logging.debug("where it came from", exc_info=True)
        # What an assertion in the graph says stands between TensorFlow's own words.
        said = re.search(r"assertion failed: \[(.+)\]", error.message)
        sys.exit(f"crl_tf: {said[1] if said else error.message}")


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"flags only, received {argv[1:]}")
    if not flags.FLAGS["verbosity"].present:
        # TensorFlow tells of every file it saves, through both loggers.
        logging.set_verbosity(logging.WARNING)
        tf.get_logger().setLevel("WARNING")
    # What a dataset remarks is for the user, who has no use for the line of code that said it.
    warnings.formatwarning = lambda message, *_, **__: f"crl_tf: {message}\n"
    console = Console()
    if flags.FLAGS["model"].value in LISTS:
        _list_networks(console, flags.FLAGS["model"].value)
        return
    if _METHOD.value == "list":
        console.print(report.method_list(METHODS))
        return
    if _MODE.value == "inspect":
        with errors_in_one_line():
            _inspect(console)
        return
    with errors_in_one_line():
        results, workdir = _results()
    console.print()
    many = len({result["seed"] for result in results}) > 1 or len(results) > 2
    console.print(report.methods_table(results) if many else report.comparison_table(results))
    console.print(report.rules_table(results))
    if 1 < len(results[0]["labels"]) <= MOST_LABELS and len(results) <= MOST_RUNS:
        console.print(report.label_table(results))
    if any("top5" in result for result in results):
        console.print(report.group_table(results))
    if _MODE.value == "train":
        console.print(f"models, SavedModels, figures, logs: {workdir}", highlight=False, soft_wrap=True)


def _list_networks(console: Console, what: str) -> None:
    # One after the other: a minute for those of Keras.
    facts = [counting.describe(name) for name in track(LISTS[what](), "building", console=console, transient=True)]
    console.print(report.networks_table(facts))
    if what == "list":
        console.print(f"and keras:NAME of the {len(application_names())} networks of keras.applications: --model=list:keras")


def _inspect(console: Console) -> None:
    config = recipe.override(_CONFIG.value, given_settings())
    name = f"inspect-{config.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
    workdir = Path(_WORKDIR.value).expanduser() if _WORKDIR.value else Path("runs") / name
    found = experiment.inspect(config, workdir, check_images=_CHECK_IMAGES.value)
    for table in (report.split_table(found), report.imbalance_table(found), report.rarest_table(found)):
        console.print(table)
    console.print(
        "in reach: at least half of the batches hold two of the class, without which nothing can rectify it", highlight=False
    )
    if line := report.association_line(found):
        console.print(line, highlight=False, markup=False)
    for sentence in found["findings"]:
        console.print(f"! {sentence}", highlight=False, markup=False)
    console.print(f"inspection.json, co_occurrence.csv, figures: {workdir}", highlight=False, soft_wrap=True)


def _results() -> tuple[list[dict[str, Any]], Path]:
    workdir = _WORKDIR.value and Path(_WORKDIR.value).expanduser()
    if workdir is None and (_RESUME.value or _MODE.value == "evaluate"):
        raise ValueError("workdir must be given: the folder of the run to resume or to evaluate")
    if _MODE.value == "evaluate":
        return experiment.evaluate(workdir), workdir
    if _COMPARE.present and (_METHOD.present or _LOSS.present):
        raise ValueError("compare names the methods; --method and --loss are for one run")
    methods = [method.strip() for method in _COMPARE.value] if _COMPARE.present else None
    methods = comparing.ALL if methods == [comparing.ALL] else methods
    seeds = _seeds()
    config, plan = started_with(workdir) if _RESUME.value else (_CONFIG.value, None)
    if plan is not None:
        methods = plan["methods"] if methods is None else methods
        seeds = plan["seeds"] if seeds is None else seeds
    config = recipe.override(config, given_settings())
    if seeds and methods is None:
        raise ValueError("seeds are for --compare; one run takes --seed")
    if workdir is None:
        what = [methods] if methods == comparing.ALL else [method_name(config)] if methods is None else methods
        name = "-".join([config.dataset, *what[:MOST_NAMED], *(["and-more"] if len(what) > MOST_NAMED else [])])
        workdir = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if methods is not None:
        given = {"seeds": seeds, "resume": _RESUME.value, "export": _EXPORT.value}
        return comparing.compare(config, methods, workdir, **given), workdir
    return [experiment.run(config, workdir, resume=_RESUME.value, export=_EXPORT.value)], workdir


def _seeds() -> list[int] | None:
    if _SEEDS.value is None:
        return None
    if not all(seed.strip().isdigit() for seed in _SEEDS.value):
        raise ValueError(f"seeds must be integers >= 0, received {','.join(_SEEDS.value)!r}")
    return [int(seed) for seed in _SEEDS.value]


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
