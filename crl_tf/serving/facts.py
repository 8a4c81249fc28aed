"""What the page shows: of the model, how good it is and on which classes; of a picture, what the model says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from crl_tf.checks import number_or_none
from crl_tf.metrics import rarest_of
from crl_tf.serving.neighbours import Neighbours
from crl_tf.serving.rest import shortest
from crl_tf.serving.scoring import DETECTED, INDEX, SCORES
from crl_tf.serving.served import Served

ABOUT = ("program", "dataset", "model", "method", "rule", "epochs")
SHARES = ("balanced_accuracy", "accuracy", "rarest_third", "most_frequent_third")


def facts_of(served: Served, neighbours: Neighbours | None) -> dict[str, Any]:
    """The model's facts, as JSON; what the export does not say is null or missing.

    A class is `rare` if it is among the third of all classes that have the fewest training images, as `rarest_third` counts them.
    """
    card = served.card
    test, decision = _mapping(card.get("test")), _mapping(card.get("decision"))
    of_labels, of_thresholds = _mapping(test.get("labels")), _mapping(decision.get("thresholds"))
    # Under the decision that is in force: with thresholds it is not the rule alone.
    deciding = decision if set(SHARES) <= set(decision) else test
    labels = []
    for attribute in served.schema.attributes:
        columns = served.schema.columns(attribute.name)
        thresholds = None if served.scoring.thresholds is None else served.scoring.thresholds[columns]
        measured = _mapping(of_labels.get(attribute.name))
        chosen = _mapping(of_thresholds.get(attribute.name))
        classes = [
            {
                "name": name,
                "threshold": None
                if thresholds is None
                else number_or_none(shortest(np.float32(thresholds[place : place + 1]))[0]),
                **_of_class(name, measured, _mapping(chosen.get(name))),
            }
            for place, name in enumerate(attribute.classes)
        ]
        total = sum(row["train_count"] or 0 for row in classes)
        for row in classes:
            row["train_share"] = row["train_count"] / total if total and row["train_count"] is not None else None
        labels.append({"name": attribute.name, "classes": classes})
    _mark_rare([row for label in labels for row in label["classes"]])
    return {
        "about": {key: card.get(key) for key in ABOUT if card.get(key) is not None},
        "image_size": list(served.image_size),
        "test": {key: number_or_none(deciding.get(key)) for key in SHARES if key in deciding},
        "decision": decision_words(served),
        "calibration": decision.get("calibration"),
        "goal": decision.get("goal"),
        "detects": served.scoring.thresholds is not None,
        "calibrated": served.scoring.temperatures is not None,
        "labels": labels,
        "neighbours": len(neighbours) if neighbours else 0,
    }


def decision_words(served: Served) -> str:
    """Which decision is in force: the run's rule, and for labels of two classes thresholds, where there are some."""
    rule = served.card.get("rule")
    by_rule = f"the rule {rule}" if isinstance(rule, str) else "the largest score"
    if served.scoring.thresholds is None:
        return by_rule
    goal = _mapping(served.card.get("decision")).get("goal")
    by_thresholds = f"thresholds for {goal}" if isinstance(goal, str) else "thresholds"
    binary = [attribute.num_classes == 2 for attribute in served.schema.attributes]
    if all(binary):
        return by_thresholds
    others = f"{by_rule}; {by_thresholds} tell which classes are detected"
    return f"{by_thresholds} (labels of two classes) and {others}" if any(binary) else others


def _of_class(name: str, measured: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one class: training images, and what the model reaches on test images."""
    of_test = _mapping(chosen.get("test"))
    test_images = _mapping(measured.get("test_counts")).get(name, of_test.get("images"))
    return {
        "train_count": _mapping(measured.get("train_counts")).get(name),
        "recall": number_or_none(_mapping(measured.get("sensitivity")).get(name)),
        "average_precision": number_or_none(_mapping(measured.get("average_precision")).get(name)),
        "auroc": number_or_none(_mapping(measured.get("auroc")).get(name)),
        "test_images": test_images,
        "detection_recall": number_or_none(of_test.get("recall")),
        "detection_precision": number_or_none(of_test.get("precision")),
    }


def _mark_rare(classes: list[dict[str, Any]]) -> None:
    known = [row for row in classes if row["train_count"] is not None]
    rarest = set(rarest_of(np.array([row["train_count"] for row in known])).tolist()) if known else set()
    for row in classes:
        row["rare"] = False
    for place in rarest:
        known[place]["rare"] = True


def look_of(served: Served, outputs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """What the model says of one picture: for each label the decided class, and scores and detections in the order of classes.

    Args:
        outputs: of the signature image_bytes, of one image that could be decoded.
    """
    labels = []
    for attribute in served.schema.attributes:
        index = int(outputs[attribute.name + INDEX][0])
        scores = shortest(outputs[attribute.name + SCORES][0])
        detected = outputs.get(attribute.name + DETECTED)
        labels.append(
            {
                "name": attribute.name,
                "decided": index if index >= 0 else None,
                "scores": [number_or_none(score) for score in scores],
                "detected": None if detected is None else detected[0].tolist(),
            }
        )
    return labels


def nearest_of(neighbours: Neighbours, features: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The training images nearest to a picture, as JSON; `image` is where the page finds each."""
    return [
        {
            "image": f"api/neighbours/{index}",
            "caption": neighbours.captions[index],
            "labels": dict(neighbours.labels[index]),
            "similarity": round(similarity, 4),
        }
        for index, similarity in neighbours.nearest(features, count)
    ]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
