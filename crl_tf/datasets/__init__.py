"""Images with labels: datasets by name, and the pipeline that makes batches of them."""

from crl_tf.datasets.load import DATASETS, load_dataset
from crl_tf.datasets.source import SPLITS, Dataset, Records, Split

__all__ = ["DATASETS", "SPLITS", "Dataset", "Records", "Split", "load_dataset"]
