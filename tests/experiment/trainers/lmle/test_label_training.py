import keras
import numpy as np

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.source import Dataset, Split
from crl_tf.experiment.trainers.lmle import label_training
from crl_tf.experiment.trainers.lmle.label_training import learn_label


def start_of(given):
    keras.utils.set_random_seed(0)
    return given.make_model().network.get_weights()


def counted(monkeypatch, name):
    """The calls of a function of the module, by what it returned."""
    calls, function = [], getattr(label_training, name)
    monkeypatch.setattr(label_training, name, lambda *a, **k: calls.append(function(*a, **k)) or calls[-1])
    return calls


def test_it_clusters_by_turns_and_brings_no_more_images_than_a_batch(given_for, tmp_path, monkeypatch):
    clusterings, draws = counted(monkeypatch, "cluster_classes"), counted(monkeypatch, "draw_anchors")
    given = given_for(tmp_path)
    start = start_of(given)
    learned = learn_label(given, 0, start, 10)
    assert [drawn.shape for drawn in draws] == [(4, 3), (4, 3), (2, 3)]  # cluster_every = 4; 16 // 5 anchors
    assert len(clusterings) == 4  # before each round, and of the last features
    np.testing.assert_array_equal(learned.centres, clusterings[-1].centres)
    assert learned.iterations == 10 and learned.seconds > 0
    assert all(np.isfinite(weight).all() for weight in learned.weights)
    assert any((mine != theirs).any() for mine, theirs in zip(learned.weights, start, strict=True))
    known = int((given.dataset.splits["train"].labels[:, 0] >= 0).sum())
    assert len(clusterings[0].cluster) == known < 60


def test_training_separates_the_classes(given_for, tmp_path, monkeypatch):
    given = given_for(tmp_path)
    given.settings.cluster_every = 20
    found = counted(monkeypatch, "extract_features")
    learn_label(given, 0, start_of(given), 60)
    labels = given.dataset.splits["train"].labels[:, 0]
    labels = labels[labels >= 0]

    def ratio(features):
        centres = np.stack([features[labels == c].mean(axis=0) for c in range(3)])
        within = np.mean([np.linalg.norm(features[labels == c] - centres[c], axis=1).mean() for c in range(3)])
        return np.linalg.norm(centres[:, None] - centres[None], axis=-1).sum() / 6 / within

    assert ratio(found[-1]) > 1.2 * ratio(found[0])


def test_augmentation_keeps_the_order_and_follows_from_the_seed(given_for, tmp_path):
    given = given_for(tmp_path)
    start = start_of(given)
    plain = learn_label(given, 1, start, 4)
    flipped, again = (learn_label(given._replace(augment=("flip", "crop")), 1, start, 4) for _ in range(2))
    assert any((mine != theirs).any() for mine, theirs in zip(plain.weights, flipped.weights, strict=True))
    for mine, theirs in zip(flipped.weights, again.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def one_label(toy, classes):
    """The toy with a first label of these classes for its first images, none for the others."""
    labels = np.full_like(toy.splits["train"].labels, -1)
    labels[: len(classes), 0] = classes
    split = Split(toy.splits["train"].images, labels)
    return Dataset("toy", toy.schema, {name: split for name in toy.splits})


def test_degenerate_labels_train_on_what_is_left_of_them(given_for, toy, tmp_path, capsys):
    for classes, trained in (
        ([0, 1], False),  # a single sample each: no hinge at all
        ([2, 2, 2], True),  # one class, one cluster: nothing in order but what has no other class either
        ([0] * 20 + [1], True),
        ([0] * 20, True),
    ):
        given = given_for(tmp_path, dataset=one_label(toy, classes))
        start = start_of(given)
        learned = learn_label(given, 0, start, 3)
        assert all(np.isfinite(weight).all() for weight in learned.weights)
        assert np.isfinite(learned.centres).all() and set(learned.classes) == set(classes)
        said = "is not trained" in capsys.readouterr().out
        moved = any((mine != theirs).any() for mine, theirs in zip(learned.weights, start, strict=True))
        if classes == [2, 2, 2]:
            assert said and not moved
        else:
            assert moved is trained and said is not trained


def test_a_network_that_is_all_frozen_is_only_clustered(given_for, tmp_path):
    given = given_for(tmp_path)

    def frozen():
        inputs = keras.Input((16, 16, 3))
        features = keras.layers.Dense(4, trainable=False)(keras.layers.Flatten()(inputs))
        return CRLModel(keras.Model(inputs, {"features": features, "logits": keras.layers.Dense(5)(features)}))

    given = given._replace(make_model=frozen)
    start = start_of(given)
    learned = learn_label(given, 0, start, 3)
    for mine, theirs in zip(learned.weights, start, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(learned.classes) == {0, 1, 2}
