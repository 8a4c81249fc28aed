"""CIFAR-100, class-balanced, with the paper's settings (Table 8, Sec. 4.3): ResNet32, 200 epochs, alpha = 0.5.

Aims at the 69.3 % accuracy of Table 8 (cross-entropy: 68.1 %); not run by us. All but the network is cifar100_paper's. The
paper names neither a schedule nor augmentation, so there is none of either; ResNet32's own authors have both, which in 200
epochs is --config.train.schedule=step --config.train.step_epochs="(100, 150)" --config.data.augment="('flip', 'crop')". Cost:
200 x 192 steps of 256 images, 0.5 s each on two cores by the processor time of a few: five to six hours.

    python -m crl_tf.main --config=cifar100_resnet32_paper --data_dir=CIFAR --loss=class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe({"model": "resnet32"}, base="cifar100_paper")
