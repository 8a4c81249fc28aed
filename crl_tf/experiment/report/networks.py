"""The networks that there are, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from crl_tf.models.counting import NetworkFacts

CAPTION = (
    "min side: of the smallest image. layers: with weights, in the backbone; --freeze counts them. FLOPs: of one image's"
    " forward pass, a multiply-add is two. What the seed draws of a network: with pretrained weights, of the weights only the"
    " head's; of the data it decides order and augmentation."
)


def networks_table(facts: Sequence[NetworkFacts]) -> Table:
    """One row per network (`crl_tf.models.counting.describe`): its images and labels, what it costs, what the seed does.

    Classes are those of all labels together; layers are the backbone's with weights, which --freeze counts.
    """
    # Without lines between columns, so that a row fits a terminal of 80 columns.
    table = Table(
        title="networks of width 1, on images and labels as published",
        title_justify="left",
        caption=CAPTION,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("network", no_wrap=True)
    for heading in ("image", "min\nside", "labels/\nclasses", "layers", "parameters", "FLOPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("the seed\ndraws")
    for row in facts:
        table.add_row(
            Text(row.name),
            "x".join(map(str, row.image_size)),
            str(row.smallest_side),
            f"{len(row.num_classes):,}/{sum(row.num_classes):,}",
            str(row.layers),
            f"{row.parameters.total:,}",
            three_digits(row.flops),
            ", ".join(row.seed),
        )
    return table


def three_digits(count: int) -> str:
    """A count to three digits, in thousands, millions or billions.

    >>> [three_digits(count) for count in (812, 16_901_190, 999_600, 8_988_757_235)]
    ['812', '16.9 M', '1.00 M', '8.99 G']
    """
    units = [(1, ""), (1e3, " k"), (1e6, " M"), (1e9, " G")]
    # By what is shown: 999,600 is 1.00 M, not 1000 k.
    factor, unit = next((u for u in units if float(f"{count / u[0]:.3g}") < 1000), units[-1])
    value = count / factor
    return f"{value:.{max(0, 3 - len(f'{value:.0f}')) if unit else 0}f}{unit}"
