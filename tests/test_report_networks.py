"""The table of networks says what was counted, within the width of a terminal."""

import io

import pytest
from rich.console import Console

from crl_tf import report
from crl_tf.models.counting import NetworkFacts, Parameters
from crl_tf.report.networks import three_digits

FACTS = [
    NetworkFacts("small", (55, 47), (40, 64), (2,) * 40, Parameters(812_280, 812_280, 417_360), 16_901_190, ("weights",)),
    NetworkFacts(
        "keras:[Large]",
        (224, 224),
        (2560,),
        (2,) * 1000,
        Parameters(134_989_810, 134_000_000, 13_498_981),
        30_713_000_000,
        ("weights", "dropout"),
    ),
]


def printed(facts, width):
    out = io.StringIO()
    Console(file=out, width=width).print(report.networks_table(facts))
    return out.getvalue()


def test_a_row_says_what_was_counted():
    lines = [line.split() for line in printed(FACTS, 120).splitlines()]
    assert ["small", "55x47", "40/80", "812,280", "51.4", "16.9", "M", "weights"] in lines
    assert [
        "keras:[Large]", "224x224", "1,000/2,000", "134,989,810", "10.0", "30.7", "G", "weights,", "dropout"
    ] in lines  # fmt: skip


def test_it_fits_a_terminal():
    assert "…" not in printed(FACTS, 80) and "134,989,810" in printed(FACTS, 80)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (9_996, "10.0 k"), (999_499, "999 k"), (999_500, "1.00 M"), (2.5e12, "2500 G")],
)
def test_three_digits(count, shown):
    assert three_digits(count) == shown
