"""The table of settings: every setting of a run with its default, its rule, its meaning and its flag."""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from crl_tf.datasets import DATASETS
from crl_tf.datasets.cache import MEMORY, NONE
from crl_tf.datasets.images.decode import LONGEST
from crl_tf.datasets.pipeline import AUGMENTATIONS
from crl_tf.datasets.sources.celeba import OFFICIAL, VALIDATIONS
from crl_tf.experiment.devices import NONE as NO_DISTRIBUTION
from crl_tf.experiment.devices import WORDS as DISTRIBUTIONS
from crl_tf.experiment.devices import is_distribution
from crl_tf.experiment.trainers.best_epoch import KEPT, LAST
from crl_tf.experiment.trainers.optimizer import OPTIMIZERS, SCHEDULES
from crl_tf.losses.crl.loss import BALANCES
from crl_tf.losses.crl.rectification import NORMALIZATIONS
from crl_tf.losses.table import LOSSES
from crl_tf.models.build import PRECISIONS
from crl_tf.models.transfer import IMAGENET
from crl_tf.replicas import MINING
from crl_tf.thresholds import WORDS, is_goal

AUTO_PRECISION = "auto"
"""The value of `train.precision` that leaves it to the processor (`crl_tf.experiment.precision`)."""

XLA = {"auto": "auto", "on": True, "off": False}
"""The values of `train.xla`, and what `keras.Model.compile` calls them. Keras's "auto" is off on a CPU."""


class Rule(NamedTuple):
    """What a setting may be.

    kind: its type; object: several types. holds: whether a value of this type is allowed. words: the rule, after "must be".
    optional: whether None is allowed, which a command spells none.
    """

    kind: type
    holds: Callable[[Any], bool]
    words: str
    optional: bool = False

    def parse(self, text: str) -> Any:
        """The value that a command-line text stands for; a text that is none of the type stays as it is, and is refused later."""
        plain = text.strip()
        if self.optional and plain.lower() in ("none", "null"):
            return None
        if self.kind is str:
            return text
        if self.kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}.get(plain.lower(), text)
        try:
            value = ast.literal_eval(plain)
        except (ValueError, SyntaxError):
            # Names of a tuple without quotes: flip,crop.
            return tuple(plain.split(",")) if self.kind is tuple and plain else text
        if self.kind is tuple and not isinstance(value, tuple):
            return tuple(value) if isinstance(value, list) else (value,)
        return value

    def converted(self, value: Any) -> Any:
        """A list as a tuple, an int as a float, where the type says so."""
        if self.kind is tuple and isinstance(value, list):
            return tuple(value)
        return float(value) if self.kind is float and _is_int(value) else value

    def allows(self, value: Any) -> bool:
        if value is None:
            return self.optional
        if self.kind is not bool and isinstance(value, bool):
            return False
        return isinstance(value, self.kind) and self.holds(value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def whole(least: int, most: int | None = None, *, optional: bool = False) -> Rule:
    """A rule for integers; without `most` of up to 31 bits."""
    words = f"an int >= {least}" if most is None else f"an int in [{least}, {most}]"
    most = 2**31 - 1 if most is None else most
    return Rule(int, lambda v: least <= v <= most, words + (", or none" if optional else ""), optional)


def number(interval: str, *, optional: bool = False) -> Rule:
    """A rule for numbers in an interval as mathematics writes it: "(0, 1]", "[0, inf)".

    >>> number("(0, 1]").allows(1.0), number("(0, 1]").allows(0.0)
    (True, False)
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = (lambda v: v > low) if interval[0] == "(" else (lambda v: v >= low)
    below = (lambda v: v < high) if interval[-1] == ")" else (lambda v: v <= high)
    words = f"a number in {interval}" if high < math.inf else f"a number {'>' if interval[0] == '(' else '>='} {low:g}"
    return Rule(float, lambda v: above(v) and below(v), words + (", or none" if optional else ""), optional)


def one_of(names: Iterable[str]) -> Rule:
    """A rule for a word of a list."""
    names = list(names)
    return Rule(str, lambda v: v in names, f"one of {names}")


def text(words: str = "a text", *, optional: bool = False) -> Rule:
    """A rule for texts, which must not be empty."""
    return Rule(str, lambda v: bool(v.strip()), words + (", or none" if optional else ""), optional)


SWITCH = Rule(bool, lambda v: True, "true or false")
FREEZE = Rule(object, lambda v: v in ("none", "all") or (_is_int(v) and v >= 0), "none, all, or an int >= 0")
SIZE = Rule(
    tuple,
    lambda v: len(v) == 2 and all(_is_int(side) and 1 <= side <= LONGEST for side in v),
    f"(height, width), ints in [1, {LONGEST}]",
)
AUGMENT = Rule(tuple, lambda v: all(name in AUGMENTATIONS for name in v), f"names of {list(AUGMENTATIONS)}")
EPOCHS = Rule(tuple, lambda v: all(_is_int(epoch) and epoch >= 1 for epoch in v), "ints >= 1")
MARGINS = Rule(
    tuple,
    lambda v: len(v) == 3 and all(isinstance(m, (int, float)) and 0 <= m < math.inf for m in v),
    "three numbers >= 0, or none",
    optional=True,
)


class Setting(NamedTuple):
    """One setting: its default, its rule, its help text and its short flag.

    not_a_path: of a path, the values that are words and not paths, such as "none"; None where it is no path.
    """

    default: Any
    rule: Rule
    what: str
    flag: str | None = None
    not_a_path: tuple[str, ...] | None = None


_CRL = LOSSES["class_rel"].parameters
_ANYTHING_LIKE = {float: Rule(float, math.isfinite, "a number"), str: text("a name")}

SETTINGS: dict[str, Setting] = {
    "dataset": Setting("handwriting", one_of(sorted(DATASETS)), "what to learn from", "dataset"),
    "model": Setting("deepid2", text(), "the network: a name, or keras:NAME of keras.applications", "model"),
    "method": Setting(
        "class_rel", text(), "what is done against imbalance: a method, or several joined by +; list prints them", "method"
    ),
    "seed": Setting(0, whole(0, 2**32 - 1), "of weights, order, augmentation, splits and long tails", "seed"),
    # The data.
    "data.dir": Setting(
        None,
        text("a folder", optional=True),
        "folder of the dataset in its publisher's layout; for attribute_csv also the table itself",
        "data_dir",
        (),
    ),
    "data.image_size": Setting((32, 32), SIZE, "height and width that images are resized to"),
    "data.augment": Setting((), AUGMENT, "how training images are varied"),
    "data.cache": Setting(
        NONE,
        text("'none', 'memory' or a folder"),
        "where decoded images are kept: memory, a folder (for later runs too), or none",
        "cache",
        (NONE, MEMORY),
    ),
    "data.schema": Setting(
        None,
        text("a YAML file", optional=True),
        "YAML file that says what the columns of attribute_csv mean; default: schema.yaml beside the table",
        "schema",
        (),
    ),
    "data.download": Setting(False, SWITCH, "fetch celeba or cifar100 through tensorflow-datasets", "download"),
    "data.skip_unreadable": Setting(
        False, SWITCH, "leave out images that cannot be decoded, and say which; more than 1 % stops the run", "skip_unreadable"
    ),
    "data.allow_outside_root": Setting(
        False, SWITCH, "read images that lie outside of the table's folder, by their path or a link", "allow_outside_root"
    ),
    "data.open_shards": Setting(None, whole(1, optional=True), "of records: shuffle among so many shards at a time; none: all"),
    "data.gamma": Setting(
        1.0, number("(0, inf)"), "power of the class sizes of cifar100_imb and cifar100_bln (Sec. 4.3)", "gamma"
    ),
    "data.celeba_validation": Setting(
        OFFICIAL,
        one_of(VALIDATIONS),
        "of celeba: the official validation part, or 10,000 images carved from the training part, as in the paper (Sec. 4)",
    ),
    "data.train_share": Setting(
        1.0, number("(0, 1]"), "share of the training images that is used, stratified over all labels, drawn by the seed"
    ),
    # The network.
    "network.width": Setting(
        1.0, number("(0, inf)"), "multiplies the filters of every layer; 1 is the published network", "width"
    ),
    "network.pretrained": Setting(
        None,
        text("imagenet, a file", optional=True),
        "weights of the backbone: imagenet (keras:NAME only), a file (.h5, .weights.h5, a run's model.keras), or none",
        "pretrained",
        (IMAGENET,),
    ),
    "network.freeze": Setting(
        "none", FREEZE, "how many of the backbone's layers, from the first on, are not trained; none, or all", "freeze"
    ),
    "network.cosine_scale": Setting(
        None, number("(0, inf)", optional=True), "logits are so many times the cosine of features and weights; none: plain logits"
    ),
    "network.backbone_rate": Setting(
        1.0, number("(0, inf)"), "learning rate of the backbone, as a multiple of the head's", "backbone_rate"
    ),
    "network.synchronized": Setting(
        False, SWITCH, "on several devices, batch normalisation over the whole batch; false: over each share, as Keras does"
    ),
    # The training.
    "train.epochs": Setting(10, whole(1), "passes over the training images", "epochs"),
    "train.least_steps": Setting(
        0, whole(0), "epochs of the recipe are added to until the training has so many steps; --epochs is taken as it is"
    ),
    "train.keep": Setting(LAST, one_of(KEPT), "which epoch is kept: the last, or the best by validation images", "keep"),
    "train.patience": Setting(
        None, whole(1, optional=True), "ends a training after so many epochs without a better validation score", "patience"
    ),
    "train.checkpoint_every": Setting(
        None, whole(1, optional=True), "steps between two checkpoints within an epoch, for long epochs", "checkpoint_every"
    ),
    "train.batch_size": Setting(256, whole(1), "images per step (n_bs of eq. 3)", "batch_size"),
    "train.optimizer": Setting("sgd", one_of(OPTIMIZERS), "sgd (with momentum) or adamw"),
    "train.learning_rate": Setting(0.01, number("(0, inf)"), "of the optimizer, at the start", "learning_rate"),
    "train.schedule": Setting("constant", one_of(SCHEDULES), "how the learning rate changes"),
    "train.step_epochs": Setting((), EPOCHS, "of the schedule step: after each of these epochs the rate is multiplied"),
    "train.step_factor": Setting(0.1, number("(0, inf)"), "of the schedule step: by this"),
    "train.warmup_epochs": Setting(0.0, number("[0, inf)"), "epochs over which the learning rate rises from 0"),
    "train.momentum": Setting(0.9, number("[0, 1)"), "of sgd"),
    "train.weight_decay": Setting(0.0005, number("[0, inf)"), "decoupled: a step shrinks weights by learning rate times this"),
    "train.clip_norm": Setting(
        None, number("(0, inf)", optional=True), "gradients are scaled down to this norm, over all weights; none: as they are"
    ),
    "train.steps_per_execution": Setting(
        1, whole(1), "steps between two returns to Python: the same result, less overhead", "steps_per_execution"
    ),
    "train.distribute": Setting(
        NO_DISTRIBUTION, Rule(str, is_distribution, DISTRIBUTIONS), "the devices that share each batch", "distribute"
    ),
    "train.mining": Setting(
        "global",
        one_of(MINING),
        "on several devices, what a loss compares and averages: global, as one device with the same batch; replica, its share",
        "mining",
    ),
    "train.xla": Setting("auto", one_of(XLA), "compile the step with XLA; auto: not on a CPU", "xla"),
    "train.precision": Setting(
        AUTO_PRECISION,
        one_of((AUTO_PRECISION, *PRECISIONS)),
        "what the network computes in; weights, head and losses stay float32; auto: bfloat16 where the processor or the GPU"
        " multiplies it itself",
        "precision",
    ),
    # Class rectification.
    "crl.kappa": Setting(
        _CRL["kappa"],
        whole(1, optional=True),
        "hard positives and negatives mined per class or anchor (Sec. 3.2); none: all",
        "kappa",
    ),
    "crl.rho": Setting(
        _CRL["rho"], number("(0, 1]"), "minority classes of a label hold at most this share of a batch (eq. 3)", "rho"
    ),
    "crl.eta": Setting(
        _CRL["eta"], number("[0, inf)"), "alpha = eta * Omega: weight of rectification per unit of imbalance (eq. 8)", "eta"
    ),
    "crl.alpha": Setting(
        _CRL["alpha"],
        number("[0, 1]", optional=True),
        "weight of rectification itself, in place of eta * Omega; none: eta * Omega",
        "alpha",
    ),
    "crl.margin": Setting(_CRL["margin"], number("[0, inf)", optional=True), "m of eqs. 9 and 13; none: the paper's"),
    "crl.scope": Setting(_CRL["scope"], one_of(("minority", "all")), "which classes are rectified (Table 12)", "scope"),
    "crl.num_bins": Setting(_CRL["num_bins"], whole(2), "nodes of the histograms of the distribution comparison (eq. 14)"),
    "crl.normalization": Setting(
        _CRL["normalization"],
        one_of(NORMALIZATIONS),
        "mean over all triplets of a label, or the sum over anchors of the mean of each; not for the distribution comparison",
    ),
    "crl.squared_positives": Setting(
        _CRL["squared_positives"], SWITCH, "of the absolute comparison: distances of positives squared (eq. 13), or as they are"
    ),
    "crl.gate": Setting(
        _CRL["gate"],
        SWITCH,
        "lower alpha in a step as far as L_crl nears its value for equal scores; not for distribution",
        "gate",
    ),
    "crl.balance": Setting(
        _CRL["balance"], one_of(BALANCES), "interpolate: alpha L_crl + (1 - alpha) L_ce (eq. 8); sum: alpha L_crl + L_ce"
    ),
    "crl.alpha_warmup_epochs": Setting(
        _CRL["alpha_warmup_epochs"], whole(0), "epochs over which alpha rises from 0; 0: none", "alpha_warmup_epochs"
    ),
    "crl.base": Setting(
        _CRL["base"],
        text("the name of a loss that needs no features"),
        "the loss beside the rectification: a loss that needs no features",
    ),
    # The other losses: their parameters, whose ranges their constructors check.
    **{
        f"{row.section}.{name}": Setting(default, _ANYTHING_LIKE[type(default)], f"{name} of the loss {loss} ({row.source})")
        for loss, row in LOSSES.items()
        if row.section not in (None, "crl")
        for name, default in row.parameters.items()
    },
    # Scores and decisions, after training.
    "decision.threshold": Setting(
        None,
        Rule(str, is_goal, WORDS + ", or none", optional=True),
        "thresholds of every class, chosen on validation images; none: the decision rule decides",
        "threshold",
    ),
    "decision.calibrate": Setting(
        False, SWITCH, "divide the logits of every label by a temperature that fits the validation images", "calibrate"
    ),
    # The trainers that decide by neighbours: lmle, triplet_knn, hog_knn.
    "embedding.neighbours": Setting(20, whole(1), "clusters (lmle) or images that decide"),
    "embedding.references": Setting(20_000, whole(1), "most training images that are kept as neighbours"),
    "embedding.margin": Setting(0.2, number("[0, inf)"), "of the triplets"),
    "embedding.margins": Setting(
        None, MARGINS, "of the quintuplets, from the cluster outwards; none: from the geometry of the clusters"
    ),
    "embedding.occupied_share": Setting(
        0.5, number("(0, 1]"), "of the geometry: the share of the sphere that the samples occupy; more makes margins wider"
    ),
    "embedding.cluster_every": Setting(5000, whole(1), "iterations of lmle between two clusterings"),
    "embedding.cluster_size": Setting(200, whole(1), "training images per cluster, about"),
    "embedding.pretraining_epochs": Setting(5, whole(0), "of cross-entropy, before lmle clusters for the first time"),
}
"""Every setting by its dotted key. A new one is a row here."""


def check_key(key: str) -> None:
    if key not in SETTINGS:
        close = difflib.get_close_matches(key, SETTINGS, n=1)
        raise ValueError(f"config has no setting {key!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def check_setting(key: str, value: Any) -> None:
    """Refuses a value that the rule of its setting does not allow."""
    rule = SETTINGS[key].rule
    if not rule.allows(value):
        raise ValueError(f"{key} must be {rule.words}, received {value!r}")


def absolute_path(key: str, value: Any) -> Any:
    """A path of a setting made absolute, so that a run can be continued from another folder; any other value as it is."""
    words = SETTINGS[key].not_a_path
    if words is None or not value or value in words:
        return value
    return str(Path(value).expanduser().absolute())
