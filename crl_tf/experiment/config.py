"""The configuration of a run: recipes, overrides, and the checks before anything is read."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

from crl_tf.datasets.resampling import MeaninglessForData
from crl_tf.experiment.devices import NONE
from crl_tf.experiment.methods import METHODS, Method, canonical, combined
from crl_tf.experiment.settings import SETTINGS, check_key, check_setting
from crl_tf.experiment.trainers import TRAINERS
from crl_tf.experiment.trainers.optimizer import check_schedule
from crl_tf.files import read_json
from crl_tf.losses.table import LOSSES, Problem, make_loss
from crl_tf.models import check_network, find_network


def base_config() -> ConfigDict:
    """All settings of a run with their defaults, for a recipe to change."""
    config = ConfigDict()
    for key, setting in SETTINGS.items():
        section, _, name = key.rpartition(".")
        holder = config
        if section:
            if section not in config:
                config[section] = ConfigDict()
            holder = config[section]
        holder[name] = FieldReference(setting.default, field_type=setting.rule.kind)
    return config.lock()


def recipe(settings: Mapping[str, Any], base: str | None = None) -> ConfigDict:
    """A recipe: another one, or the defaults, with some settings changed.

    Args:
        settings: by dotted key.
        base: name of the other recipe.
    """
    refuse_clash(settings.get("method", SETTINGS["method"].default), settings)
    return override(base_config() if base is None else load_recipe(base), exactly_so_many_epochs(settings))


def refuse_clash(method: str, settings: Mapping[str, Any]) -> None:
    """Refuses other values, by dotted key, of settings that the method sets itself."""
    for key, value in combined(method).settings.items():
        if settings.get(key, value) != value:
            raise ValueError(f"{key} is set by the method {method}: leave it out, received {settings[key]!r}")


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A copy of a configuration with values by dotted key ("train.epochs").

    Raises:
        ValueError: an unknown key, or a value that its rule refuses.
    """
    changed = config.copy_and_resolve_references()
    with changed.unlocked(), changed.ignore_type():
        for key, value in values.items():
            check_key(key)
            value = SETTINGS[key].rule.converted(value)
            check_setting(key, value)
            section, _, name = key.rpartition(".")
            (changed[section] if section else changed)[name] = value
    return changed.lock()


def with_method(config: ConfigDict, name: str) -> ConfigDict:
    """A copy with another method.

    What the previous method had set, as in the config.json of a run, goes back to its default.
    """
    before, previous = flattened(config.to_dict()), combined(config.method).settings
    reset = {key: SETTINGS[key].default for key, value in previous.items() if before[key] == value}
    return override(config, {**reset, "method": name})


def exactly_so_many_epochs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which epochs that are given mean what they say: a base's `train.least_steps` adds none to them.

    >>> exactly_so_many_epochs({"train.epochs": 3})
    {'train.least_steps': 0, 'train.epochs': 3}
    """
    return {**({"train.least_steps": 0} if "train.epochs" in settings else {}), **settings}


def at_length(config: ConfigDict, epochs: int) -> ConfigDict:
    """A copy of a configuration that trains for another number of epochs, its schedules in proportion.

    Warm-ups and the epochs of a step schedule move with the length. A warm-up of alpha is rounded up to whole epochs; a step
    that would come after the last epoch is left out.
    """
    train, scale = config.train, epochs / config.train.epochs
    steps = sorted({max(1, round(epoch * scale)) for epoch in train.step_epochs})
    steps = tuple(epoch for epoch in steps if epoch < epochs)
    return override(
        config,
        {
            "train.epochs": epochs,
            "train.least_steps": 0,
            "train.warmup_epochs": train.warmup_epochs * scale,
            "train.step_epochs": steps,
            "train.schedule": "constant" if train.schedule == "step" and not steps else train.schedule,
            "crl.alpha_warmup_epochs": math.ceil(config.crl.alpha_warmup_epochs * scale),
        },
    )


def long_enough(config: ConfigDict, images: int) -> ConfigDict:
    """The configuration, or where `train.least_steps` needs more epochs of so many training images, one with as many."""
    train = config.train
    epochs = math.ceil(train.least_steps / math.ceil(images / train.batch_size))
    return at_length(config, epochs) if epochs > train.epochs else config


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key: {"train": {"epochs": 3}} is {"train.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def checked(config: ConfigDict) -> tuple[ConfigDict, Method]:
    """The configuration with what its method sets, and the method; refused if it cannot be run, before anything is read.

    Raises:
        ValueError: it names the setting, the rule and what was received.
        MeaninglessForData: image size, batch size, open shards or network give the method no meaning.
    """
    method = combined(config.method)
    config = override(config, {**flattened(config.to_dict()), **method.settings})
    trainer, size = TRAINERS[method.trainer], config.data.image_size
    if not trainer.resampling and (method.resampling, method.order) != ("none", "shuffled"):
        what = "resampled" if method.resampling != "none" else "paired"
        raise ValueError(f"method {config.method!r}: {method.trainer} draws its own samples, which cannot be {what}")
    if method.order == "pairs":
        if config.train.batch_size % 2:
            raise MeaninglessForData(f"train.batch_size must be even for pairs, received {config.train.batch_size}")
        if config.data.open_shards is not None:
            raise MeaninglessForData(
                f"data.open_shards must be none for pairs, whose images lie in any shard, received {config.data.open_shards}"
            )
    if config.train.distribute != NONE and not trainer.distributed:
        raise MeaninglessForData(
            f"train.distribute must be {NONE} for {config.method}, which trains on one device, received"
            f" {config.train.distribute!r}"
        )
    if min(size) < trainer.smallest_side:
        least = trainer.smallest_side
        raise MeaninglessForData(f"data.image_size must be {least} x {least} or more for {method.trainer}, received {size}")
    if config.network.cosine_scale and find_network(config.model).linear_svm:
        raise MeaninglessForData(f"network.cosine_scale must be none for {config.model}, which ends in a linear SVM")
    network = {name: config.network[name] for name in ("width", "pretrained", "cosine_scale")}
    check_network(config.model, image_size=size, **network)
    _check_losses(method.loss, loss_sections(config), config.network.cosine_scale)
    check_schedule(config.train)
    if config.crl.alpha_warmup_epochs and config.train.steps_per_execution > 1:
        raise ValueError(
            f"train.steps_per_execution must be 1 with crl.alpha_warmup_epochs = {config.crl.alpha_warmup_epochs}, which changes"
            f" alpha at every step, received {config.train.steps_per_execution}: --alpha_warmup_epochs=0 turns the warm-up off"
        )
    return config, method


def _check_losses(name: str, sections: Mapping[str, Mapping[str, Any]], cosine_scale: float | None) -> None:
    """Checks the parameters of all losses by making each of a section once, and the chosen one with its cosine scale."""
    first = {row.section: loss for loss, row in reversed(LOSSES.items()) if row.section}
    for section, loss in first.items():
        try:
            # Three classes: focal.alpha >= 1 is refused for binary labels only, which are not known before the data are.
            make_loss(loss, sections, Problem([3], [[3, 2, 1]], 1.0))
        except ValueError as error:
            of_section = str(error).split(" ")[0] in LOSSES[loss].parameters
            raise ValueError(f"{section}.{error}" if of_section else str(error)) from error
    make_loss(name, sections, Problem([3], [[3, 2, 1]], cosine_scale))


def loss_sections(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """The parameters of all losses by section, as `crl_tf.losses.table.make_loss` takes them."""
    return {row.section: config[row.section].to_dict() for row in LOSSES.values() if row.section}


def recipe_folder() -> Path:
    """The folder of the recipes: inside the installed package, or beside it in a clone."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def recipe_names() -> list[str]:
    """Names that `--config` takes without a path."""
    return sorted(path.stem for path in recipe_folder().glob("*.py"))


def load_recipe(name: str) -> ConfigDict:
    """The configuration of a recipe in `configs/` by its name, of any recipe by its path, or of a run by its config.json.

    Raises:
        ValueError: no such recipe, or one that is not valid Python or sets what does not exist.
    """
    if name.endswith(".json") and Path(name).is_file():
        content = read_json(Path(name))
        return from_json(content.get("recipe") if isinstance(content, Mapping) else content)
    path = Path(name) if name.endswith(".py") else recipe_folder() / f"{name}.py"
    if not path.is_file():
        raise ValueError(f"config must be a file (.py, or a run's config.json) or one of {recipe_names()}, received {name!r}")
    spec = importlib.util.spec_from_file_location(f"crl_tf_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return override(base_config(), flattened(module.get_config().to_dict()))
    except ValueError:
        raise
    except (Exception, SystemExit) as error:  # a recipe is a program of the user's
        raise ValueError(f"config {path}: {type(error).__name__}: {error}") from error


def from_json(settings: Mapping[str, Any] | None) -> ConfigDict:
    """The configuration whose `to_dict()` was written to JSON, by this version or by 0.1.

    Raises:
        ValueError: it is no configuration, or sets what does not exist.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"config: a run's config.json holds its configuration under 'recipe', received {settings!r} there")
    # What a run computes in is always written; files from before that setting mean float32.
    flat = {"train.precision": "float32", **flattened(settings)}
    return override(base_config(), flat if "method" in flat else _from_0_1(flat))


def _from_0_1(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of version 0.1, which had loss, resampling and rule in place of the method, and numbers for "off" and "all"."""
    settings = {key: value for key, value in flat.items() if key not in ("loss", "resampling", "rule")}

    rows = []
    for part, default in (("loss", "class_rel"), ("resampling", "none"), ("rule", "argmax")):
        value = flat.get(part, default)
        # What is a trainer now was called a loss.
        named = {
            name: row for name, row in METHODS.items() if value in (getattr(row, part), row.trainer if part == "loss" else None)
        }
        fitting = [
            name
            for name, row in named.items()
            if all(flat.get(key, SETTINGS[key].default) == setting for key, setting in row.settings.items())
        ]
        if not fitting and value not in ("none", "argmax"):
            raise ValueError(f"config of version 0.1: {part} = {value!r} with its other settings is no method of this version")
        # The row that says most: class_rel with rho = 0.1 is class_rel_rho_10.
        rows += [max(fitting, key=lambda name: len(METHODS[name].settings))] if fitting else []
    settings["method"] = canonical("+".join(rows))
    for key, old, new in (("network.freeze", -1, "all"), ("network.freeze", 0, "none"), ("network.cosine_scale", 0.0, None)):
        if key in settings and settings[key] == old and not isinstance(settings[key], bool):
            settings[key] = new
    return settings
