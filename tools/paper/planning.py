"""From what is asked for to jobs: which configuration runs in which folder, and how far a budget cuts it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from crl_tf.experiment.config import flattened, load_recipe, override
from crl_tf.experiment.methods import combined
from crl_tf.experiment.workdir import RESULT

CIFAR, CELEBA, FASHION = "cifar", "celeba", "fashion"
"""The data that the exhibits need, each from a folder of its own."""

DATA_OF = {"cifar100": CIFAR, "cifar100_imb": CIFAR, "cifar100_bln": CIFAR, "celeba": CELEBA, "attribute_csv": FASHION}
"""Which of them a dataset of the program is read from."""

NOT_IN_THE_NAME = ("seed", "data.cache", "train.steps_per_execution", "train.xla")
"""Settings that change no result but the seed's, whose folder says it."""


class Spec(NamedTuple):
    """A run of the paper without its seed: a recipe, a method, and what differs from the recipe, by dotted key.

    data: CIFAR, CELEBA or FASHION, where its images are.
    """

    data: str
    recipe: str
    method: str
    settings: tuple[tuple[str, Any], ...] = ()


class Cut(NamedTuple):
    """What a budget leaves of a run: shares of its epochs and of its training images, in (0, 1]."""

    epochs: float = 1.0
    images: float = 1.0

    @property
    def name(self) -> str:
        """The folder of the runs that were cut so, which keeps budgets apart.

        >>> Cut().name, Cut(0.07, 0.361).name
        ('full', 'epochs-0.07-images-0.361')
        """
        return "full" if self == FULL else f"epochs-{self.epochs:g}-images-{self.images:g}"

    def applied(self, config: ConfigDict) -> ConfigDict:
        """The configuration with fewer epochs and images; what LMLE counts in epochs and steps is cut alike."""
        if self == FULL:
            return config
        embedding = config.embedding
        return override(
            config,
            {
                "train.epochs": self.epochs_of(config.train.epochs),
                "data.train_share": config.data.train_share * self.images,
                "embedding.pretraining_epochs": min(embedding.pretraining_epochs, self.epochs_of(embedding.pretraining_epochs)),
                "embedding.cluster_every": max(1, round(embedding.cluster_every * self.epochs * self.images)),
            },
        )

    def epochs_of(self, epochs: int) -> int:
        return max(1, round(epochs * self.epochs))


FULL = Cut()


@dataclass(frozen=True)
class Request:
    """What is asked for.

    out: the folder of all runs and pages. folders: where the data are, by CIFAR, CELEBA and FASHION; those that are missing are
    not there. changes: settings of all runs, by dotted key. networks: those to run; None: all.
    """

    out: Path
    folders: Mapping[str, Path]
    seeds: Sequence[int]
    changes: Mapping[str, Any] = field(default_factory=dict)
    networks: Sequence[str] | None = None

    def config(self, spec: Spec) -> ConfigDict:
        """The configuration of a run as the paper has it, on the data at hand, with the changes that are asked for."""
        # Not left to the processor: runs of one table may come from several machines.
        settings = {"train.precision": "float32", **dict(spec.settings)}
        settings |= {"data.dir": str(self.folders[spec.data]), "data.cache": str(self.out / "cache")}
        # What makes a run the one that it is, such as a sweep's setting, stays.
        fixed = {"method", *dict(spec.settings)} - {"data.image_size"}
        free = {key: value for key, value in self.changes.items() if key not in fixed}
        return override(load_recipe(spec.recipe), {**settings, **free, "method": spec.method})

    def leaves_out(self, spec: Spec) -> str | None:
        """Why a run is left out; None: it is not."""
        if spec.data not in self.folders:
            return f"no data: --{spec.data}=DIR"
        model = self.config(spec).model
        return None if self.networks is None or model in self.networks else f"--networks leaves out {model}"


@dataclass(frozen=True)
class Job:
    """One run: its name, configuration and folder. borrows: the folder of a run whose model it takes, and trains nothing."""

    name: str
    config: ConfigDict
    folder: Path
    borrows: Path | None = None

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).is_file()


def job(request: Request, spec: Spec, seed: int, cut: Cut) -> Job:
    """The run of a specification with a seed, cut by a budget."""
    config = override(cut.applied(request.config(spec)), {"seed": seed})
    folder = folder_of(request.out, config, cut)
    # A decision rule alone needs no training of its own.
    base = None
    if combined(spec.method).sets.keys() <= {*combined("ce").sets, "rule"} and combined(spec.method).rule != "argmax":
        base = folder_of(request.out, override(config, {"method": "ce"}), cut)
    return Job(f"{config.dataset} · {config.model} · {spec.method}{_differences(spec)} · seed {seed}", config, folder, base)


def folder_of(out: Path, config: ConfigDict, cut: Cut) -> Path:
    """The folder of a run: the same configuration and cut have the same."""
    name = "-".join((config.dataset, config.model, config.method))
    return out / "runs" / cut.name / f"{re.sub(r'[^a-zA-Z0-9_+]+', '-', name)}-{digest(config)}" / f"seed{config.seed}"


def digest(config: ConfigDict, without: Sequence[str] = NOT_IN_THE_NAME) -> str:
    """Eight characters that stand for all settings, apart from some."""
    settings = {key: value for key, value in flattened(config.to_dict()).items() if key not in without}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]


def jobs(request: Request, specs: Sequence[Spec], cut: Cut) -> list[Job]:
    """The runs of all specifications that are not left out, each once, seed by seed."""
    asked = [spec for spec in dict.fromkeys(specs) if request.leaves_out(spec) is None]
    planned = {one.folder: one for seed in request.seeds for one in (job(request, spec, seed, cut) for spec in asked)}
    return list(planned.values())


def _differences(spec: Spec) -> str:
    shown = {key.rpartition(".")[2]: value for key, value in spec.settings if key not in SETTINGS_OF_STAND_INS}
    return "".join(f", {key} {value:g}" if isinstance(value, float) else f", {key} {value}" for key, value in shown.items())


SETTINGS_OF_STAND_INS = ("dataset", "data.image_size", "model")
"""Settings of specifications that a run's name says already, or that its exhibit's title says."""
