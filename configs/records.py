"""Images in TFRecord shards that tools/prepare_dataset.py has written, of whatever dataset.

A starting point, aimed at no table: set the image size and the network to what the images are.

    python -m crl_tf.main --dataset=records --data_dir=FOLDER --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import base_recipe


def get_config() -> ConfigDict:
    config = base_recipe()
    config.dataset = "records"
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
