import numpy as np
from scikit_hog import hog_of_images
from sklearn.neighbors import KNeighborsClassifier
from trainer_contract import check_decision_model

from crl_tf.experiment.trainers import hog_knn


def test_it_decides_as_scikit_learn_does_on_scikit_images_hog(task_in, toy, settings, tmp_path):
    settings.update(references=1000, neighbours=3)
    model, seconds, facts = hog_knn.train(task_in(tmp_path))
    assert seconds > 0 and not facts
    logits = check_decision_model(model, toy, tmp_path)
    train = toy.splits["train"]
    features = hog_of_images(train.images)
    known = train.labels[:, 1] >= 0
    knn = KNeighborsClassifier(3).fit(features[known], train.labels[known, 1])
    # Two classes and three votes: no tie.
    np.testing.assert_array_equal(logits[:, 3:].argmax(axis=1), knn.predict(features))


def test_a_seed_chooses_the_references(task_in, settings, tmp_path):
    settings["references"] = 12
    known = [hog_knn.train(task_in(tmp_path, seed=seed)).model.get_layer("neighbours").known.numpy() for seed in (0, 0, 1)]
    assert known[0].shape[0] == 12
    np.testing.assert_array_equal(known[0], known[1])
    assert (known[0] != known[2]).any()
