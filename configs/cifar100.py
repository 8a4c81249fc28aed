"""CIFAR-100, class-balanced (Table 8), for a pair of cores.

Omega is 0 on balanced data, so alpha is given: the paper's 0.5.

    python -m crl_tf.main --dataset=cifar100 --data_dir=CIFAR --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe(
        {
            "dataset": "cifar100",
            "model": "cifarnet",
            "data.augment": ("flip", "crop"),
            "train.epochs": 30,
            "train.batch_size": 128,
            "train.learning_rate": 0.02,
            "train.schedule": "cosine",
            "crl.alpha": 0.5,
            "crl.alpha_warmup_epochs": 2,
        }
    )
