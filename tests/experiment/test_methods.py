"""The table of methods: names to parts and settings, and the one spelling of each."""

import re

import pytest

from crl_tf.experiment.config import base_config, checked, from_json, override, with_method
from crl_tf.experiment.methods import METHODS, PARTS, canonical, combined, with_loss
from crl_tf.experiment.settings import SETTINGS

ALONE = [name for name, row in METHODS.items() if row.sets.keys() & PARTS.keys()]
"""Rows that are methods by themselves; the others set settings of a loss."""


@pytest.mark.parametrize("name", ALONE)
def test_a_row_says_what_settings_know_and_is_spelled_in_one_way(name):
    row = METHODS[name]
    assert row.source and row.cost
    assert set(row.settings) <= set(SETTINGS)
    # One part: what sets several is joined by +, or a recipe.
    assert len(row.sets.keys() & PARTS.keys()) == 1 and canonical(name) == name
    config = checked(override(base_config(), {"method": name}))[0]
    assert config.method == name
    for key, value in row.settings.items():
        section, setting = key.split(".")
        assert config[section][setting] == value


def test_methods_are_joined():
    method = combined("class_rel_rho_10+class_balanced_sampling+logit_adjustment")
    assert {part: getattr(method, part) for part in PARTS} == {
        "loss": "class_rel",
        "trainer": "gradient",
        "resampling": "class_balanced_sampling",
        "order": "shuffled",
        "rule": "logit_adjustment",
    }
    assert method.settings == {"crl.rho": 0.1}
    assert canonical("logit_adjustment+over_sampling") == "over_sampling+logit_adjustment"
    assert canonical("logit_adjustment+ce") == "logit_adjustment"
    assert with_loss("class_rel+over_sampling+logit_adjustment", "lmle") == "lmle+over_sampling+logit_adjustment"


def test_settings_are_joined_to_a_loss_that_has_them():
    method = combined("pairs+gated+class_abs+logit_adjusted_base")
    assert (method.loss, method.order, method.settings) == (
        "class_abs", "pairs", {"crl.gate": True, "crl.base": "logit_adjusted"}
    )  # fmt: skip
    name = canonical("pairs+logit_adjustment+gated+over_sampling+class_rel+per_anchor")
    assert name == "class_rel+gated+per_anchor+over_sampling+pairs+logit_adjustment"
    assert with_loss(name, "instance_abs") == name.replace("class_rel", "instance_abs")
    # Another loss has no gate; the order of the images stays.
    assert with_loss(name, "focal") == "focal+over_sampling+pairs+logit_adjustment"
    # A row of the same section keeps what it does not set itself.
    assert with_loss("class_rel+gated", "class_rel_rho_10") == "class_rel_rho_10+gated"
    assert with_loss("class_abs+gated+logit_adjusted_base", "class_rel_logit_adjusted") == "class_rel_logit_adjusted+gated"
    assert with_loss("class_rel+gated", "lmle") == "lmle"
    # The distribution comparison has no gate (docs/spec.md section 4).
    assert with_loss("class_rel+gated+logit_adjusted_base", "class_dis") == "class_dis+logit_adjusted_base"
    for wrong in ("gated", "gated+pairs", "focal+gated", "lmle+per_anchor", "class_dis+gated", "instance_dis+per_anchor"):
        with pytest.raises(
            ValueError, match=f"method {re.escape(repr(wrong))}: .* must be joined to a loss .*: class_rel, class_abs"
        ):
            combined(wrong)
    with pytest.raises(ValueError, match=r"sets crl\.base twice"):
        combined("class_rel_logit_adjusted+logit_adjusted_base")


def test_pairs_need_an_even_batch_and_a_trainer_that_takes_batches():
    with pytest.raises(ValueError, match=r"train\.batch_size must be even for pairs, received 5"):
        checked(override(base_config(), {"method": "class_rel+pairs", "train.batch_size": 5}))
    with pytest.raises(ValueError, match=r"data\.open_shards must be none for pairs, .* received 3"):
        checked(override(base_config(), {"method": "class_rel+pairs", "data.open_shards": 3}))
    with pytest.raises(ValueError, match=r"method 'lmle\+pairs': lmle draws its own samples, which cannot be paired"):
        checked(override(base_config(), {"method": "lmle+pairs"}))


def test_what_cannot_be_joined_is_refused():
    with pytest.raises(ValueError, match=r"'class_rel\+focal' sets loss twice"):
        combined("class_rel+focal")
    with pytest.raises(ValueError, match=r"'lmle\+focal' sets loss, trainer twice"):
        combined("lmle+focal")
    with pytest.raises(ValueError, match=r"method must be one of .*received 'smote'"):
        combined("smote")


@pytest.mark.parametrize(
    "settings, method",
    [
        ({"loss": "class_rel"}, "class_rel"),
        ({"loss": "class_rel", "crl": {"kappa": 7}}, "class_rel"),
        ({"loss": "class_rel", "crl": {"rho": 0.1}}, "class_rel_rho_10"),
        ({"loss": "class_rel", "crl": {"base": "logit_adjusted"}}, "class_rel_logit_adjusted"),
        ({"loss": "class_abs", "crl": {"base": "focal"}}, "class_abs"),
        ({"loss": "ce", "rule": "logit_adjustment"}, "logit_adjustment"),
        ({"loss": "ce", "resampling": "over_sampling", "rule": "logit_adjustment"}, "over_sampling+logit_adjustment"),
        ({"loss": "ldam", "network": {"cosine_scale": 30.0}}, "ldam"),
        ({"loss": "lmle", "rule": "threshold_adjustment"}, "lmle+threshold_adjustment"),
        ({"loss": "ce"}, "ce"),
    ],
)
def test_settings_of_version_0_1_are_read_as_a_method(settings, method):
    config = from_json(settings)
    assert config.method == method
    assert config.crl.kappa == settings.get("crl", {}).get("kappa", 25)


def test_numbers_of_version_0_1_that_stood_for_words():
    old = {"loss": "ce", "network": {"freeze": -1, "cosine_scale": 0.0}}
    network = from_json(old).network
    assert (network.freeze, network.cosine_scale) == ("all", None)
    assert from_json({**old, "network": {"freeze": 3}}).network.freeze == 3
    assert from_json({**old, "network": {"freeze": 0}}).network.freeze == "none"


@pytest.mark.parametrize("settings", [{"loss": "ldam", "network": {"cosine_scale": 10.0}}, {"loss": "foo"}, {"rule": "median"}])
def test_what_version_0_1_could_say_and_this_one_cannot_is_refused(settings):
    with pytest.raises(ValueError, match=r"config of version 0\.1: (loss|rule) = .* is no method of this version"):
        from_json(settings)


def test_another_method_takes_back_what_the_first_had_set():
    ldam = checked(override(base_config(), {"method": "ldam"}))[0]
    assert ldam.network.cosine_scale == 30.0
    assert with_method(ldam, "focal").network.cosine_scale is None
    mine = override(ldam, {"network.cosine_scale": 7.0})
    assert with_method(mine, "focal").network.cosine_scale == 7.0
