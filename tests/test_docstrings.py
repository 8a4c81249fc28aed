"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import crl_tf

MODULES = sorted(m.name for m in pkgutil.walk_packages(crl_tf.__path__, "crl_tf.") if not m.name.startswith("crl_tf.configs"))


@pytest.mark.parametrize("name", [m for m in MODULES if m != "crl_tf.main"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_what_is_public_has_an_example():
    without = [name for name in crl_tf.__all__ if name != "__version__" and ">>>" not in (getattr(crl_tf, name).__doc__ or "")]
    assert not without
