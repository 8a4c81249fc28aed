"""What the benchmarks measured, as tables: from the JSON that they write to cells, for the terminal and docs/performance.md.

Loads no TensorFlow: tools/performance_tables.py writes the documents from results that lie in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from documents import markdown
from rich.console import Console
from rich.markup import escape
from rich.table import Table as TerminalTable

Result = Mapping[str, Any]
LOSSES = {f"{level}_{short}": f"{level}_{long}" for level in ("class", "instance") for short, long in
          (("rel", "relative"), ("abs", "absolute"), ("dis", "distribution"))}  # fmt: skip
"""The name of a loss in the program, and in the rows of bench_loss.py."""


class Table(NamedTuple):
    """Cells of text; a title says what the numbers are."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The title and the table in Markdown."""
        return f"**{self.title}**\n\n{markdown(self.header, self.lines)}"


def figures(value: float) -> str:
    """Three digits; two below 1.

    >>> [figures(value) for value in (1234.5, 28.04, 2.6, 0.5, 0.0123)]
    ['1,234', '28.0', '2.60', '0.50', '0.012']
    """
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if abs(value) >= 1 else f"{value:#.2g}"


def with_quartiles(of: Mapping[str, Any] | None, scale: float = 1.0) -> str:
    """The median and the quartiles; nothing where nothing was measured.

    >>> with_quartiles({"median": 0.0026, "q1": 0.0025, "q3": 0.0027}, 1e3), with_quartiles({"median": None})
    ('2.60 (2.50 to 2.70)', '')
    """
    if of is None or of["median"] is None:
        return ""
    median, low, high = (figures(scale * of[key]) for key in ("median", "q1", "q3"))
    return f"{median} ({low} to {high})"


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


def about(result: Result) -> str:
    """The machine, the versions, and the command."""
    machine = {name: value for name, value in result["machine"].items() if value is not None}
    told = [f"{machine.pop('cpu')}, {machine.pop('cores')} cores"]
    told += [f"{name} {value}" for name, value in machine.items()]
    return f"{', '.join(told)}; {result['date']}, {result['seconds'] / 60:.0f} minutes: `{result['command']}`"


def show(result: Result, tables: Sequence[Table], in_markdown: bool = False) -> None:
    """Prints tables to the terminal, or as Markdown."""
    if in_markdown:
        print(about(result), *(table.markdown() for table in tables), sep="\n\n")
        return
    console = Console()
    if not console.is_terminal:
        console.width = 150
    console.print(about(result), highlight=False)
    for table in tables:
        shown = TerminalTable(*table.header, title=table.title, title_justify="left")
        for column in shown.columns[1:]:
            column.justify = "right"
        for line in table.lines:
            shown.add_row(*map(escape, line))
        console.print(shown)


def loss_listing(result: Result) -> list[Table]:
    """Every row and every ratio of bench_loss.py."""
    tables = []
    for setting in result["settings"]:
        lines = []
        for row in (row for row in result["items"] if row["name"].startswith(f"{setting}/")):
            scale, unit = (1e-6, "MB") if row["unit"] == "B" else (1e3, "ms")
            measured = row["note"] or f"{len(row['by_round'])} x {row['iterations']}"
            lines.append([row["name"].partition("/")[2], with_quartiles(row, scale) or "-", unit, measured])
        tables.append(Table(setting, ["", "median (quartiles)", "", "measured"], lines))
    lines = [
        [row["name"], with_quartiles(row) or "-", row["form"], _bar(row), {True: "met", False: "NOT MET", None: ""}[row["met"]]]
        for row in result["ratios"]
    ]
    return [*tables, Table("ratios", ["", "median (quartiles)", "", "bar", ""], lines)]


def loss(result: Result) -> list[Table]:
    """What a loss costs; the fast form beside others; ratios that have a bar."""
    items = {row["name"]: row for row in result["items"]}
    ratios = {row["name"]: row for row in result["ratios"]}

    def ms(name: str) -> str:
        return with_quartiles(items.get(name), 1e3)

    header = ["", "ms", "% of a step", "% of a bfloat16 step", "compiled by XLA, ms", "kappa 175, ms", "batch 4096, ms"]
    header.append("peak memory, MB")
    steps = [ms(f"celeba/step/cross_entropy{precision}") for precision in ("", " bfloat16")]
    lines = [["cross-entropy", ms("celeba/loss/cross_entropy"), "", "", ms("celeba/loss/cross_entropy XLA"), "", "",
              with_quartiles(items.get("celeba/memory/cross_entropy"), 1e-6)]]  # fmt: skip
    forms = []
    for shown, name in LOSSES.items():
        row = f"celeba/loss/{name}"
        added = [
            with_quartiles(ratios.get(f"{name} over a {precision}training step, less cross-entropy"))
            for precision in ("", "bfloat16 ")
        ]
        variants = [ms(f"{row}{variant}") for variant in (" XLA", " kappa=175", " batch=4096")]
        lines.append([f"`{shown}`", ms(row), *added, *variants, with_quartiles(items.get(f"celeba/memory/{name}"), 1e-6)])
        fast = f"celeba/rectification/{name}"
        saved = with_quartiles(ratios.get(f"{name}: what the fast form saves of a training step"))
        naive = with_quartiles(ratios.get(f"celeba: naive {name}"))
        forms.append([f"`{shown}`", ms(fast), ms(f"{fast} readable"), saved, naive])
    again = {kind: with_quartiles(ratios.get(f"A/A: noise of {kind}")) for kind in ("loss", "step")}
    title = f"celeba: 40 binary labels, batch 256; a DeepID2 step takes {steps[0]} ms, in bfloat16 {steps[1]}; "
    title += f"A/A: `class_rel` {again['loss']}, a step {again['step']}"
    names = {"cross-entropy": "cross_entropy", **{f"`{shown}`": name for shown, name in LOSSES.items()}}
    others = [[shown, *(ms(f"{setting}/loss/{name}") for setting in ("xdomain", "cifar"))] for shown, name in names.items()]
    bars = [[row["name"], with_quartiles(row), row["form"], _bar(row)] for row in result["ratios"]
            if row["bar"] is not None and row["median"] is not None]  # fmt: skip
    return [
        Table(title, header, lines),
        Table(
            "Value and gradient, cross-entropy included",
            ["", "xdomain: 9 labels, 178 classes, batch 128, ms", "cifar: 100 classes, batch 256, ms"],
            others,
        ),
        Table(
            "L_crl alone, celeba: the fast form beside the readable form and naive loops",
            ["", "fast, ms", "readable, ms", "the fast form saves, % of a step", "naive loops take so many times as long"],
            forms,
        ),
        Table("Aims", ["", "median (quartiles)", "", "aim"], bars),
    ]


def _bar(row: Mapping[str, Any]) -> str:
    if row["bar"] is None:
        return ""
    return f"{'at least' if row['form'] == 'x faster' else 'at most'} {row['bar']:g}"


def operations(result: Result) -> list[Table]:
    """The rows of bench_operations.py."""
    lines = [
        [name, with_quartiles(row["seconds"], 1e3), with_quartiles(row["bfloat16"]), with_quartiles(row["control"])]
        for name, row in result["rows"].items()
    ]
    header = ["", "float32, ms", "bfloat16 over float32", "A/A"]
    return [Table(f"processor time of an operation, {result['rounds']} rounds", header, lines)]


def small(result: Result) -> list[Table]:
    """A table for each kind of case of bench_small.py: what cross-entropy takes, and of all else how many times that."""
    tables = []
    for kind in dict.fromkeys(name.partition(", ")[0] for name in result["cases"]):
        cases = {name.partition(", ")[2]: rows for name, rows in result["cases"].items() if name.startswith(f"{kind}, ")}
        header = next([row["name"] for row in rows] for rows in cases.values())
        lines = [[name, with_quartiles(rows[0], 1e3), *(with_quartiles(row["ratio"]) for row in rows[1:])]
                 for name, rows in cases.items()]  # fmt: skip
        title = f"{kind}: {header[0]} in ms of {result['clock']} time; all else over it"
        tables.append(Table(title, ["", f"{header[0]}, ms", *header[1:]], lines))
    return tables


def training(result: Result) -> list[Table]:
    """The rows of bench_training.py."""
    lines = [
        [name, with_quartiles(row["seconds"], 1e3), with_quartiles(row["ratio"]), f"{row['first_seconds']:.1f}"]
        for name, row in result["rows"].items()
    ]
    return [Table(result["about"], ["", "a step, ms", "over the first row", "first call, s longer"], lines)]


def networks(result: Result) -> list[Table]:
    """The rows of bench_networks.py."""
    lines = []
    for name, row in result["networks"].items():
        line = [name, " x ".join(map(str, row["image_size"])), str(row["batch_size"])]
        line += [f"{row['parameters']:,}", three_digits(row["flops"])]
        for what in ("forward", "step"):
            line += [figures(1e3 * row[f"{what}_seconds"]["median"]), with_quartiles(row[f"{what}_ratio"])]
        lines.append(line)
    header = ["network", "image", "batch", "parameters", "FLOPs", "forward, ms", "x deepid2", "step, ms", "x deepid2"]
    return [Table(f"per image, `class_rel`, {result['rounds']} rounds", header, lines)]


def peers(result: Result) -> list[Table]:
    """The rows of bench_networks.py --peer."""
    lines = []
    for key, row in result["networks"].items():
        ms, over = ({side: of for side, of in row[part].items()} for part in ("seconds", "ours_over"))
        ours, torch = (figures(1e3 * ms[side]["median"]) if side in ms else "" for side in ("ours", "PyTorch"))
        ratios = [with_quartiles(over.get(side)) for side in ("ours, again (A/A)", "plain Keras", "PyTorch")]
        lines.append([*key.split("/"), ours, *ratios[:2], torch, ratios[2]])
    header = ["network", "precision", "ours, ms", "A/A", "of plain Keras", "PyTorch, ms", "of PyTorch"]
    return [Table(f"processor time of a step with cross-entropy, {result['rounds']} rounds", header, lines)]


def start(result: Result) -> list[Table]:
    """The starts of bench_start.py."""
    lines = [
        [f"`{name}`", with_quartiles(row["processor"]), with_quartiles(row["ratio"]), with_quartiles(row["wall"])]
        for name, row in result["starts"].items()
    ]
    header = ["", "processor time, s", "of import keras", "wall time, s"]
    return [Table(f"a process each, {result['rounds']} rounds", header, lines)]


def serving(result: Result) -> list[Table]:
    """The calls and the server of bench_serving.py."""
    calls = [[name, with_quartiles(row, 1e3), with_quartiles(row["ratio"])] for name, row in result["calls"].items()]
    clients = []
    for count, row in result["load"]["clients"].items():
        times = ["" if row[key] is None else figures(1e3 * row[key]) for key in ("p50_seconds", "p99_seconds")]
        failed = [str(row[key]) for key in ("refused", "wrong", "lost")]
        clients.append([count, f"{row['requests']:,}", *times, with_quartiles(row["per_second"]), *failed])
    memory = ", ".join(f"{size / 2**20:,.0f}" for size in result["load"]["memory_bytes"] if size)
    alone = with_quartiles(result["one_picture_seconds"], 1e3)
    title = f"The server; a call with one picture takes {alone} ms without it; its memory after each round, MiB: {memory}"
    header = ["clients", "requests", "p50, ms", "p99, ms", "requests/s", "refused", "wrong", "lost"]
    return [
        Table(f"A call: {result['network']}, {result['batch']} images", ["", "ms", "over the Keras model"], calls),
        Table(title, header, clients),
    ]


TABLES: dict[str, Callable[[Result], list[Table]]] = {
    "loss": loss,
    "operations": operations,
    "small": small,
    "training": training,
    "networks": networks,
    "start": start,
    "serving": serving,
}
"""What docs/performance.md has of each benchmark."""
