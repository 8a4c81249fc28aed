"""X-Domain with the paper's settings (Table 2, Sec. 4.2), except for its network: nine attributes, 256 epochs.

The paper's network is MTCT, pre-trained on ImageNet-1K at a learning rate of 0.01; until that is in the table of networks this
takes DeepID2 from scratch, so it aims at no figure of the paper. The size of the images is ours too.

    python -m crl_tf.main --config=xdomain --data_dir=FOLDER_WITH_MANIFEST --loss=class_rel
"""

from ml_collections import ConfigDict

from crl_tf.recipe import base_recipe


def get_config() -> ConfigDict:
    config = base_recipe()
    config.dataset = "xdomain"
    config.model = "deepid2"
    config.data.image_size = (64, 48)
    config.train.epochs = 256
    config.train.batch_size = 128
    config.train.learning_rate = 0.001
    config.train.momentum = 0.9
    config.train.weight_decay = 0.0005
    config.crl.eta = 0.01
    return config
