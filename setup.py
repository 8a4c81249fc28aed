"""Packaging of crl_tf; versions known to work together are pinned in constraints.txt."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """The recipes live beside the package for whoever reads the repository, and travel inside it for whoever installs it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "crl_tf" / "configs", ignore=shutil.ignore_patterns("__pycache__"))


setup(
    name="crl_tf",
    version="0.1.0",
    description="Class Rectification Loss for imbalanced deep learning, in TensorFlow and Keras 3",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["crl_tf", "crl_tf.*"]),
    # Said outright, so that an editable install is a plain path: a folder that happens to hold a clone then imports the package.
    package_dir={"": "."},
    cmdclass={"build_py": BuildWithRecipes},
    install_requires=[
        "tensorflow>=2.21,<3",
        "tensorflow-datasets>=4.9.7",
        "importlib_resources",  # tensorflow-datasets 4.9.10 imports it and does not say so
        "keras>=3.15,<4",
        "numpy>=2.0",
        "absl-py>=2.1",
        "tensorboard>=2.18",
        "ml_collections>=1.0",
        "pyarrow>=17",
        "PyYAML>=6",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "matplotlib>=3.9",
        "rich>=13.7",
    ],
    extras_require={
        "test": ["pytest>=8", "pytest-xdist>=3.6", "ruff>=0.6", "dill>=0.3.8", "pillow>=10", "scikit-image>=0.24"],
        "hog": ["scikit-image>=0.24"],  # what --method=hog_knn describes images with
        "bench": ["torch", "pytorch-metric-learning"],  # what tools/bench_loss.py compares with
    },
)
