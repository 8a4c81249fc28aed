"""A finished run on the shop, for tests of what is done with one."""

from crl_tf.experiment.config import from_json
from crl_tf.experiment.run import run


def run_on(shop, workdir, **options):
    """Trains cross-entropy with logit adjustment for one epoch: seconds. Returns the result."""
    settings = {
        "dataset": "attribute_csv",
        "model": "cifarnet",
        "method": "ce+logit_adjustment",
        "data": {"dir": str(shop), "image_size": [16, 16]},
        "train": {"epochs": 1, "batch_size": 16, "learning_rate": 0.001},
    }
    return run(from_json(settings), workdir, **options)
