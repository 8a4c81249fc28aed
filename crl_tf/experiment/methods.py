"""The table of methods: what each sets in a recipe, who proposed it, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from crl_tf.experiment.config import flattened
from crl_tf.losses.table import RECTIFICATIONS


class Method(NamedTuple):
    """A row. settings: what it sets in a recipe, by dotted key. source: paper and equation. cost: against `ce`, in words."""

    settings: Mapping[str, Any]
    source: str
    cost: str


PLAIN = {"loss": "ce", "resampling": "none", "rule": "argmax"}
"""What a method is where its row says nothing."""

SAME = "as ce"
CRL_SOURCE = "Dong et al. 2018"
CLASS_COST, INSTANCE_COST = "a step ~1 % more", "a step ~12 % more"

METHODS: dict[str, Method] = {
    "ce": Method({"loss": "ce"}, "cross-entropy, eq. 2", "1"),
    "class_rel": Method({"loss": "class_rel"}, f"{CRL_SOURCE}, eqs. 8, 9, 10", CLASS_COST),
    "class_abs": Method({"loss": "class_abs"}, f"{CRL_SOURCE}, eqs. 8, 10, 13", CLASS_COST),
    "class_dis": Method({"loss": "class_dis"}, f"{CRL_SOURCE}, eqs. 8, 10, 14-16", "a step ~2 % more"),
    "instance_rel": Method({"loss": "instance_rel"}, f"{CRL_SOURCE}, eqs. 8, 9, 11", INSTANCE_COST),
    "instance_abs": Method({"loss": "instance_abs"}, f"{CRL_SOURCE}, eqs. 8, 11, 13", INSTANCE_COST),
    "instance_dis": Method({"loss": "instance_dis"}, f"{CRL_SOURCE}, eqs. 8, 11, 14-16", "a step ~14 % more"),
    "class_rel_unmined": Method({"loss": "class_rel", "crl.kappa": None}, f"{CRL_SOURCE}, Table 11, JL", "all triplets"),
    "class_rel_all": Method({"loss": "class_rel", "crl.scope": "all"}, f"{CRL_SOURCE}, Table 12", "a step ~2 % more"),
    "class_rel_rho_10": Method({"loss": "class_rel", "crl.rho": 0.1}, f"{CRL_SOURCE}, Table 13", CLASS_COST),
    "class_rel_rho_30": Method({"loss": "class_rel", "crl.rho": 0.3}, f"{CRL_SOURCE}, Table 13", CLASS_COST),
    "class_rel_logit_adjusted": Method(
        {"loss": "class_rel", "crl.base": "logit_adjusted"}, f"{CRL_SOURCE}, eq. 8, on Menon et al. 2021, eq. 10", CLASS_COST
    ),
    "over_sampling": Method({"resampling": "over_sampling"}, f"{CRL_SOURCE}, Sec. 4.1", "longer epochs"),
    "down_sampling": Method({"resampling": "down_sampling"}, f"{CRL_SOURCE}, Sec. 4.1", "shorter epochs"),
    "cost_sensitive": Method({"loss": "cost_sensitive"}, f"w = exp(-r), {CRL_SOURCE}, Sec. 4.1", SAME),
    "threshold_adjustment": Method({"rule": "threshold_adjustment"}, f"p exp(-r)^T, {CRL_SOURCE}, Sec. 4.1", SAME),
    "lmle": Method({"loss": "lmle"}, "Huang et al. 2016, quintuplets", "a training per label, clustering, search"),
    "triplet_knn": Method({"loss": "triplet_knn"}, "Schroff et al. 2015", "kNN when deciding"),
    "hog_knn": Method({"loss": "hog_knn"}, "Dalal & Triggs 2005, kNN", "no training, kNN when deciding"),
    "focal": Method({"loss": "focal"}, "Lin et al. 2017, eq. 5", SAME),
    "class_balanced": Method({"loss": "class_balanced"}, "Cui et al. 2019, eq. 2 (effective number)", SAME),
    "ldam": Method({"loss": "ldam", "network.cosine_scale": 30.0}, "Cao et al. 2019, eqs. 12, 13, deferred re-weighting", SAME),
    "balanced_softmax": Method({"loss": "balanced_softmax"}, "Ren et al. 2020, eq. 4", f"{SAME}; is logit_adjusted at tau = 1"),
    "logit_adjusted": Method({"loss": "logit_adjusted"}, "Menon et al. 2021, eq. 10", SAME),
    "logit_adjustment": Method({"rule": "logit_adjustment"}, "Menon et al. 2021, post hoc", SAME),
    "asymmetric": Method({"loss": "asymmetric"}, "Ridnik et al. 2021", SAME),
    "class_balanced_sampling": Method({"resampling": "class_balanced_sampling"}, "Kang et al. 2020, eq. 1, q = 0", SAME),
    "curriculum": Method({"loss": "curriculum"}, "Wang et al. 2019, DCL", INSTANCE_COST),
}


def check_method(name: str) -> None:
    settings_of(name)


def settings_of(name: str) -> dict[str, Any]:
    """What a method sets in a recipe, by dotted key; several joined by + are a combination.

    >>> settings_of("class_rel+over_sampling")
    {'loss': 'class_rel', 'resampling': 'over_sampling', 'rule': 'argmax'}
    """
    settings: dict[str, Any] = {}
    for part in name.split("+"):
        if part not in METHODS:
            raise ValueError(f"method must be one of {list(METHODS)}, or several joined by +, received {name!r}")
        twice = settings.keys() & METHODS[part].settings.keys()
        if twice:
            raise ValueError(f"method {name!r} gives {', '.join(sorted(twice))} twice: join what sets different things")
        settings |= METHODS[part].settings
    return {**PLAIN, **settings}


def method_name(config: ConfigDict) -> str:
    """What a recipe's loss, resampling and rule are called in tables: a row of `METHODS`, or several joined by +.

    What a recipe has besides and no row says is added: class_abs_on_focal, ce_cosine.
    """
    values = flattened(config.to_dict())
    parts = []
    for key in PLAIN:
        rows = [(name, row.settings) for name, row in METHODS.items() if key in row.settings]
        fits = [(len(s), name) for name, s in rows if all(values[k] == v for k, v in s.items())]
        if values[key] != PLAIN[key] or key == "loss":
            # The row that says most: class_rel with rho = 0.1 is class_rel_rho_10. One that no row has is called by its value.
            name = max(fits, key=lambda fit: fit[0])[1] if fits else str(values[key])
            parts.append(name + (_besides(values, METHODS[name].settings) if key == "loss" and fits else ""))
    return "+".join(parts[1:] if parts[0] == "ce" and len(parts) > 1 else parts)


def _besides(values: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    base = values["crl.base"] if values["loss"] in RECTIFICATIONS and "crl.base" not in said else "ce"
    cosine = values["network.cosine_scale"] and "network.cosine_scale" not in said
    return ("" if base == "ce" else f"_on_{base}") + ("_cosine" if cosine else "")
