"""Packaging of crl_tf. tools/constraints.txt pins the versions that are tested together."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Copies configs/ into the built package, where the command looks for recipes when it is installed."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib) / "crl_tf" / "configs", ignore=shutil.ignore_patterns("__pycache__"))


VERSION = re.search(r'^__version__ = "(.+)"$', Path("crl_tf/version.py").read_text(encoding="utf-8"), re.M)[1]
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]
LITERT = ["ai-edge-litert>=1.2"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18", "tf2onnx>=1.16"]
SERVE = ["fastapi>=0.115", "starlette>=0.40", "uvicorn>=0.30"]

setup(
    name="crl_tf",
    version=VERSION,
    description="Class Rectification Loss for imbalanced deep learning, in TensorFlow and Keras 3",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["crl_tf", "crl_tf.*"]),
    package_data={"crl_tf": ["py.typed", "help.txt", "serving/page/*"]},
    # Given explicitly, so that an editable install is a plain path: a folder that holds a clone then imports the package.
    package_dir={"": "."},
    cmdclass={"build_py": BuildWithRecipes},
    install_requires=[
        "absl-py>=2.1",
        "h5py>=3.11",
        "importlib_resources",  # tensorflow-datasets 4.9.10 imports it and does not declare it
        "keras>=3.15,<4",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "pillow>=10",
        "protobuf>=5",
        "pyarrow>=17",
        "PyYAML>=6",
        "rich>=13.7",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "tensorboard>=2.18",
        "tensorflow>=2.21,<3",
        "tensorflow-datasets>=4.9.7",
        "threadpoolctl>=3.5",
    ],
    extras_require={
        "docs": DOCS,
        "litert": LITERT,
        "onnx": ONNX,
        "serve": SERVE,
        "test": [
            *("pytest>=8", "pytest-xdist>=3.6", "ruff>=0.6", "mypy>=1.11", "dill>=0.3.8", "scikit-image>=0.24"),
            *("httpx>=0.27", "playwright>=1.45", "tensorflow-serving-api>=2.18"),
            *DOCS,
            *LITERT,
            *ONNX,
            *SERVE,
        ],
        "bench": ["torch", "pytorch-metric-learning"],  # tools/bench_loss.py compares with them
    },
)
