"""The wheel, installed outside of the repository, does the three uses: the command, the loss, the SavedModel."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from crl_tf.text import counted

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment that holds the wheel, and of the others only what it depends on; and an empty folder to work in."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    # From a copy: a build leaves folders beside what it builds.
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "clone")], check=True)
    build[-1] = str(folder / "clone")
    ran = subprocess.run(build, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    site = next((folder / "env" / "lib").glob("python*/site-packages"))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True)
    # What it depends on stands in the environment of the tests; a path in a .pth file comes after the environment's own, and
    # the files of that folder which would bring in the repository are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (folder / "empty").mkdir()
    return python, folder / "empty"


def run(installed, *arguments):
    python, folder = installed
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "CRL_TF_REAL_DATA")}
    ran = subprocess.run([str(python), *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_it_is_the_wheel_that_is_imported(installed):
    out = run(installed, "-c", "import crl_tf; print(crl_tf.__file__, crl_tf.__version__)")
    assert str(installed[0].parents[1]) in out and str(ROOT) not in out


def test_the_command_trains_and_predicts_and_a_server_loads_the_savedmodel(installed):
    run(installed, "-m", "crl_tf.main", "--epochs=1", "--width=0.1", "--config.data.train_share=0.05", "--workdir=run")
    out = run(installed, "-m", "crl_tf.main", "--mode=predict", "--workdir=run", f"--input={ROOT / 'docs' / 'images'}")
    images = len(list((ROOT / "docs" / "images").glob("*.png")))
    assert f"predictions.csv: {images} of {counted(images, 'image')} predicted, 0 unreadable" in out
    without = """
import sys
sys.modules["crl_tf"] = None
import tensorflow as tf
served = tf.saved_model.load("run/export")
print(sorted(served.signatures["serving_default"](images=tf.zeros([2, 40, 30, 3]))))
"""
    assert "'digit_index', 'digit_name', 'digit_scores'" in run(installed, "-c", without)


def test_the_loss_trains_a_keras_model(installed):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "CRL(" in block)
    run(installed, "-c", code)
