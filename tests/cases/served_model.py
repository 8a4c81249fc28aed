"""A tiny export, and a server of it on a port of this machine, for the tests of serving."""

import base64
import contextlib
import io
import threading
import time

import keras
import numpy as np
import pytest
from PIL import Image

from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model
from crl_tf.serving.neighbours import Neighbours
from crl_tf.serving.scoring import Scoring
from crl_tf.serving.served import load_served

HUES = ("red", "green", "<img src=x onerror=alert(1)>")
MANY = tuple(f"kind {place}" for place in range(9))
SCHEMA = AttributeSchema((Attribute("hue", HUES), Attribute("kind", MANY)))
SIZE = (8, 6)
COUNTS = {"hue": (900, 90, 9), "kind": (500, 200, 100, 50, 25, 12, 6, 3, 1)}


THRESHOLDS = np.array([0.5, 0.4, 0.3, *np.full(9, 0.15)], np.float32)


def export(folder, thresholds=THRESHOLDS):
    """A model whose hue is the largest mean of a channel; it has features, thresholds and a card."""
    inputs = keras.Input((*SIZE, 3))
    means = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 32)(inputs))
    weights = np.concatenate([np.eye(3), np.zeros((3, 9))], axis=1)
    dense = keras.layers.Dense(12)
    model = keras.Model(inputs, dense(means))
    dense.set_weights([weights, np.concatenate([np.zeros(3), np.linspace(1, -1, 9)])])
    pooled = keras.Model(inputs, means)
    export_saved_model(
        model,
        SCHEMA,
        SIZE,
        folder,
        scoring=Scoring(thresholds=thresholds, decision_offsets=-np.log(thresholds)),
        features_and_logits=lambda images: (pooled(images), model(images)),
        card=card(thresholds),
    )
    return load_served(folder)


def card(thresholds):
    labels, chosen, column = {}, {}, iter(thresholds.tolist())
    for attribute in SCHEMA.attributes:
        counts = dict(zip(attribute.classes, COUNTS[attribute.name], strict=True))
        recall = {name: 1 - place / 10 for place, name in enumerate(attribute.classes)}
        labels[attribute.name] = {"train_counts": counts, "sensitivity": recall, "average_precision": recall}
        of_test = {"recall": 0.9, "precision": 0.25, "images": 40}
        chosen[attribute.name] = {name: {"threshold": next(column), "test": of_test} for name in attribute.classes}
    shares = {"balanced_accuracy": 0.75, "accuracy": 0.8, "rarest_third": 0.5, "most_frequent_third": 0.95}
    errors = {"rarest_third": 0.1, "most_frequent_third": 0.02}
    decision = {"goal": "recall:0.9", "calibration": {"as_trained": errors}, "thresholds": chosen}
    # With thresholds the model decides otherwise than by its rule.
    decision |= {**shares, "balanced_accuracy": 0.77}
    run = {"program": "crl_tf 0", "dataset": "shop", "model": "tiny", "method": "class_rel", "rule": "argmax", "epochs": 1}
    return {**run, "test": {**shares, "labels": labels}, "decision": decision}


def picture(colour, size=(20, 30), form="PNG"):
    """An encoded picture of one colour."""
    content = io.BytesIO()
    Image.new("RGB", (size[1], size[0]), colour).save(content, form)
    return content.getvalue()


def neighbours():
    """Three training images: a red, a green and a blue one."""
    colours = np.eye(3) * 200
    return Neighbours(
        features=colours / 32,
        thumbnail=lambda index: picture(tuple(int(c) for c in colours[index])),
        captions=["red.png", "green <i>.png", "blue.png"],
        labels=[{"hue": "red"}, {"hue": "green", "kind": "kind 1"}, {}],
    )


@contextlib.contextmanager
def running(app, seconds=10.0):
    """A server of an application in a thread; gives it, with its address."""
    from crl_tf.serving.server import Server

    started = threading.Event()
    server = Server(app, port=0, seconds=seconds, started=lambda _: started.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    try:
        yield server
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


RED, GREEN = picture((200, 0, 0)), picture((0, 200, 0), form="JPEG")


def ready(client):
    """Waits until the server is."""
    for _ in range(300):
        if client.get("/readyz").status_code == 200:
            return
        time.sleep(0.1)
    pytest.fail("the server is not ready")


def predict(client, request, path="/v1/models/tiny:predict"):
    """Asks for a prediction."""
    return client.post(path, json=request)


def of_bytes(*contents):
    """A request of encoded images."""
    instances = [{"b64": base64.b64encode(content).decode()} for content in contents]
    return {"signature_name": "image_bytes", "instances": instances}
