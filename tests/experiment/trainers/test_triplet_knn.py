import numpy as np
from trainer_contract import balanced_accuracy, check_decision_model

from crl_tf.experiment.trainers import triplet_knn


def test_it_trains_and_decides(task_in, toy, tmp_path):
    model, seconds, facts = triplet_knn.train(task_in(tmp_path, epochs=6))
    assert seconds > 0 and not facts
    logits = check_decision_model(model, toy, tmp_path)
    labels = toy.splits["test"].labels
    assert balanced_accuracy(logits[:, :3], labels[:, 0]) > 0.6  # a third by chance
    # Not of light and dark: CifarNet standardises each image, which leaves little of them.
    layer = model.get_layer("neighbours")
    assert len(layer.known.shape) == 2 and layer.known.shape[0] == 50  # CifarNet's features are those of both labels
    np.testing.assert_allclose(np.linalg.norm(layer.known, axis=-1), 1, rtol=1e-5)


def test_it_follows_from_the_seed(task_in, toy, tmp_path):
    images = toy.splits["test"].images.astype(np.float32)
    first, again = (triplet_knn.train(task_in(tmp_path, seed=3, epochs=1)).model(images).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)
