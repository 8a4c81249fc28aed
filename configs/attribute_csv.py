"""Anybody's images and attributes from a table, CSV or Parquet: a column of paths, and one per attribute.

What the columns mean, and the shares of a split from the seed, can be said in a `schema.yaml` beside the table.
A starting point, aimed at no table. AdamW makes the rate independent of how many labels there are; few images get more epochs;
the best epoch by validation is kept. Nothing is augmented, because mirroring changes what some labels mean: on embedded digits
it costs nine points, and on clothes it gained nothing in 15 epochs (docs/training.md has the numbers). Set the image size to
your images' shape (`--mode=inspect` proposes one). Cost: about 5 ms an image and epoch on one core.

    python -m crl_tf.main --dataset=attribute_csv --data_dir=FOLDER_OR_TABLE --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe(
        {
            "dataset": "attribute_csv",
            "model": "resnet10",
            "data.image_size": (64, 48),
            "train.epochs": 15,
            "train.least_steps": 2000,
            "train.batch_size": 64,
            "train.optimizer": "adamw",
            "train.learning_rate": 0.002,
            "train.schedule": "cosine",
            "train.weight_decay": 0.05,
            "train.clip_norm": 5.0,
            "train.keep": "best",
            "train.patience": 10,
            "crl.eta": 0.1,
            "crl.alpha_warmup_epochs": 2,
        }
    )
