"""CIFAR-100-imb(gamma) with the paper's training settings (Table 9, Sec. 4.3): DenseNet, gamma = 1, 200 epochs, eta = 0.5.

Aims at the 49.5 % class-balanced accuracy of Table 9 (cross-entropy: 46.3 %); not run by us. All but the network and eta is
cifar100_imb_paper's. The paper names neither a schedule nor augmentation, so there is none of either (cifar100_densenet_paper
says how to have them). Cost: 200 x 32 steps of 256 images, 3 s each on two cores by the processor time of a few: five to six
hours.

    python -m crl_tf.main --config=cifar100_imb_densenet_paper --data_dir=CIFAR --gamma=1 --loss=class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe({"model": "densenet", "crl.eta": 0.5}, base="cifar100_imb_paper")
