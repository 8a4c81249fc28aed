"""LMLE: its labels one by one, runs that are stopped, and what it decides."""

import csv
import logging

import keras
import numpy as np
import pytest
from trainer_contract import balanced_accuracy, check_decision_model

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.source import Dataset, Split
from crl_tf.experiment.trainers import lmle
from crl_tf.experiment.trainers.lmle import Learned, learn_label, load, save, write_history


@pytest.fixture(autouse=True)
def messages(caplog):
    """What the package logs."""
    caplog.set_level(logging.INFO, "crl_tf")
    return caplog


def history(folder):
    with open(folder / "embedding" / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(r["learned"], int(r["iterations"]), float(r["seconds"]), float(r["clustering_seconds"])) for r in rows]


def test_a_run_that_is_stopped_between_labels_ends_as_one_that_is_not(task_in, toy, tmp_path, monkeypatch, messages):
    images = toy.splits["test"].images.astype(np.float32)
    whole, seconds, facts = lmle.train(task_in(tmp_path / "whole"))
    logits = whole(images).numpy()
    assert "lmle 1/2 colour" in messages.text and "min left" in messages.text and "lmle 2/2 light" in messages.text
    rows = history(tmp_path / "whole")
    assert [row[:2] for row in rows] == [("pretraining", 4), ("colour", 8), ("light", 8)]
    assert sum(row[3] for row in rows) == pytest.approx(facts["clustering_seconds"], abs=0.06) and rows[0][3] == 0
    assert all(0 < row[3] < row[2] for row in rows[1:])
    assert sum(row[2] for row in rows) == pytest.approx(seconds, rel=0.5) and sum(row[2] for row in rows) <= seconds + 0.01

    learned, learn_label = [], lmle.learn_label

    def killed(task, label, start, iterations):
        if label == 1 and not learned.count(1):
            learned.append(label)
            raise KeyboardInterrupt
        learned.append(label)
        return learn_label(task, label, start, iterations)

    monkeypatch.setattr(lmle, "learn_label", killed)
    with pytest.raises(KeyboardInterrupt):
        lmle.train(task_in(tmp_path / "stopped"))
    first = [row[2] for row in history(tmp_path / "stopped")]
    resumed, total, of_clustering = lmle.train(task_in(tmp_path / "stopped"))
    assert learned == [0, 1, 1]  # neither pre-training nor the first label again
    np.testing.assert_array_equal(resumed(images), logits)
    rows = history(tmp_path / "stopped")
    assert [row[2] for row in rows][:2] == first and total > sum(first)
    # Of both sittings; the fact is rounded to a tenth of a second.
    assert of_clustering["clustering_seconds"] == pytest.approx(sum(row[3] for row in rows), abs=0.051 + 0.001 * len(rows))
    assert not list((tmp_path / "stopped" / "embedding").glob(".partial-*"))


def test_it_decides_and_its_model_lasts(task_in, toy, settings, tmp_path):
    # The hardest samples pull features together unless pretraining has separated them a little: 20 epochs do not suffice here.
    settings.update(pretraining_epochs=60, cluster_every=20)
    model = lmle.train(task_in(tmp_path, epochs=5)).model
    logits = check_decision_model(model, toy, tmp_path)
    labels = toy.splits["test"].labels
    assert balanced_accuracy(logits[:, :3], labels[:, 0]) > 0.6  # a third by chance
    assert balanced_accuracy(logits[:, 3:], labels[:, 1]) > 0.6


def test_other_epochs_start_the_labels_anew_but_not_what_they_start_from(task_in, settings, tmp_path):
    settings["pretraining_epochs"] = 0
    lmle.train(task_in(tmp_path, epochs=1))
    start = (tmp_path / "embedding" / "start.npz").stat().st_mtime_ns
    lmle.train(task_in(tmp_path, epochs=2))
    assert [row[1] for row in history(tmp_path)] == [0, 8, 8]
    assert (tmp_path / "embedding" / "start.npz").stat().st_mtime_ns == start


def test_a_label_that_nobody_annotated_is_refused(task_in, toy, tmp_path):
    labels = toy.splits["train"].labels.copy()
    labels[:, 1] = -1
    split = Split(toy.splits["train"].images, labels)
    dataset = Dataset("toy", toy.schema, {name: split for name in toy.splits})
    with pytest.raises(ValueError, match="every label must have an annotated training image, received none for light"):
        lmle.train(task_in(tmp_path, dataset=dataset))


def start_of(task):
    keras.utils.set_random_seed(0)
    return task.make_model().network.get_weights()


def counted(monkeypatch, name):
    """The calls of a function of the module, by what it returned."""
    calls, function = [], getattr(lmle, name)
    monkeypatch.setattr(lmle, name, lambda *a, **k: calls.append(function(*a, **k)) or calls[-1])
    return calls


def test_it_clusters_by_turns_and_brings_no_more_images_than_a_batch(task_in, tmp_path, monkeypatch):
    clusterings, draws = counted(monkeypatch, "cluster_classes"), counted(monkeypatch, "draw_anchors")
    task = task_in(tmp_path)
    start = start_of(task)
    learned = learn_label(task, 0, start, 10)
    assert [drawn.shape for drawn in draws] == [(4, 3), (4, 3), (2, 3)]  # cluster_every = 4; 16 // 5 anchors
    assert len(clusterings) == 4  # before each round, and of the last features
    np.testing.assert_array_equal(learned.centres, clusterings[-1].centres)
    assert learned.iterations == 10 and learned.seconds > learned.clustering_seconds > 0
    assert all(np.isfinite(weight).all() for weight in learned.weights)
    assert any((mine != theirs).any() for mine, theirs in zip(learned.weights, start, strict=True))
    known = int((task.data.dataset.splits["train"].labels[:, 0] >= 0).sum())
    assert len(clusterings[0].cluster) == known < 60


def test_quintuplets_are_of_a_random_half_with_the_margins_of_all_clusters(task_in, settings, tmp_path, monkeypatch):
    clusterings, rounds = counted(monkeypatch, "cluster_classes"), counted(monkeypatch, "_anchors")
    extracted = counted(monkeypatch, "extract_features")
    task = task_in(tmp_path)
    learn_label(task, 0, start_of(task), 8)
    labels = task.data.dataset.splits["train"].labels[:, 0]
    known = np.flatnonzero(labels >= 0)
    assert all((features >= 0).all() for features in extracted)  # so that they lie on a quarter of the circle
    assert len(rounds) == 2 and set(rounds[0].samples) != set(rounds[1].samples)
    for anchors, clusters in zip(rounds, clusterings, strict=False):
        for k in range(3):
            count = (labels == k).sum()
            assert (anchors.classes == k).sum() == (count + 1) // 2
        np.testing.assert_array_equal(anchors.classes, labels[anchors.samples])
        assert anchors.quintuplets.index.max() < len(anchors.samples)
        for sample, margins in zip(anchors.samples, anchors.margins, strict=True):
            of_class = int((labels == labels[sample]).sum())
            size = of_class / sum(clusters.classes == labels[sample])
            angles = (0.5 * size / len(known), 0.5 * (of_class - size) / len(known), 1 / 3)
            np.testing.assert_allclose(margins, [2 * np.sin(np.pi / 4 * a) for a in angles], rtol=1e-6)
    settings["margins"] = (0.1, 0.2, 0.3)
    learn_label(task_in(tmp_path), 0, start_of(task), 4)
    np.testing.assert_array_equal(rounds[-1].margins, np.tile(np.float32([0.1, 0.2, 0.3]), (len(rounds[-1].samples), 1)))


def test_training_separates_the_classes(task_in, settings, tmp_path, monkeypatch):
    task = task_in(tmp_path)
    settings["cluster_every"] = 20
    extracted = counted(monkeypatch, "extract_features")
    learn_label(task, 0, start_of(task), 60)
    labels = task.data.dataset.splits["train"].labels[:, 0]
    labels = labels[labels >= 0]

    def ratio(features):
        centres = np.stack([features[labels == c].mean(axis=0) for c in range(3)])
        within = np.mean([np.linalg.norm(features[labels == c] - centres[c], axis=1).mean() for c in range(3)])
        return np.linalg.norm(centres[:, None] - centres[None], axis=-1).sum() / 6 / within

    assert ratio(extracted[-1]) > 1.2 * ratio(extracted[0])


def test_augmentation_keeps_the_order_and_follows_from_the_seed(task_in, tmp_path):
    task = task_in(tmp_path)
    start = start_of(task)
    plain = learn_label(task, 1, start, 4)
    flipped, again = (learn_label(task_in(tmp_path, augment=("flip", "crop")), 1, start, 4) for _ in range(2))
    assert any((mine != theirs).any() for mine, theirs in zip(plain.weights, flipped.weights, strict=True))
    for mine, theirs in zip(flipped.weights, again.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def one_label(toy, classes):
    """The toy with a first label of these classes for its first images, none for the others."""
    labels = np.full_like(toy.splits["train"].labels, -1)
    labels[: len(classes), 0] = classes
    split = Split(toy.splits["train"].images, labels)
    return Dataset("toy", toy.schema, {name: split for name in toy.splits})


def test_degenerate_labels_train_on_what_is_left_of_them(task_in, toy, tmp_path, messages):
    for classes, trained in (
        ([0, 1], False),  # a single sample each: no hinge at all
        ([2, 2, 2], True),  # one class, one cluster: nothing in order but what has no other class either
        ([0] * 20 + [1], True),
        ([0] * 20, True),
    ):
        task = task_in(tmp_path, dataset=one_label(toy, classes))
        start = start_of(task)
        messages.clear()
        learned = learn_label(task, 0, start, 3)
        assert all(np.isfinite(weight).all() for weight in learned.weights)
        assert np.isfinite(learned.centres).all() and set(learned.classes) == set(classes)
        logged = "is not trained" in messages.text
        moved = any((mine != theirs).any() for mine, theirs in zip(learned.weights, start, strict=True))
        if classes == [2, 2, 2]:
            assert logged and not moved
        else:
            assert moved is trained and logged is not trained


def test_a_network_that_is_all_frozen_is_only_clustered(task_in, tmp_path):
    def frozen():
        inputs = keras.Input((16, 16, 3))
        features = keras.layers.Dense(4, trainable=False)(keras.layers.Flatten()(inputs))
        return CRLModel(keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(5)(features)}))

    task = task_in(tmp_path, make_model=frozen)
    start = start_of(task)
    learned = learn_label(task, 0, start, 3)
    for mine, theirs in zip(learned.weights, start, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(learned.classes) == {0, 1, 2}


def test_what_is_saved_is_loaded_only_for_the_same_length(tmp_path):
    weights = [np.arange(3.0), np.ones((2, 2), np.float32), np.array(5)]
    save(tmp_path / "a.npz", Learned(weights, 7, 1.5, np.ones((2, 3), np.float32), np.array([0, 1]), 0.5))
    loaded = load(tmp_path / "a.npz", 7)
    for mine, theirs in zip(loaded.weights, weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    assert (loaded.iterations, loaded.seconds, loaded.clustering_seconds) == (7, 1.5, 0.5)
    assert loaded.centres.shape == (2, 3) and loaded.classes.tolist() == [0, 1]
    assert load(tmp_path / "a.npz", 8) is None
    assert load(tmp_path / "b.npz", 7) is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_what_an_earlier_version_saved_is_learned_anew(tmp_path):
    np.savez(tmp_path / "old.npz", iterations=7, seconds=1.5, centres=np.ones((2, 3)), classes=np.array([0, 1]))
    assert load(tmp_path / "old.npz", 7) is None


def test_history_says_what_is_learned_so_far(tmp_path):
    none = np.zeros(0)
    write_history(tmp_path, ["start", "colour", "light"], [Learned([], n, n / 3, none, none, n / 4) for n in (4, 8)])
    with open(tmp_path / "history.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"learned": "start", "iterations": "4", "seconds": "1.333", "clustering_seconds": "1.0"},
            {"learned": "colour", "iterations": "8", "seconds": "2.667", "clustering_seconds": "2.0"},
        ]
