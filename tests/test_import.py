"""What `import crl_tf` loads, what it refuses, and what a type checker sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import crl_tf

HEAVY = "absl ml_collections pyarrow yaml sklearn scipy matplotlib rich tensorflow_datasets".split()


def python(code, **environment):
    root = str(Path(crl_tf.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)


def test_import_loads_none_of_the_experiment_tools_packages():
    """TensorFlow and Keras load some of them themselves: those are taken away before crl_tf is imported."""
    code = f"""
import sys
import tensorflow, keras
heavy = {HEAVY!r}
by_others = {{name for name in heavy if name in sys.modules}}
for name in heavy:
    sys.modules[name] = None  # importing it from now on fails
import crl_tf
print(sorted(name for name in heavy if sys.modules.get(name) is not None))
wings = tuple(f"crl_tf.{{wing}}" for wing in ("models", "datasets", "experiment", "serving"))
print(sorted(name for name in sys.modules if name.startswith(wings)))
"""
    ran = python(code)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines() == ["[]", "[]"]


def test_a_fresh_process_loads_nothing_beyond_tensorflow_and_keras():
    code = f"""
import sys
import tensorflow, keras
before = {{m.split(".")[0] for m in sys.modules}}
import crl_tf
after = {{m.split(".")[0] for m in sys.modules}}
print(sorted((after - before) & set({HEAVY!r})))
"""
    ran = python(code)
    assert ran.returncode == 0 and ran.stdout.splitlines() == ["[]"], ran.stderr[-2000:]


def test_another_backend_is_refused_with_one_sentence():
    code = """
import sys, types
import keras
keras.backend.backend = lambda: "jax"
try:
    import crl_tf
except ImportError as error:
    print(error)
"""
    ran = python(code)
    assert ran.stdout.splitlines() == ["crl_tf needs Keras's TensorFlow backend (KERAS_BACKEND=tensorflow), received 'jax'"], (
        ran.stderr[-2000:]
    )


def test_mypy_sees_the_types_of_the_public_names(tmp_path):
    user = tmp_path / "user.py"
    user.write_text(
        """
from crl_tf import CRL, ClassBalancedAccuracy, CRLModel

loss = CRL(3, alpha=0.5)
reveal_type(loss)
reveal_type(loss.alpha)
reveal_type(ClassBalancedAccuracy(3))
reveal_type(CRLModel)
CRL(3, alhpa=0.5)
"""
    )
    root = str(Path(crl_tf.__file__).parents[1])
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--ignore-missing-imports", str(user)]
    environment = {**os.environ, "MYPYPATH": root}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600)
    for expected in (
        'Revealed type is "crl_tf.losses.crl.loss.CRL"',
        'Revealed type is "numpy.ndarray[',
        'Revealed type is "crl_tf.metrics.ClassBalancedAccuracy"',
        "crl_tf.crl_model.CRLModel",
        'Unexpected keyword argument "alhpa" for "CRL"',
    ):
        assert expected in ran.stdout, ran.stdout
    assert (Path(crl_tf.__file__).parent / "py.typed").is_file()


def test_one_version():
    assert crl_tf.__version__.count(".") == 2
    root = Path(crl_tf.__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-m", "crl_tf.main", "--version"], capture_output=True, text=True, cwd=root, timeout=300
    )
    assert ran.stdout.strip() == f"crl_tf {crl_tf.__version__}"
    built = subprocess.run([sys.executable, "setup.py", "--version"], capture_output=True, text=True, cwd=root)
    assert built.stdout.split()[-1] == crl_tf.__version__


@pytest.mark.parametrize("name", crl_tf.__all__)
def test_public_names_exist(name):
    assert hasattr(crl_tf, name)


def test_import_registers_every_class_that_a_saved_model_can_hold():
    """A model.keras of any run loads after `import crl_tf` alone."""
    code = """
import importlib, pkgutil
import keras
import crl_tf
registered = {n for n in keras.saving.get_custom_objects() if n.startswith("crl_tf>")}
for module in pkgutil.walk_packages(crl_tf.__path__, "crl_tf."):
    if not module.name.startswith(("crl_tf.main", "crl_tf.configs")):
        importlib.import_module(module.name)
print(sorted({n for n in keras.saving.get_custom_objects() if n.startswith("crl_tf>")} - registered), len(registered))
"""
    ran = python(code)
    assert ran.returncode == 0, ran.stderr[-2000:]
    missing, _, count = ran.stdout.strip().rpartition(" ")
    assert missing == "[]" and int(count) >= 22, ran.stdout
