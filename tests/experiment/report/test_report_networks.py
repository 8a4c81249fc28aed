"""The table of networks says what was counted, within the width of a terminal."""

import io

from rich.console import Console

from crl_tf.experiment import report
from crl_tf.models.describe import NetworkFacts, Parameters

FACTS = [
    NetworkFacts("small", (55, 47), 32, 5, (40, 64), (2,) * 40, Parameters(812_280, 812_280, 417_360), ("weights",)),
    NetworkFacts(
        "keras:InceptionResNet[V2]",
        (224, 224),
        75,
        489,
        (2560,),
        (2,) * 1000,
        Parameters(134_989_810, 134_000_000, 13_498_981),
        ("weights", "dropout"),
    ),
]


def printed(facts, width):
    out = io.StringIO()
    Console(file=out, width=width).print(report.networks_table(facts))
    return out.getvalue()


def test_a_row_says_what_was_counted():
    lines = [line.split() for line in printed(FACTS, 120).splitlines()]
    assert ["small", "55x47", "32", "40/80", "5", "812,280", "weights"] in lines
    assert [
        "keras:InceptionResNet[V2]", "224x224", "75", "1,000/2,000", "489", "134,989,810", "weights,", "dropout"
    ] in lines  # fmt: skip


def test_it_fits_a_terminal():
    # Names whole, so that they can be copied; the longest of Keras's has 23 letters, and the labels of ImageNet are 1/1,000.
    longest = FACTS[1]._replace(name="keras:InceptionResNetV2", num_classes=(1000,))
    shown = printed([FACTS[0], longest], 80)
    assert "…" not in shown and "134,989,810" in shown and "keras:InceptionResNetV2" in shown
