"""Anybody's images and attributes from a table, CSV or Parquet: a column of paths, and one per attribute.

What the columns mean, and the shares of a split from the seed, can be said in a `schema.yaml` beside the table.
A starting point, aimed at no table: set the image size to your images' shape, and the epochs to your patience.

    python -m crl_tf.main --dataset=attribute_csv --data_dir=FOLDER_OR_TABLE --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe(
        {
            "dataset": "attribute_csv",
            "model": "deepid2",
            "data.image_size": (64, 48),
            "data.augment": ("flip",),
            "train.epochs": 15,
            "train.batch_size": 128,
            "train.learning_rate": 0.01,
            "train.schedule": "cosine",
            "crl.eta": 0.1,
            "crl.alpha_warmup_epochs": 2,
        }
    )
