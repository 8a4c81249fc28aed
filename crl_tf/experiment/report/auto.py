"""The report of `--compare=auto`: what to use, in plain words, and the tables behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from crl_tf.experiment.report.grid import (
    ABSENT,
    Cell,
    Grid,
    escaped,
    field_text,
    markdown_table,
    number_cells,
    percent,
    points,
    rich_table,
    text_cells,
)
from crl_tf.experiment.workdir import CONFIG, FINAL
from crl_tf.files import write_whole

Search = Mapping[str, Any]
"""The content of auto.json. "final" is what `crl_tf.experiment.scoring.compared` returns, the best on validation images first."""

REPORT = "report.md"

HEADINGS = {
    "balanced_accuracy": "balanced\naccuracy %",
    "rarest_third": "rarest\nthird %",
    "most_frequent_third": "most freq.\nthird %",
}


def auto_sentences(search: Search, workdir: Path) -> list[str]:
    """What a finished search says: what to use, how sure that is, what it cannot say, and what to do next.

    Args:
        workdir: the folder of the search, for the command at the end.
    """
    winner, reference = search["final"][0], _reference(search)
    train, validation, test = (f"{search['images'][split]:,}" for split in ("train", "validation", "test"))
    lines = [
        f"Use {winner['name']}: class-balanced accuracy {percent(winner['balanced_accuracy'])} % on {test} test images"
        + _above_both(winner, reference),
        f"Rarest third of the classes: {percent(winner['rarest_third'])} %{_above(winner, reference, 'rarest_third')};"
        f" most frequent third: {percent(winner['most_frequent_third'])} %{_above(winner, reference, 'most_frequent_third')}.",
        *_doubts(winner, reference),
    ]
    length = field_text("epochs", search["rungs"][-1]["epochs"])
    lines.append(
        f"Brackets: 95 % intervals over the images. All of this is one seed and {length} on {train} training images; another seed"
        " or a longer training may order the methods otherwise."
    )
    lines += _noise(search, validation)
    names = ",".join(dict.fromkeys([reference["name"] if winner is not reference else "ce", winner["name"]]))
    config = workdir / FINAL / winner["name"] / CONFIG
    if "," in names:
        lines.append(f"To make sure: python -m crl_tf.main --config={config} --compare={names} --seeds=0,1,2")
    return lines


def _reference(search: Search) -> Mapping[str, Any]:
    return next(one for one in search["final"] if one["above_reference"] is None)


def _named(reference: Mapping[str, Any]) -> str:
    """Cross-entropy under its best decision rule."""
    return "plain cross-entropy" if reference["rule"] == "argmax" else f"cross-entropy with {reference['rule']}"


def _above_both(winner: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """How far the winner is above cross-entropy under its best rule, and above plain cross-entropy if that is another thing."""
    share, texts = "balanced_accuracy", []
    if winner["above_reference"] is not None:
        texts.append(f"{_signed(winner['above_reference'][share], ' points')} {_named(reference)}")
    if winner["above_plain"] is not None and reference["rule"] != "argmax":
        texts.append(f"{_signed(winner['above_plain'][share], ' points')} plain cross-entropy")
    return f"{', ' * bool(texts)}{' and '.join(texts)}."


def _above(winner: Mapping[str, Any], reference: Mapping[str, Any], share: str) -> str:
    """How far a share of the winner is above that of what it is compared with first."""
    for differences, what in ((winner["above_reference"], _named(reference)), (winner["above_plain"], "plain cross-entropy")):
        if differences is not None:
            return f", {_signed(differences[share])} {what}"
    return ""


def _signed(difference: Sequence[float | None], unit: str = "") -> str:
    """How far above or below, in points with the interval.

    >>> _signed([0.051, 0.039, 0.064], " points"), _signed([-0.01, -0.03, 0.01])
    ('5.1 [3.9, 6.4] points above', '1.0 [-1.0, 3.0] below')
    """
    value, low, high = difference
    if value is None:
        return f"an unknown number of{unit or ' points'} above"
    if value >= 0:
        return f"{100 * value:.1f} {_interval(low, high)}{unit} above"
    low, high = (None if end is None else -end for end in (high, low))
    return f"{-100 * value:.1f} {_interval(low, high)}{unit} below"


def _interval(low: float | None, high: float | None) -> str:
    return f"[{ABSENT}]" if low is None or high is None else f"[{100 * low + 0:.1f}, {100 * high + 0:.1f}]"


def _holds_zero(difference: Sequence[float | None]) -> bool:
    _, low, high = difference
    return low is not None and high is not None and low <= 0 <= high


def _doubts(winner: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """What the differences on the test images do not show."""
    lines = []
    against, name = winner["above_reference"], reference["name"]
    if against is None:
        lines.append("No other method was better than cross-entropy on the validation images.")
        against, name = winner["above_plain"], "ce"
    if against is not None:
        if _holds_zero(against["balanced_accuracy"]):
            lines.append(f"The difference to {name} may be chance, since its interval holds 0. {name} is simpler.")
        elif (against["balanced_accuracy"][0] or 0) < 0:
            lines.append(f"The validation images have misled the choice: on the test images {name} is better. Use {name}.")
    return lines


def _noise(search: Search, validation: str) -> list[str]:
    """How far the choice on validation images is within their noise."""
    lines, lead = [], search.get("lead")
    if lead is not None:
        value, low, high = lead["difference"]
        chance = ", which may be chance" if _holds_zero(lead["difference"]) else ""
        text = f"{100 * (value or 0):.1f} {_interval(low, high)}"
        lines.append(f"It was chosen on {validation} validation images, {text} points ahead of {lead['second']}{chance}.")
    cuts = [rung["cut"] for rung in search["rungs"] if "cut" in rung]
    close = [cut["dropped"] for cut in cuts if _holds_zero(cut["difference"])]
    if close:
        lines.append(
            f"In {len(close)} of {len(cuts)} rungs the best that went out ({', '.join(close)}) was within the noise of the last"
            " that went on: others may be as good."
        )
    return lines


def final_grid(search: Search) -> Grid:
    """One row per finalist, measured on the test images."""
    final, reference = search["final"], _reference(search)
    columns = [
        text_cells("\n+".join(dict.fromkeys((name, one["rule"]))) for name, one in zip(search["finalists"], final, strict=True))
    ]
    for share in HEADINGS:
        cells = number_cells([one[share] for one in final])
        gains = ["" if one["above_reference"] is None else _difference(one["above_reference"][share]) for one in final]
        columns.append([cell._replace(text=f"{cell.text}\n{gain}") for cell, gain in zip(cells, gains, strict=True)])
    title = f"the finalists on {search['images']['test']:,} test images, the best on validation images first"
    caption = (
        f"Below each number: points above {_named(reference)}, with the 95 % interval over the test images (paired bootstrap)."
    )
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Grid(title, ["method and\ndecision rule", *HEADINGS.values()], rows, caption)


def _difference(difference: Sequence[float | None]) -> str:
    value, low, high = difference
    return points(value) if value is None else f"{points(value)} {_interval(low, high)}"


def search_grid(search: Search) -> Grid:
    """One row per method that was tried: how far it got, and its last score on validation images."""
    rungs, winner = search["rungs"], next(iter(search["finalists"]))
    last = {name: number for number, rung in enumerate(rungs) for name in rung["methods"]}
    scores = {name: rungs[number]["scores"].get(name) for name, number in last.items()}

    def order(name: str) -> tuple[bool, int, float]:
        score = scores[name]
        return score is not None, last[name], -1.0 if score is None or score[_FIRST] is None else score[_FIRST]

    rows = []
    for name in sorted(last, key=order, reverse=True):
        score, number = scores[name], last[name]
        finalist = number == len(rungs) - 1 and name in search["finalists"]
        until = "out" if score is None else "best" if name == winner else "final" if finalist else f"rung {number + 1}"
        numbers = [ABSENT] * 3 if score is None else [score["rule"], _with_interval(score), percent(score["rarest_third"])]
        rows.append([Cell(text, bold=name == winner) for text in (name, until, *numbers)])
    title = f"all that was tried: the last score on {search['images']['validation']:,} validation images"
    lengths = ", ".join(f"rung {number}: {field_text('epochs', rung['epochs'])}" for number, rung in enumerate(rungs, 1))
    caption = f"{lengths}. Rules are chosen on the same images, so these scores are a little too high. Brackets: 95 % intervals."
    return Grid(title, ["method", "got to", "best rule", *list(HEADINGS.values())[:2]], rows, caption, names=3)


_FIRST = "balanced_accuracy"


def _with_interval(score: Mapping[str, Any]) -> str:
    interval = score.get("intervals", {}).get(_FIRST)
    return percent(score[_FIRST]) + (f" {_interval(*interval)}" if interval else "")


def not_tried_grid(search: Search) -> Grid:
    """One row per method without a score, with the reason."""
    reasons = {**search["not_tried"], **{name: why for rung in search["rungs"] for name, why in rung["dropped"].items()}}
    return Grid("methods without a score", ["method", "reason"], [text_cells(pair) for pair in reasons.items()], names=2)


def auto_tables(search: Search) -> list[Table]:
    """For the terminal: all that was tried, and the finalists."""
    return [rich_table(search_grid(search)), rich_table(final_grid(search))]


def write_auto_report(search: Search, folder: Path) -> Path:
    """Writes report.md: what to use, the finalists, all that was tried, and what has no score."""
    parts = ["# What to use", *map(escaped, auto_sentences(search, folder))]
    for heading, grid in (("Finalists", final_grid(search)), ("All that was tried", search_grid(search))):
        parts += [f"## {heading}", f"{escaped(grid.title)}.", markdown_table(grid).rstrip("\n"), escaped(grid.caption)]
    without = not_tried_grid(search)
    if without.rows:
        parts += ["## Without a score", markdown_table(without).rstrip("\n")]
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_whole(folder / REPORT, lambda partial: partial.write_bytes(text.encode("utf-8")))
    return folder / REPORT
