import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from trainer_contract import check_decision_model

from crl_tf.experiment.trainers.hog_knn import learn_hog_knn
from crl_tf.layers.hog import hog_of_images

pytest.importorskip("skimage")


def test_it_decides_as_scikit_learn_does_on_scikit_images_hog(given_for, toy, settings, tmp_path):
    settings.references = 1000
    settings.neighbours = 3
    model, seconds = learn_hog_knn(given_for(tmp_path))
    assert seconds > 0
    logits = check_decision_model(model, toy, tmp_path)
    train = toy.splits["train"]
    features = hog_of_images(train.images)
    known = train.labels[:, 1] >= 0
    knn = KNeighborsClassifier(3).fit(features[known], train.labels[known, 1])
    # Two classes and three votes: no tie.
    np.testing.assert_array_equal(logits[:, 3:].argmax(axis=1), knn.predict(features))


def test_a_seed_chooses_the_references(given_for, settings, tmp_path):
    settings.references = 12
    known = [learn_hog_knn(given_for(tmp_path, seed=seed))[0].get_layer("neighbours").known.numpy() for seed in (0, 0, 1)]
    assert known[0].shape[0] == 12
    np.testing.assert_array_equal(known[0], known[1])
    assert (known[0] != known[2]).any()


def test_small_images_are_refused_before_anything_is_read(given_for, tmp_path):
    with pytest.raises(ValueError, match="image_size must be 16 x 16 or more for HOG"):
        learn_hog_knn(given_for(tmp_path, image_size=(15, 20)))
