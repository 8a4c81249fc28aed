"""The table of losses: rows, and what reaches a loss of a configuration's sections."""

from __future__ import annotations

import pytest
import tensorflow as tf

from crl_tf.losses.crl.loss import CRL
from crl_tf.losses.curriculum import CurriculumLoss
from crl_tf.losses.logit_adjusted import LogitAdjustedLoss
from crl_tf.losses.table import CRL_PARAMETERS, LOSSES, Problem, make_loss

PROBLEM = Problem([2, 3], [[9, 1], [5, 5, 2]], cosine_scale=8.0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_makes_its_loss_with_the_parameters_that_it_names(name):
    row = LOSSES[name]
    assert row.source and row.cost and (row.section is not None) == bool(row.parameters)
    config = make_loss(name, {}, PROBLEM).get_config()
    for key, default in row.parameters.items():
        assert config[key] == (None if (key, default) == ("base", "ce") else default), key
    assert config["num_classes"] == [2, 3]


def test_a_section_overrides_the_defaults():
    assert make_loss("focal", {"focal": {"gamma": 1.0}, "crl": {"rho": 0.1}}, PROBLEM).get_config()["gamma"] == 1.0
    loss = make_loss("class_abs", {"crl": {"kappa": None, "margin": 0.2, "alpha_warmup_epochs": 3}}, PROBLEM)
    config = loss.get_config()
    assert (config["kappa"], config["margin"], config["alpha_warmup_epochs"]) == (None, 0.2, 3)
    with pytest.raises(TypeError, match="gama"):
        make_loss("focal", {"focal": {"gama": 1.0}}, PROBLEM)


def test_a_margin_is_for_the_comparisons_that_have_one():
    for name, margin in (("class_rel", 0.3), ("instance_abs", 0.3), ("class_dis", None)):
        assert make_loss(name, {"crl": {"margin": 0.3}}, PROBLEM).get_config()["margin"] == margin


def test_rho_reaches_every_loss_that_has_a_minority():
    sections = {"crl": {"rho": 0.1}}
    for name in ("class_rel", "instance_dis", "curriculum"):
        assert make_loss(name, sections, PROBLEM).get_config()["rho"] == 0.1
    assert make_loss("curriculum", {}, PROBLEM).rho == CRL_PARAMETERS["rho"] == 0.5
    # 2 of 5 samples are a minority within a half of them, and not within a tenth: no triplet is left, and nothing to pull on.
    labels, logits, features = tf.constant([0, 0, 0, 1, 1]), tf.zeros([5, 2]), tf.constant([[0.0], [1.0], [2.0], [3.0], [4.0]])
    for rho, pulls in ((0.5, True), (0.1, False)):
        loss = make_loss("curriculum", {"crl": {"rho": rho}}, Problem([2], [[3, 2]]))
        with tf.GradientTape() as tape:
            tape.watch(features)
            value = tf.reduce_mean(loss.batch_terms(labels, logits, features).per_sample)
        gradient = tape.gradient(value, features, unconnected_gradients="zero")
        assert bool(tf.reduce_any(gradient != 0)) is pulls


def test_a_curriculum_of_before_it_had_a_rho():
    config = CurriculumLoss([2, 3], PROBLEM.class_counts).get_config()
    assert config.pop("rho") == 0.5
    assert CurriculumLoss.from_config(config).rho == 0.5
    with pytest.raises(ValueError, match=r"rho must lie in \(0, 1\], received 0"):
        CurriculumLoss([2, 3], PROBLEM.class_counts, rho=0)


def test_the_base_of_a_rectification_is_a_row_that_needs_no_features():
    loss = make_loss("class_rel", {"crl": {"base": "logit_adjusted"}, "logit_adjusted": {"tau": 0.5}}, PROBLEM)
    assert isinstance(loss, CRL) and isinstance(loss.base, LogitAdjustedLoss) and loss.base.tau == 0.5
    for base in ("curriculum", "instance_rel", "class_rel", "smote"):
        with pytest.raises(ValueError, match=f"crl.base must be a loss of logits alone, .*received '{base}'"):
            make_loss("class_rel", {"crl": {"base": base}}, PROBLEM)


@pytest.mark.parametrize("scale", [None, 0.0, -1.0])
def test_ldam_wants_cosines(scale):
    with pytest.raises(ValueError, match=rf"network.cosine_scale must be > 0 for ldam, .*received {scale}"):
        make_loss("ldam", {}, PROBLEM._replace(cosine_scale=scale))
    assert make_loss("ldam", {}, PROBLEM).scale == 8.0 and LOSSES["ldam"].settings == {"network.cosine_scale": 30.0}


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"loss must be one of \['ce', 'class_rel', .*received 'smote'"):
        make_loss("smote", {}, PROBLEM)
