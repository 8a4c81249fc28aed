"""What all machines of a training must have in common: what differs is named on each of them. The exchange is a stand-in here;
tests/test_two_machines.py has the real one."""

import numpy as np
import pytest
import tensorflow as tf

from crl_tf.experiment import agreement
from crl_tf.experiment.agreement import OF_A_MACHINE, agree, agree_on_settings
from crl_tf.experiment.config import base_config, flattened
from crl_tf.version import __version__


class Several:
    """A strategy of several machines, of which this is one."""

    cluster_resolver = object()

    def run(self, exchange):
        return exchange()

    def experimental_local_results(self, value):
        return (value,)


def said(own, *others):
    """What a machine says that has `own` while the others have `others`; the first of them comes first."""
    sent = []

    def collect(value):
        sent.append(value.numpy())
        return value

    def exchange(value):
        return tf.constant(np.concatenate([*sent, value.numpy()]))

    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "of_all", collect)
        for other in others:
            agree(Several(), other)
        patch.setattr(agreement, "of_all", exchange)
        try:
            agree(Several(), own)
        except ValueError as error:
            return str(error)
        finally:
            tf.config.run_functions_eagerly(False)


def test_what_differs_is_named_with_the_own_value():
    same = {"seed": 1, "train.learning_rate": 0.1, "model": "deepid2"}
    other = {**same, "train.learning_rate": 0.2}
    assert said(same, same, same) is None
    ends = " must be the same on all machines of a training, and another one has something else; start all of them again"
    assert said(other, same).startswith(f"train.learning_rate=0.2{ends}")
    # Between two machines that agree, a third one: all three are told.
    assert said(same, same, other).startswith(f"train.learning_rate=0.1{ends}")
    assert said(other, same, same).startswith(f"train.learning_rate=0.2{ends}")
    assert said({**other, "seed": 2}, same).startswith(f"seed=2, train.learning_rate=0.2{ends}")


def test_one_machine_agrees_with_itself():
    agree(tf.distribute.get_strategy(), {"seed": 1})


def test_paths_may_differ_and_a_run_that_goes_on_is_the_same_one(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(agreement, "agree", lambda strategy, own: asked.append(own))
    config = base_config().to_dict()
    history = tmp_path / "history.csv"
    agree_on_settings(Several(), config, history)
    history.write_text("epoch\n0\n")
    agree_on_settings(Several(), config, history)
    version, new, _, going_on = asked
    assert version == {"version of crl_tf": __version__}
    assert set(flattened(config)) - set(new) == set(OF_A_MACHINE) and set(OF_A_MACHINE) < set(flattened(config))
    assert [name for name in new if new[name] != going_on[name]] == ["digest of history.csv in workdir"]
