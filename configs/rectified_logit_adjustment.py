"""CRL on logit adjustment: what a method cannot say by its name alone, a recipe can. For anybody's table.

The rectification of class_rel beside the logit adjusted loss (Menon et al. 2021, eq. 10) in the place of the cross-entropy, and
post-hoc adjustment besides, whose strength validation may choose to be 0. Aimed at no table; on your labels, find out against
its parts. Cost: as attribute_csv.

    python -m crl_tf.main --config=rectified_logit_adjustment --data_dir=FOLDER_OR_TABLE
    python -m crl_tf.main --dataset=attribute_csv --data_dir=FOLDER_OR_TABLE \\
        --compare=ce,logit_adjusted,class_rel,class_rel_logit_adjusted
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe({"method": "class_rel_logit_adjusted+logit_adjustment"}, base="attribute_csv")
