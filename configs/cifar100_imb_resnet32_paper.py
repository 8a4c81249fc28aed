"""CIFAR-100-imb(gamma) with the paper's training settings (Table 9, Sec. 4.3): ResNet32, gamma = 1, 200 epochs, eta = 0.5.

Aims at the 45.2 % class-balanced accuracy of Table 9 (cross-entropy: 42.1 %); not run by us. All but the network and eta is
cifar100_imb_paper's. The paper names neither a schedule nor augmentation, so there is none of either (cifar100_resnet32_paper
says how to have them). Cost: 200 x 32 steps of 256 images, 0.5 s each on two cores by the processor time of a few: an hour.

    python -m crl_tf.main --config=cifar100_imb_resnet32_paper --data_dir=CIFAR --gamma=1 --loss=class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe({"model": "resnet32", "crl.eta": 0.5}, base="cifar100_imb_paper")
