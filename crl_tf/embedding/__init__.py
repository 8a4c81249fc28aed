"""Methods with a training stage of their own: features are learned or computed first, and then compared with what is remembered.

`stage` says what a stage is given; `lmle`, `triplet_knn` and `hog_knn` are the stages.
"""

from __future__ import annotations

from crl_tf.embedding.hog_knn import learn_hog_knn
from crl_tf.embedding.lmle import learn_lmle
from crl_tf.embedding.stage import Stage
from crl_tf.embedding.triplet_knn import learn_triplet_knn

STAGES: dict[str, Stage] = {"lmle": learn_lmle, "triplet_knn": learn_triplet_knn, "hog_knn": learn_hog_knn}
