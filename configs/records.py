"""Images in TFRecord shards that tools/prepare_dataset.py has written, of whatever dataset.

A starting point, aimed at no table: set the image size and the network to what the images are.

    python -m crl_tf.main --dataset=records --data_dir=FOLDER --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe({"dataset": "records"}, base="attribute_csv")
