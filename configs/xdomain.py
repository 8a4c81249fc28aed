"""X-Domain (Table 2, Sec. 4.2) for a pair of cores: nine labels of 6 to 55 classes, imbalance to 1:4,162.

Aims at the order of methods in Table 5, not at its numbers: MTCT from scratch on small images, in 15 epochs. eta, weight decay
and batch as in the paper. Not run by us: the images have to be asked for. Cost: 15 x 1,215 steps, 0.5 s each on two cores by
the processor time of a few: two to three hours a loss, and reading the images.

    python -m crl_tf.main --dataset=xdomain --data_dir=FOLDER_WITH_MANIFEST --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe(
        {
            "dataset": "xdomain",
            "model": "mtct",
            "data.image_size": (96, 72),
            "data.augment": ("flip",),
            "train.epochs": 15,
            "train.batch_size": 128,
            "train.learning_rate": 0.01,
            "train.schedule": "cosine",
            "train.warmup_epochs": 1.0,
            "crl.eta": 0.01,
        }
    )
