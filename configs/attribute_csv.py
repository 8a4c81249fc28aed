"""Anybody's images and attributes from a CSV with columns path, split and one per attribute.

A starting point, aimed at no table: set the image size to your images' shape, and the epochs to your patience.

    python -m crl_tf.main --dataset=attribute_csv --data_dir=FOLDER_OR_CSV --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.recipe import base_recipe


def get_config() -> ConfigDict:
    config = base_recipe()
    config.dataset = "attribute_csv"
    config.model = "deepid2"
    config.data.image_size = (64, 48)
    config.data.augment = ("flip",)
    config.train.epochs = 15
    config.train.batch_size = 128
    config.train.learning_rate = 0.01
    config.train.schedule = "cosine"
    config.crl.eta = 0.1
    config.crl.alpha_warmup_epochs = 2
    return config
