"""A grid of cells, how numbers become cells, and the two forms of a grid: a table for the terminal and Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from crl_tf.imbalance import imbalance_ratio
from crl_tf.text import counted

ABSENT = "–"
"""Shown where there is no number: for a label that a run lacks, or a share that was not measured."""


LONGEST_LINE = 24
"""Characters of a name that stay in one line while numbers can give way."""

SHORTEST_LINE = 8
"""Characters of a name in a line, where a terminal has no room for more."""


class Cell(NamedTuple):
    """The text of one cell; the mark follows the text and is never bold."""

    text: str
    bold: bool = False
    mark: str = ""


class Grid(NamedTuple):
    """A table without a form: headings (lines parted by newlines) and rows of cells; the first `names` columns are text.

    copied: whether the first column holds names that a user copies, so that a narrow terminal must not break them.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    names: int = 1
    copied: bool = False


class _FittingTable(Table):
    """A table that narrows its columns to the terminal in an order of its own: Rich would break names first, in their middle.

    bounds: by stage, the least width of every column; a stage is begun where the one before does not suffice.
    """

    bounds: Sequence[Sequence[int]] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for column, width in zip(self.columns, fitted(self.bounds, options.max_width - 2 * len(self.columns)), strict=True):
            column.width = width
        return super().__rich_console__(console, options)


def fitted(bounds: Sequence[Sequence[int]], room: int) -> list[int]:
    """The widths of columns in so much room: those of the first stage, the widest narrowed first, stage by stage.

    >>> fitted([[20, 10, 9], [20, 6, 5], [8, 6, 5]], 34)
    [20, 7, 7]
    """
    widths, *stages = [list(stage) for stage in bounds]
    for stage in stages:
        while sum(widths) > room and any(width > least for width, least in zip(widths, stage, strict=True)):
            place = max((p for p in range(len(widths)) if widths[p] > stage[p]), key=lambda p: widths[p])
            widths[place] -= 1
    return widths


def rich_table(grid: Grid) -> Table:
    """For the terminal. Of a column with marks, cells without one are as wide, so that digits align.

    In a narrow terminal headings break first, then names where they may (at +), then numbers before ±, and names anywhere last.
    """
    table = _FittingTable(
        title=Text(grid.title) if grid.title else None,
        title_justify="left",
        caption=Text(grid.caption) if grid.caption else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    marks = [max((len(row[index].mark) for row in grid.rows), default=0) for index in range(len(grid.headings))]
    copied = [grid.copied and index == 0 for index in range(len(grid.headings))]
    shown = [
        [
            cell._replace(text=broken_at_plus(cell.text)) if index < grid.names and not copied[index] else cell
            for index, cell in enumerate(row)
        ]
        for row in grid.rows
    ]
    stages = []
    for index, heading in enumerate(grid.headings):
        is_name = index < grid.names
        texts = [row[index].text + (" " * marks[index] if row[index].text else "") for row in shown]
        stages.append(_widths(heading, texts, is_name=is_name, copied=copied[index]))
        # Numbers are never broken in their digits.
        least = None if is_name else stages[-1][-1]
        justify = "left" if is_name else "right"
        table.add_column(Text(heading), overflow="fold", no_wrap=copied[index], justify=justify, min_width=least)
    table.bounds = list(zip(*stages, strict=True))
    for row in shown:
        table.add_row(*(_rich_cell(cell, width) for cell, width in zip(row, marks, strict=True)))
    return table


def _widths(heading: str, texts: Sequence[str], *, is_name: bool, copied: bool) -> tuple[int, int, int, int, int]:
    """The width of a column, and how far each stage may narrow it: headings, names between their parts, numbers, names."""
    whole, narrow = (
        max((cell_len(part) for text in texts for part in parts(text)), default=0) for parts in (str.splitlines, _words)
    )
    heading_whole, heading_narrow = (max(map(cell_len, parts(heading)), default=0) for parts in (str.splitlines, _words))
    width, least = max(whole, heading_whole), max(narrow, heading_narrow)
    if copied:
        return width, width, width, width, width
    if is_name:
        return width, width, min(width, max(least, LONGEST_LINE)), min(least, LONGEST_LINE), min(least, SHORTEST_LINE)
    below_heading = max(whole, heading_narrow)
    return width, below_heading, below_heading, least, least


def _words(text: str) -> list[str]:
    """The words of a text; blanks at its end, in the place of a mark, belong to the last."""
    return re.findall(r"\S+\s*$|\S+", text)


def broken_at_plus(name: str, most: int = LONGEST_LINE) -> str:
    """The name of a method in lines of at most so many characters, if its parts are no longer; each but the first begins with +.

    >>> print(broken_at_plus("class_rel+gated+logit_adjusted_base"))
    class_rel+gated
    +logit_adjusted_base
    """
    lines = [""]
    for part in re.split(r"(?=\+)", name):
        if lines[-1] and len(lines[-1]) + len(part) > most:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _rich_cell(cell: Cell, mark_width: int) -> Text:
    # The cell's own style would also hold for what is appended.
    text = Text().append(cell.text, style="bold") if cell.bold else Text(cell.text)
    return text.append(cell.mark.ljust(mark_width))


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


def number_text(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)


def percent(share: float | None) -> str:
    return number_text(None if share is None else 100 * share, ".1f")


def points(difference: float | None) -> str:
    """A difference of shares, in points with its sign."""
    if difference is None:
        return ABSENT
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else text


def interval_text(low: float | None, high: float | None) -> str:
    """An interval of shares, in percent.

    >>> interval_text(0.671, 0.7034)
    '67.1–70.3'
    """
    return ABSENT if low is None or high is None else f"{percent(low)}–{percent(high)}"


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return ABSENT
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"


def ratio_text(ratio: float | None) -> str:
    """1:733, and a decimal where the ratio is small and not whole."""
    if ratio is None:
        return ABSENT
    return f"1:{ratio:,.0f}" if ratio >= 10 or ratio == round(ratio) else f"1:{ratio:.1f}"


def imbalance_text(counts: np.ndarray) -> str:
    """The ratio 1:x over the classes that occur, and how many do not."""
    empty = int((counts == 0).sum())
    text = ratio_text(imbalance_ratio(counts) if counts.any() else None)
    return f"{text}, {empty} empty" if counts.any() and empty else text


def field_text(field: str, value: Any) -> str:
    if field == "epochs":
        return counted(value, "epoch")
    return f"seed {value}" if field == "seed" else str(value)


def seeds_text(counts: Sequence[int]) -> str:
    """How many seeds each method has.

    >>> seeds_text([1, 3])
    '1 to 3 seeds'
    """
    fewest, most = min(counts), max(counts)
    return f"{fewest} to {most} seeds" if fewest < most else counted(most, "seed")


def text_cells(values: Iterable[object]) -> list[Cell]:
    return [Cell(str(value)) for value in values]


def number_cells(
    values: Sequence[float | None],
    spreads: Sequence[float | None] | None = None,
    *,
    shown_as: Callable[[float | None], str] = percent,
    best: Callable[[list[float]], float] = max,
    settings: Sequence[object] | None = None,
    barred: Sequence[bool] | None = None,
) -> list[Cell]:
    """Numbers as cells, ± their spreads; the best is bold.

    Args:
        values: None is shown as `ABSENT`.
        spreads: of the values, None where there is none.
        shown_as: the text of a value.
        best: chooses the best value, max or min.
        settings: of the values; each setting has a best of its own. Accuracies on different data cannot be compared.
        barred: which values are never the best, those of trainings that are no result.
    """
    texts = [shown_as(value) for value in values]
    of_results = [ABSENT if out else text for text, out in zip(texts, barred or [False] * len(texts), strict=True)]
    bold = best_places(of_results, best, settings)
    stds = ["" if spread is None else f" ± {shown_as(spread)}" for spread in spreads or [None] * len(values)]
    return [Cell(text + std, place in bold) for place, (text, std) in enumerate(zip(texts, stds, strict=True))]


def best_places(
    texts: Sequence[str], best: Callable[[list[float]], float] = max, settings: Sequence[object] | None = None
) -> set[int]:
    """Where the best number of each setting is; nowhere if the setting has fewer than two numbers.

    The numbers are compared as shown: those that read the same are equally good.

    >>> sorted(best_places(["1,234", "99", "–", "99"], min))
    [1, 3]
    """
    places: dict[object, dict[int, float]] = {}
    for place, text in enumerate(texts):
        if text != ABSENT:
            places.setdefault(settings and settings[place], {})[place] = float(text.replace(",", ""))
    several = [numbers for numbers in places.values() if len(numbers) > 1]
    return {place for numbers in several for place, number in numbers.items() if number == best(list(numbers.values()))}
