"""Anybody's images and attributes, from a network that ImageNet has trained: the way to start with a few thousand images.

A starting point, aimed at no table: MobileNetV3Small with a new head; the backbone learns at a tenth of the head's rate. Keras
fetches its weights once. With less than a thousand images, --freeze=all leaves the backbone as it is; --model=list names all
networks, and --pretrained takes a run's model.keras as well. Cost: 0.5 s for a step of 64 images on two cores by the processor
time of a few: 5,000 images take 7 minutes a loss, and reading them.

    python -m crl_tf.main --config=finetune --dataset=attribute_csv --data_dir=FOLDER_OR_TABLE --compare=ce,class_rel
"""

from ml_collections import ConfigDict

from crl_tf.experiment.config import recipe


def get_config() -> ConfigDict:
    return recipe(
        {
            "dataset": "attribute_csv",
            "model": "keras:MobileNetV3Small",
            "network.pretrained": "imagenet",
            "network.backbone_rate": 0.1,
            "data.image_size": (224, 224),
            "data.augment": ("flip",),
            "train.epochs": 10,
            "train.batch_size": 64,
            "train.optimizer": "adamw",
            "train.learning_rate": 0.001,
            "train.schedule": "cosine",
            "train.warmup_epochs": 0.5,
            "train.weight_decay": 0.01,
            "crl.eta": 0.1,
            "crl.alpha_warmup_epochs": 2,
        }
    )
