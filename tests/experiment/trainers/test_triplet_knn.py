import numpy as np
from trainer_contract import balanced_accuracy, check_decision_model

from crl_tf.experiment.trainers.triplet_knn import learn_triplet_knn


def test_it_trains_and_decides(given_for, toy, tmp_path):
    model, seconds = learn_triplet_knn(given_for(tmp_path, epochs=6))
    assert seconds > 0
    logits = check_decision_model(model, toy, tmp_path)
    labels = toy.splits["test"].labels
    assert balanced_accuracy(logits[:, :3], labels[:, 0]) > 0.6  # a third by chance
    assert balanced_accuracy(logits[:, 3:], labels[:, 1]) > 0.6
    layer = model.get_layer("neighbours")
    assert layer.known.shape[:2] == (50, 2)  # features of each label
    np.testing.assert_allclose(np.linalg.norm(layer.known, axis=-1), 1, rtol=1e-5)


def test_it_follows_from_the_seed(given_for, toy, tmp_path):
    images = toy.splits["test"].images.astype(np.float32)
    first, again = (learn_triplet_knn(given_for(tmp_path, seed=3, epochs=1))[0](images).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)
