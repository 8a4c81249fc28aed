import pytest
import served_model as case

from crl_tf.serving.served import load_served


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tiny export."""
    path = tmp_path_factory.mktemp("served") / "export"
    case.export(path)
    return path


@pytest.fixture(scope="module")
def served(folder):
    return load_served(folder)
