"""Anybody's images in a folder for each class, with or without train, val and test above.

A starting point, aimed at no table; the settings are those of attribute_csv.

    python -m crl_tf.main --dataset=image_folder --data_dir=FOLDER --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe({"dataset": "image_folder"}, base="attribute_csv")
