"""Cells of tables: how numbers are shown and what is best; and one grid of cells as rich table, as plain text or as Markdown."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from crl_tf.experiment.report.runs import ABSENT, differing_fields


class Cell(NamedTuple):
    """What stands in one place of a grid; the mark follows the text and is never bold."""

    text: str
    bold: bool = False
    mark: str = ""


class Grid(NamedTuple):
    """A table before it has a form: headings (lines parted by newlines), rows of cells, the first `names` columns text."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    names: int = 1


def rich_table(grid: Grid) -> Table:
    """For the terminal. Where a column has marks, those without one are as wide, so that numbers stand below one another."""
    marks = [max((len(cell.mark) for cell in column), default=0) for column in zip(*grid.rows, strict=True)]
    table = Table(
        title=Text(grid.title) if grid.title else None,
        title_justify="left",
        caption=Text(grid.caption) if grid.caption else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for index, heading in enumerate(grid.headings):
        if index < grid.names:
            table.add_column(Text(heading), overflow="fold")
        else:
            # In a narrow terminal a cell breaks between words, and it is names that must give way.
            words = [
                word for text in (heading, *(row[index].text + row[index].mark for row in grid.rows)) for word in text.split()
            ]
            table.add_column(Text(heading), justify="right", min_width=max(map(len, words)))
    for row in grid.rows:
        table.add_row(*(_rich_cell(cell, width) for cell, width in zip(row, marks, strict=True)))
    return table


def _rich_cell(cell: Cell, mark_width: int) -> Text:
    # The cell's own style would also hold for what is appended.
    text = Text().append(cell.text, style="bold") if cell.bold else Text(cell.text)
    return text.append(cell.mark.ljust(mark_width))


def plain_text(grid: Grid) -> str:
    """As wide as it needs to be. Plain text has no bold: what is best stands in brackets."""
    rows = [[Cell(f"[{cell.text}]" if cell.bold else cell.text, mark=cell.mark) for cell in row] for row in grid.rows]
    table = rich_table(Grid("", grid.headings, rows, names=grid.names))
    console = Console(file=io.StringIO(), width=10**6, color_system=None, force_terminal=False, legacy_windows=False)
    width = Measurement.get(console, console.options, table).maximum
    console.print(table, width=width)
    caption = textwrap.wrap(grid.caption.replace("Bold:", "[ ]:"), max(80, width))
    lines = [*grid.title.split("\n"), *console.file.getvalue().rstrip().splitlines(), *([""] if caption else []), *caption]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def markdown_table(grid: Grid) -> str:
    """For GitHub's Markdown, without title and caption; bold in double asterisks."""
    lines = [[escaped(heading) for heading in grid.headings]]
    lines.append(["---" if index < grid.names else "---:" for index in range(len(grid.headings))])
    for row in grid.rows:
        lines.append([(f"**{escaped(c.text)}**" if c.bold else escaped(c.text)) + escaped(c.mark) for c in row])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escaped(text: str) -> str:
    r"""Text that Markdown shows as it is, in one line; an underscore within a word is left alone, as it is no markup there.

    >>> print(escaped("class_rel *a|b*"))
    class_rel \*a\|b\*
    """
    one_line = " ".join(str(text).split())
    return re.sub(r"[\\`*\[\]<>|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", one_line)


def setting_title(results: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Text:
    """The fields all runs agree on; a Text, because a name may hold brackets that rich would read as markup."""
    shared = [field for field in fields if field not in differing_fields(results, fields)]
    return Text(" · ".join(field_text(field, results[0][field]) for field in shared))


def field_text(field: str, value: Any) -> str:
    if field == "epochs":
        return "1 epoch" if value == 1 else f"{value} epochs"
    return f"seed {value}" if field == "seed" else str(value)


def measured(share: float | None) -> bool:
    return share is not None and math.isfinite(share)


def percent(share: float | None) -> str:
    return f"{100 * share:.1f}" if measured(share) else ABSENT


def percent_digits(shares: Sequence[float | None]) -> list[float | None]:
    """The numbers as shown, so that only what a reader sees decides which one is best."""
    return [float(percent(share)) if measured(share) else None for share in shares]


def points(share: float | None, baseline: float | None) -> str:
    if not (measured(share) and measured(baseline)):
        return ABSENT
    shown = f"{100 * (share - baseline):+.1f}"
    return "0.0" if float(shown) == 0 else shown


def seconds_text(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def best_of(values: Sequence[float | None], choose: Callable[[list[float]], float]) -> set[int]:
    """Where the best value stands; nowhere if there are not at least two to choose from."""
    present = [value for value in values if value is not None]
    return {i for i, value in enumerate(values) if value == choose(present)} if len(present) > 1 else set()


def marked(cells: Sequence[object], bold: Set[int] = frozenset()) -> list[Text]:
    return [Text(str(cell), style="bold" if index in bold else "") for index, cell in enumerate(cells)]
