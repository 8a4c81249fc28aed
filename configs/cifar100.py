"""CIFAR-100, class-balanced (Table 8), for a pair of cores.

Omega is 0 on balanced data, so alpha is given: the paper's 0.5.

    python -m crl_tf.main --dataset=cifar100 --data_dir=CIFAR --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import base_recipe


def get_config() -> ConfigDict:
    config = base_recipe()
    config.dataset = "cifar100"
    config.model = "cifarnet"
    config.data.augment = ("flip", "crop")
    config.train.epochs = 30
    config.train.batch_size = 128
    config.train.learning_rate = 0.02
    config.train.schedule = "cosine"
    config.crl.alpha = 0.5
    config.crl.alpha_warmup_epochs = 2
    return config
