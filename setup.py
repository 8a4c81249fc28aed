"""Packaging of crl_tf; versions known to work together are pinned in constraints.txt."""

from setuptools import setup

setup(
    name="crl_tf",
    version="0.1.0",
    description="Class Rectification Loss for imbalanced deep learning, in TensorFlow and Keras 3",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        "crl_tf",
        "crl_tf.datasets",
        "crl_tf.losses",
        "crl_tf.models",
        "crl_tf.models.backbones",
        "crl_tf.methods",
        "crl_tf.report",
        "crl_tf.configs",
    ],
    # The recipes live beside the package for whoever reads the repository, and travel inside it for whoever installs it.
    package_dir={"crl_tf.configs": "configs"},
    install_requires=[
        "tensorflow>=2.18,<3",
        "tensorflow-datasets>=4.9.7",
        "importlib_resources",  # tensorflow-datasets 4.9.10 imports it and does not say so
        "keras>=3.8,<4",
        "numpy>=1.26",
        "absl-py>=2.1",
        "ml_collections>=1.0",
        "scikit-learn>=1.5",
        "matplotlib>=3.9",
        "rich>=13.7",
    ],
    extras_require={"test": ["pytest>=8", "ruff>=0.6"]},
)
