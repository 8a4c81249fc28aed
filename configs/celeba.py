"""CelebA for a pair of cores: 40 binary attributes, imbalance to 1:43.

Aims at the order of methods in Table 3, in hours instead of weeks: DeepID2 at its published input size, a learning rate that
gets somewhere in tens of epochs. eta as in the paper.

    python -m crl_tf.main --dataset=celeba --data_dir=CELEBA --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe(
        {
            "dataset": "celeba",
            "model": "deepid2",
            "data.image_size": (55, 47),
            "data.augment": ("flip",),
            "train.epochs": 20,
            "train.batch_size": 128,
            "train.learning_rate": 0.01,
            "train.schedule": "cosine",
            "crl.eta": 0.01,
        }
    )
