"""CIFAR-100-bln(gamma): as many images as cifar100_imb, equally many in each class (Fig. 10).

The balanced control of cifar100_imb, trained the same way; Omega is 0, so alpha is given: the paper's 0.5.

    python -m crl_tf.main --dataset=cifar100_bln --data_dir=CIFAR --gamma=1 --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import load_recipe


def get_config() -> ConfigDict:
    config = load_recipe("cifar100_imb")
    config.dataset = "cifar100_bln"
    config.crl.alpha = 0.5
    config.crl.alpha_warmup_epochs = 2
    return config
