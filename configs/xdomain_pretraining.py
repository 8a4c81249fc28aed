"""MTCT before X-Domain (Sec. 4.2): one label of many classes, such as ImageNet-1K, at a learning rate of 0.01, cross-entropy.

Aims at no table; the run's model.keras is what xdomain_paper starts from (--pretrained). Of this stage the paper tells the data
and the learning rate. Ours: the other settings of its second stage, 90 epochs, 227 x 227, mirrored images, and a tenth of the
rate after 30 and 60 epochs. The images come as a table with one column of classes, ImageNet-1K's 1,281,167 for instance. Cost:
90 x 10,010 steps of 128 images, as long each as those of xdomain_paper: five weeks on two cores.

    python -m crl_tf.main --config=xdomain_pretraining --dataset=attribute_csv --data_dir=FOLDER_OR_TABLE --noexport
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe(
        {
            "method": "ce",
            "dataset": "attribute_csv",
            "data.augment": ("flip",),
            "train.epochs": 90,
            "train.learning_rate": 0.01,
            "train.schedule": "step",
            "train.step_epochs": (30, 60),
        },
        base="xdomain_paper",
    )
