"""Measures finished runs on other data than their own: new images with the same labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crl_tf.datasets import Dataset, Split
from crl_tf.datasets.images.check import check_images, require_readable
from crl_tf.datasets.source import SPLITS
from crl_tf.datasets.spelling import plain
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import override
from crl_tf.experiment.data import Data, load_source
from crl_tf.experiment.deciding import decide_as_before
from crl_tf.experiment.measure import measure_model
from crl_tf.experiment.same_data import digests
from crl_tf.experiment.trainers.archive import load_trained
from crl_tf.experiment.workdir import CONFIG, MODEL, config_in, finished_runs, read_description, read_result
from crl_tf.progress import SILENT, Progress
from crl_tf.schema import NOT_ANNOTATED, Attribute, AttributeSchema
from crl_tf.text import counted, listed

_log = logging.getLogger(__name__)


def evaluate_on(workdir: Path, settings: Mapping[str, Any], *, progress: Progress = SILENT) -> list[dict[str, Any]]:
    """Measures a finished run, each run of a comparison or each finalist of a search on new data; writes nothing.

    Decision rules keep the strengths, and thresholds and temperatures their values, that were chosen on the run's own validation
    images. Of data whose splits the seed draws all images are measured; of data with splits of their own, and of the run's own
    data in another place, the test split.
    Labels and classes are matched by their names: a label that the new data lack is not measured, nor is an image of a class
    that the run does not know; both are logged. A class that is spelled otherwise is refused.

    Args:
        settings: of the section "data" that differ from those of the run, by dotted key: `data.dir` at least.
    Returns:
        a result for each run, with "dataset" naming the new data.
    """
    results, measured = [], None
    for folder in finished_runs(Path(workdir)):
        config = override(config_in(folder, CONFIG), settings)
        parts, description, result = assemble(config), read_description(folder), read_result(folder)
        if "schema" not in description:
            raise ValueError(f"{folder / CONFIG} does not say which labels the run has, as older versions: train it anew")
        schema = AttributeSchema.from_config(description["schema"])
        if measured is None or measured[0] != (config.dataset, config.data.to_dict(), schema):
            known = description.get("digests", {})
            data = _new_data(config.dataset, config.data, schema, known, parts.names["seed"], config.train.batch_size, progress)
            measured = ((config.dataset, config.data.to_dict(), schema), data)
        counts = [np.array(list(result["labels"][name]["train_counts"].values())) for name in schema.names]
        rules = {name: list(rule["strengths"].values()) for name, rule in result["rules"].items()}
        data = replace(measured[1], counts=counts)
        found = measure_model(
            load_trained(folder / MODEL),
            data.batches("test"),
            schema,
            counts,
            strengths=rules,
            rule=result["rule"],
            progress=progress,
        )
        decision = decide_as_before(
            result.get("decision", {}), found.test, schema, counts, rule=result["rule"], strengths=rules[result["rule"]]
        )
        # Of the run's own data: they say nothing of the new ones.
        others = {key: value for key, value in result.items() if key not in ("validation", "complaints", "top5")}
        names = {"method": parts.names["method"], "dataset": f"{config.dataset} in {Path(config.data.dir).name}"}
        results.append({**others, **names, **found.numbers, "decision": decision.numbers})
    return results


def _new_data(
    name: str, settings: Any, schema: AttributeSchema, known: Mapping[str, str], seed: int, batch_size: int, progress: Progress
) -> Data:
    check = not settings.skip_unreadable
    source = load_source(name, settings, seed=seed, check_images=check, known=schema, progress=progress)
    own = known and known.get("test") == digests(source).get("test")
    everything = source.drawn and not own
    images = _joined(source) if everything else source.splits["test"]
    labels = _matched(images.labels, source.schema, schema)
    if (labels < 0).all():
        raise ValueError(f"data_dir must hold images that are annotated for {listed(schema.names)}, and has none")
    words = "all" if everything else "the test split, as it was when the run was trained" if own else "the test split"
    _log.info("%s: %s images of %s, %s", name, f"{len(labels):,}", settings.dir, words)
    image_size = tuple(settings.image_size)
    split = replace(images, labels=labels)
    if settings.skip_unreadable:
        split = _readable(split, image_size, progress)
    dataset = Dataset(name, schema, dict.fromkeys(SPLITS, split))
    if not settings.skip_unreadable:
        require_readable(dataset, ("test",), image_size=image_size, progress=progress)
    return Data(dataset, [], image_size, batch_size, seed)


def _readable(split: Split, image_size: tuple[int, int], progress: Progress) -> Split:
    unreadable = check_images(split, image_size=image_size, progress=progress).unreadable
    if not unreadable:
        return split
    if len(unreadable) == len(split):
        raise ValueError(f"unreadable images: none of {len(split)} can be read, such as {listed(unreadable)}")
    _log.warning("left out %d unreadable images: %s", len(unreadable), listed(unreadable))
    return split.take(np.setdiff1d(np.arange(len(split)), [image.index for image in unreadable]))


def _joined(dataset: Dataset) -> Split:
    splits = [dataset.splits[name] for name in SPLITS]
    return Split(np.concatenate([split.images for split in splits]), np.concatenate([split.labels for split in splits]))


def _matched(labels: np.ndarray, new: AttributeSchema, own: AttributeSchema) -> np.ndarray:
    """The labels in the columns and numbers of the run's own schema, int32 [n, L]."""
    missing = [name for name in own.names if name not in new.names]
    if len(missing) == len(own.names):
        raise ValueError(f"data_dir must hold the labels {listed(own.names)} of the run, received {listed(new.names)}")
    if missing:
        _log.warning("not measured, because the new data lack the labels: %s", listed(missing, 8))
    matched = np.full((len(labels), len(own)), NOT_ANNOTATED, np.int32)
    for place, attribute in enumerate(own.attributes):
        if attribute.name in missing:
            continue
        column = new.names.index(attribute.name)
        classes = new.attributes[column].classes
        _refuse_other_spellings(attribute, classes)
        unknown = {place: name for place, name in enumerate(classes) if name not in attribute.classes}
        images = np.isin(labels[:, column], list(unknown))
        if images.any():
            _log.warning(
                "not measured: %s of %r, classes that the run does not know: %s",
                counted(int(images.sum()), "image"),
                attribute.name,
                listed(map(repr, unknown.values()), 8),
            )
        number_of = {name: number for number, name in enumerate(attribute.classes)}
        numbers = np.array([*(number_of.get(name, NOT_ANNOTATED) for name in classes), NOT_ANNOTATED], np.int32)
        matched[:, place] = numbers[labels[:, column]]
    return matched


def _refuse_other_spellings(own: Attribute, classes: Sequence[str]) -> None:
    """Refuses a new class whose name is nearly that of one that the run knows."""
    known = {plain(name): name for name in own.classes}
    other = next((name for name in classes if name not in own.classes and plain(name) in known), None)
    if other is not None:
        raise ValueError(
            f"data_dir must spell classes as the run does: {own.name!r} has {other!r}, and the run {known[plain(other)]!r}"
        )
