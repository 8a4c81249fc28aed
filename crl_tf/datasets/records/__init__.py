"""Sharded TFRecord files: writing, reading, builders of tensorflow-datasets."""
