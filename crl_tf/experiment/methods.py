"""The table of methods: what each does against imbalance, who proposed it, what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from crl_tf.losses.table import LOSSES

SAME_COST = "as ce"
CRL_SOURCE = "Dong et al. 2018"
PARTS = {"loss": "ce", "trainer": "gradient", "resampling": "none", "order": "shuffled", "rule": "argmax"}
"""What a method consists of, and what each part is where a row does not say it."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Method(NamedTuple):
    """A row of `METHODS`, which sets one of the parts (and settings that belong to it), or several rows joined.

    A row without a part sets settings of the loss that it is joined to.

    source: paper and equation. cost: compared with `ce`, in words.
    loss: a row of `crl_tf.losses.table.LOSSES`. trainer: a row of `crl_tf.experiment.trainers.TRAINERS`.
    resampling: a row of `crl_tf.datasets.resampling.RESAMPLING`. rule: a row of `crl_tf.decision.RULES`.
    order: "shuffled", or "pairs" (`crl_tf.datasets.ordering.paired`). None, of any of these: as `PARTS` says.
    settings: what else it sets in a configuration, by dotted key.
    """

    source: str
    cost: str
    loss: str | None = None
    trainer: str | None = None
    resampling: str | None = None
    order: str | None = None
    rule: str | None = None
    settings: Mapping[str, Any] = NOTHING

    @property
    def sets(self) -> dict[str, Any]:
        """Everything that the row sets: its parts by name, and its settings by dotted key."""
        return {part: getattr(self, part) for part in PARTS if getattr(self, part) is not None} | dict(self.settings)


def _of_loss(name: str) -> Method:
    row = LOSSES[name]
    return Method(row.source, row.cost, loss=name, settings=row.settings)


def _variant(source: str, cost: str, **settings: Any) -> Method:
    return Method(source, cost, loss="class_rel", settings={f"crl.{name}": value for name, value in settings.items()})


_CLASS_COST = LOSSES["class_rel"].cost

METHODS: dict[str, Method] = {
    **{name: _of_loss(name) for name in LOSSES},
    "class_rel_unmined": _variant(f"{CRL_SOURCE}, Table 11, JL", "all triplets", kappa=None),
    "class_rel_all": _variant(f"{CRL_SOURCE}, Table 12", "a step ~2 % more", scope="all"),
    "class_rel_rho_10": _variant(f"{CRL_SOURCE}, Table 13", _CLASS_COST, rho=0.1),
    "class_rel_rho_30": _variant(f"{CRL_SOURCE}, Table 13", _CLASS_COST, rho=0.3),
    "class_rel_logit_adjusted": _variant(
        f"{CRL_SOURCE}, eq. 8, on Menon et al. 2021, eq. 10", _CLASS_COST, base="logit_adjusted"
    ),
    "logit_adjusted_base": Method(
        f"{CRL_SOURCE}, eq. 8, on Menon et al. 2021, eq. 10", SAME_COST, settings={"crl.base": "logit_adjusted"}
    ),
    "gated": Method("alpha times max(0, 1 - L_crl / m), docs/spec.md", SAME_COST, settings={"crl.gate": True}),
    "per_anchor": Method(f"{CRL_SOURCE}, eq. 9 read per anchor", SAME_COST, settings={"crl.normalization": "anchors"}),
    "pairs": Method("images of a class in pairs, docs/spec.md", SAME_COST, order="pairs"),
    "over_sampling": Method(f"{CRL_SOURCE}, Sec. 4.1", "longer epochs", resampling="over_sampling"),
    "down_sampling": Method(f"{CRL_SOURCE}, Sec. 4.1", "shorter epochs", resampling="down_sampling"),
    "harsh_down_sampling": Method(f"{CRL_SOURCE}, Sec. 4.1", "far shorter epochs", resampling="harsh_down_sampling"),
    "class_balanced_sampling": Method("Kang et al. 2020, eq. 1, q = 0", SAME_COST, resampling="class_balanced_sampling"),
    "threshold_adjustment": Method(f"p exp(-r)^T, {CRL_SOURCE}, Sec. 4.1", SAME_COST, rule="threshold_adjustment"),
    "logit_adjustment": Method("Menon et al. 2021, post hoc", SAME_COST, rule="logit_adjustment"),
    "lmle": Method("Huang et al. 2016, quintuplets", "a training per label, clustering, search", trainer="lmle"),
    "triplet_knn": Method("Schroff et al. 2015", "kNN when deciding", trainer="triplet_knn"),
    "hog_knn": Method("Dalal & Triggs 2005, kNN", "no training, kNN when deciding", trainer="hog_knn"),
}


def combined(name: str) -> Method:
    """The method of a name: a row of `METHODS`, or several joined by +, which must set different things.

    Every part of the result is set.

    >>> method = combined("class_rel+over_sampling")
    >>> method.loss, method.trainer, method.resampling, method.rule
    ('class_rel', 'gradient', 'over_sampling', 'argmax')
    """
    sets: dict[str, Any] = {}
    rows = name.split("+")
    for row_name in rows:
        if row_name not in METHODS:
            raise ValueError(f"method must be one of {list(METHODS)}, or several joined by +, received {name!r}")
        row_sets = METHODS[row_name].sets
        twice = sets.keys() & row_sets.keys()
        if "loss" in {*sets, *row_sets} and "trainer" in {*sets, *row_sets}:
            twice |= {"loss", "trainer"}  # a trainer other than gradient has a loss of its own
        if twice:
            raise ValueError(f"method {name!r} sets {', '.join(sorted(twice))} twice: each part may be set once")
        sets |= row_sets
    _check_settings(name, rows, sets.get("loss"))
    parts = {part: sets.pop(part, default) for part, default in PARTS.items()}
    source, cost = ("; ".join(getattr(METHODS[row], field) for row in rows) for field in ("source", "cost"))
    return Method(source, cost, **parts, settings=sets)


def stands_alone(row: str) -> bool:
    """Whether a row of `METHODS` is a method by itself: not one that only sets settings of the loss that it is joined to.

    >>> stands_alone("pairs"), stands_alone("gated")
    (True, False)
    """
    return bool(METHODS[row].sets.keys() & PARTS.keys())


def _takes(loss: str, row: str) -> bool:
    """Whether all settings of a row are parameters that have a meaning for this loss."""
    of_loss = LOSSES[loss]
    keys = [key.partition(".") for key in METHODS[row].settings]
    return all(section == of_loss.section and key not in of_loss.without for section, _, key in keys)


def _check_settings(name: str, rows: Sequence[str], loss: str | None) -> None:
    """Refuses a row that sets settings of a loss which the method does not have, or for which they have no meaning."""
    for row in rows:
        if not stands_alone(row) and not (loss and _takes(loss, row)):
            fitting = [other for other in LOSSES if _takes(other, row)]
            raise ValueError(f"method {name!r}: {row} must be joined to a loss with its settings: {', '.join(fitting)}")


def _place(row: str) -> tuple[float, str]:
    """Where a row stands in a name: by the first part that it sets; a row of settings alone just behind the loss."""
    parts = list(PARTS)
    return min((parts.index(part) for part in parts if part in METHODS[row].sets), default=0.5), row


def canonical(name: str) -> str:
    """The one spelling of a method: loss or trainer first, then its settings, resampling, order, decision rule.

    ce stands only where it is alone.

    >>> canonical("logit_adjustment+ce"), canonical("logit_adjustment+over_sampling+focal")
    ('logit_adjustment', 'focal+over_sampling+logit_adjustment')
    """
    combined(name)  # refuses what is no method
    rows = sorted(name.split("+"), key=_place)
    return "+".join(row for row in rows if row != "ce" or len(rows) == 1)


def with_loss(name: str, loss: str) -> str:
    """The method `name` with another loss (or trainer); its resampling and its decision rule stay.

    >>> with_loss("ldam+over_sampling", "focal")
    'focal+over_sampling'
    """
    new = combined(loss)
    joined = [row for row in name.split("+") if not METHODS[row].sets.keys() & {"loss", "trainer"}]
    # A row of settings alone stays beside a loss for which they have a meaning and that does not set the same.
    others = [
        row
        for row in joined
        if stands_alone(row) or (_takes(new.loss, row) and not METHODS[row].settings.keys() & new.settings.keys())
    ]
    return canonical("+".join([loss, *others]))
