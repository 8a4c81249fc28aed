"""The embedded default: composed digits, five labels, imbalance from 1:1 to past 1:1,000.

Aims at no table of the paper: it shows, in about a minute on two cores and without any download, cross-entropy failing on
the rare classes and what rectification does about it.

    python -m crl_tf.main --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.recipe import base_recipe


def get_config() -> ConfigDict:
    config = base_recipe()
    config.dataset = "handwriting"
    config.model = "deepid2"
    config.data.image_size = (32, 32)
    config.train.epochs = 8
    config.train.batch_size = 128
    config.train.learning_rate = 0.02
    config.train.schedule = "cosine"
    config.crl.eta = 0.5
    config.crl.alpha_warmup_epochs = 1
    return config
