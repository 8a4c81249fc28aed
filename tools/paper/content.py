"""What an exhibit consists of, whatever shows it: texts, tables and pictures, each as text, Markdown and HTML."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

NOTHING, UNREADABLE = "–", "?"
"""In a cell: there is no number; the paper has one that cannot be read."""


def number(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A number of a cell.

    >>> number(36.66), number(2, 2, signed=True), number(None)
    ('36.7', '+2.00', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:{'+' if signed else ''}.{digits}f}"


def measured(values: Sequence[float | None], digits: int = 1, *, signed: bool = False) -> str:
    """Mean ± sample standard deviation over seeds; of one seed its number alone.

    >>> measured([36.0, 38.0]), measured([36.0]), measured([])
    ('37.0 ± 1.4', '36.0', '–')
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return NOTHING
    mean = number(float(np.mean(known)), digits, signed=signed)
    return mean if len(known) == 1 else f"{mean} ± {np.std(known, ddof=1):.{digits}f}"


class Part(Protocol):
    """A part of an exhibit."""

    def text(self) -> str: ...

    def markdown(self, folder: Path, name: str) -> str:
        """Markdown; what it refers to is written to `folder`, under names that begin with `name`."""

    def html(self) -> str: ...


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    words: str

    def text(self) -> str:
        return self.words

    def markdown(self, folder: Path, name: str) -> str:
        return self.words

    def html(self) -> str:
        return f"<p>{html.escape(self.words)}</p>"


@dataclass(frozen=True)
class Table:
    """A table of texts. The first column names the rows. `title` is said above it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def text(self) -> str:
        cells = [self.columns, *self.rows]
        widths = [max(len(row[place]) for row in cells) for place in range(len(self.columns))]
        lines = []
        for row in cells:
            first, *rest = (cell.ljust(width) if place == 0 else cell.rjust(width)
                            for place, (cell, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
            lines.append("  ".join([first, *rest]).rstrip())
        lines.insert(1, "-" * min(130, sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([self.title] * bool(self.title) + lines)

    def markdown(self, folder: Path, name: str) -> str:
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (self.columns, *self.rows)]
        lines.insert(1, "|" + "---|" * len(self.columns))
        return "\n".join([f"**{self.title}**\n"] * bool(self.title) + lines)

    def html(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            first, *rest = (html.escape(cell) for cell in cells)
            return (
                f'<tr><th scope="{"col" if tag == "th" else "row"}">{first}</th>'
                + "".join(f"<{tag}{' scope=col' if tag == 'th' else ''}>{cell}</{tag}>" for cell in rest)
                + "</tr>"
            )

        title = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        body = "\n".join(row(cells, "td") for cells in self.rows)
        # Focusable, so that a keyboard can scroll it.
        return (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(self.title or "table")}"><table>{title}'
            f"<thead>{row(self.columns, 'th')}</thead><tbody>\n{body}\n</tbody></table></div>"
        )


@dataclass(frozen=True)
class Picture:
    """A figure, and what it shows in words."""

    figure: Figure
    words: str

    def png(self) -> bytes:
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=150, bbox_inches="tight", facecolor="white")
        return file.getvalue()

    def text(self) -> str:
        return f"(picture: {self.words})"

    def markdown(self, folder: Path, name: str) -> str:
        (folder / f"{name}.png").write_bytes(self.png())
        return f"![{self.words}]({name}.png)"

    def html(self) -> str:
        data = base64.b64encode(self.png()).decode("ascii")
        return f'<img alt="{html.escape(self.words)}" src="data:image/png;base64,{data}">'


@dataclass(frozen=True)
class Section:
    """An exhibit as it is shown.

    name: such as "Table 9". title: what it is. caption: how its numbers came about, sentence by sentence. parts: what it shows.
    """

    name: str
    title: str
    caption: Sequence[str]
    parts: Sequence[Part]

    @property
    def key(self) -> str:
        return self.name.lower().replace(". ", "-").replace(" ", "-").replace(".", "")
