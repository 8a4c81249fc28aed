"""What a recipe in `configs/` can say: every setting of a run, with its default. Unknown keys are refused."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def base_recipe() -> ConfigDict:
    """All settings of a run; a recipe overwrites the ones it cares about."""
    recipe = ConfigDict()
    recipe.dataset = "handwriting"
    recipe.model = "deepid2"
    # A method is a loss, what is resampled, and who decides; `crl_tf.methods` has their names.
    recipe.loss = "class_rel"
    recipe.resampling = "none"  # or a row of datasets.resampling, of the training images
    recipe.rule = "argmax"  # or a row of decision.RULES; its strength is chosen on the validation images
    recipe.seed = 0

    recipe.data = ConfigDict()
    recipe.data.dir = placeholder(str)
    recipe.data.image_size = (32, 32)  # height, width
    recipe.data.augment = ()  # names from datasets.pipeline, for training images
    recipe.data.cache = "none"  # or "memory", or a folder: keep images decoded and resized
    recipe.data.schema = placeholder(str)  # YAML that says what the columns of attribute_csv mean
    recipe.data.download = False  # through tensorflow-datasets
    recipe.data.skip_unreadable = False  # leave out image files that cannot be decoded, up to 1 % of them
    recipe.data.open_shards = placeholder(int)  # of records: shuffle among so many shards at a time; none: among all
    recipe.data.gamma = 1.0  # power of the class sizes of cifar100_imb and cifar100_bln

    recipe.network = ConfigDict()
    recipe.network.width = 1.0  # multiplies the filters of every layer; 1 is the published network
    recipe.network.pretrained = placeholder(str)  # "imagenet" (keras:NAME only), or a file of weights, or a run's model.keras
    recipe.network.freeze = 0  # so many of the backbone's layers, from the first on, stay as they are; -1: all
    recipe.network.cosine_scale = 0.0  # above 0: logits are so many times the cosine of features and weights, as LDAM wants them
    recipe.network.backbone_rate = 1.0  # the backbone learns at so many times the learning rate of the head

    recipe.train = ConfigDict()
    recipe.train.epochs = 10
    recipe.train.batch_size = 256
    recipe.train.optimizer = "sgd"  # or "adamw"
    recipe.train.learning_rate = 0.01
    recipe.train.schedule = "constant"  # or "cosine", down to 0 by the end, or "step"
    recipe.train.step_epochs = ()  # of the schedule "step": behind each of these the rate is multiplied by
    recipe.train.step_factor = 0.1
    recipe.train.warmup_epochs = 0.0  # the learning rate is led up to over so many, in a straight line from 0
    recipe.train.momentum = 0.9
    recipe.train.weight_decay = 0.0005  # decoupled: a step shrinks weights by learning rate * this, whatever the loss
    # How it computes. On a CPU none of these was measured to gain anything, XLA and bfloat16 to halve the speed.
    recipe.train.steps_per_execution = 1  # steps between returns to Python, where callbacks run
    recipe.train.xla = "auto"  # off on a CPU, Keras's choice on an accelerator; or "on", "off"
    recipe.train.precision = "float32"  # or "mixed_bfloat16", "mixed_float16"; the head and the losses stay float32

    recipe.crl = ConfigDict()
    recipe.crl.kappa = placeholder(int)  # none: mine nothing, take all
    recipe.crl.kappa = 25
    recipe.crl.rho = 0.5
    recipe.crl.eta = 0.01
    recipe.crl.alpha = placeholder(float)  # overrides eta * Omega
    recipe.crl.margin = placeholder(float)  # none: the paper's
    recipe.crl.scope = "minority"
    recipe.crl.num_bins = 100
    recipe.crl.alpha_warmup_epochs = 0
    recipe.crl.base = "ce"  # the loss beside the rectification: a row of methods.LOSSES that needs no features

    # Parameters of the losses it is compared with, as their papers have them.
    recipe.focal = ConfigDict({"gamma": 2.0, "alpha": 0.25})
    recipe.class_balanced = ConfigDict({"beta": 0.9999})
    recipe.logit_adjusted = ConfigDict({"tau": 1.0})
    recipe.ldam = ConfigDict({"max_margin": 0.5, "beta": 0.9999, "defer_until": 0.8})
    recipe.asymmetric = ConfigDict({"gamma_positive": 0.0, "gamma_negative": 4.0, "clip": 0.05})
    recipe.curriculum = ConfigDict({"scheduler": "cos"})

    recipe.embedding = ConfigDict()  # of the methods that decide by neighbours: lmle, triplet_knn, hog_knn
    recipe.embedding.neighbours = 20  # clusters (lmle) or images that decide
    recipe.embedding.references = 20_000  # most training images that are kept to be neighbours, per label
    recipe.embedding.margin = 0.2  # of the triplets
    recipe.embedding.margins = (0.1, 0.2, 0.3)  # of the quintuplets, from the cluster outwards
    recipe.embedding.cluster_every = 5000  # iterations of lmle between two clusterings
    recipe.embedding.cluster_size = 200  # training images in a cluster, about
    recipe.embedding.pretraining_epochs = 5  # of cross-entropy, before lmle clusters for the first time
    return recipe


def recipe_folder() -> Path:
    """Where the recipes are: inside the installed package, or beside it in a clone."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def recipe_names() -> list[str]:
    """Names that `--config` takes without a path."""
    return sorted(path.stem for path in recipe_folder().glob("*.py"))


def get_config(path: str) -> ConfigDict:
    """The recipe that a run has written to its config.json: this file is a recipe too, with the run as its argument."""
    return from_json(json.loads(Path(path).read_text(encoding="utf-8"))["recipe"])


def recipe_path(name: str) -> Path | str:
    """The file of a recipe given by name or by path; for the config.json of a run, this file with it as its argument."""
    if name.endswith(".json") and Path(name).is_file():
        return f"{__file__}:{name}"
    path = Path(name) if name.endswith(".py") else recipe_folder() / f"{name}.py"
    if not path.is_file():
        raise ValueError(f"config must be a file (.py, or a run's config.json) or one of {recipe_names()}, received {name!r}")
    return path


def load_recipe(name: str) -> ConfigDict:
    """The recipe of a file in `configs/` by its name, or of any file by its path."""
    path = recipe_path(name)
    spec = importlib.util.spec_from_file_location(f"crl_tf_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def override(recipe: ConfigDict, values: dict[str, Any]) -> ConfigDict:
    """A copy with `values` by dotted key ("train.epochs"); an unknown key or a value of the wrong type is refused."""
    changed = recipe.copy_and_resolve_references()
    changed.lock()
    for key, value in values.items():
        try:
            changed.update_from_flattened_dict({key: value})
        except (KeyError, TypeError) as error:
            raise ValueError(f"config: {key}={value!r} is not a setting of a recipe ({error})") from error
    return changed


def from_json(settings: dict[str, Any]) -> ConfigDict:
    """The recipe whose `to_dict()` was written to JSON (where tuples have become lists)."""
    return override(base_recipe(), {k: tuple(v) if isinstance(v, list) else v for k, v in flattened(settings).items()})


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key: {"train": {"epochs": 3}} is {"train.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
