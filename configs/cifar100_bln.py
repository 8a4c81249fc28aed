"""CIFAR-100-bln(gamma): as many images as cifar100_imb, equally many in each class (Fig. 10).

The balanced control of cifar100_imb, trained the same way; Omega is 0, so alpha is given: the paper's 0.5.

    python -m crl_tf.main --dataset=cifar100_bln --data_dir=CIFAR --gamma=1 --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe(
        {
            "dataset": "cifar100_bln",
            "crl.alpha": 0.5,
            "crl.alpha_warmup_epochs": 2,
        },
        base="cifar100_imb",
    )
