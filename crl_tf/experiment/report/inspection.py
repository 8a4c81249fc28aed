"""Tables of an inspection: splits, imbalance of each label, the rarest classes, and what CRL can reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from crl_tf.experiment.report.grid import Grid, number_text, rich_table, text_cells

RAREST = 20
"""Classes that the table of the rarest names."""

ASSOCIATED = 0.3
"""From this Cramér's V on, a pair of labels is named."""

NAMED_LABELS = 80
"""Up to so many labels, a table or a figure has a line with its name for each."""


def split_table(inspection: Mapping[str, Any]) -> Table:
    """One row per split: its images, what is not annotated, its smallest and its largest class (a row of Table 2, turned)."""
    splits = inspection["splits"]
    binary = "smallest_present" in splits["train"]
    rows = []
    for name, facts in splits.items():
        row = [name, f"{facts['images']:,}", _short_percent(facts["missing"])]
        kinds = ("class", "present") if binary else ("class",)
        rows.append(text_cells([*row, *(f"{facts[f'smallest_{kind}']:,} ~ {facts[f'largest_{kind}']:,}" for kind in kinds)]))
    headings = ["split", "images", "not\nannotated %", "images\nper class", "images per\nattribute present"][: 5 if binary else 4]
    total = f"{sum(facts['images'] for facts in splits.values()):,}"
    rows.append(text_cells(["all", total, *[""] * (len(headings) - 2)]))
    return rich_table(Grid(f"{inspection['dataset']} · splits", headings, rows))


def imbalance_table(inspection: Mapping[str, Any]) -> Table:
    """One row per label, the least imbalanced first, as Table 3 has them: classes, ratio, Omega, alpha and how far CRL reaches.

    "in reach" counts the classes that at least half of the batches hold twice.
    """
    ordered = sorted(inspection["labels"].items(), key=lambda item: item[1]["ratio"] or 0)
    rows = []
    for name, facts in ordered[-NAMED_LABELS:]:
        counts = [c["train"] for c in facts["classes"].values()]
        reached = sum(c["two_in_batch"] >= 0.5 for c in facts["classes"].values())
        numbers = [number_text(facts[key], form) for key, form in (("ratio", ",.2f"), ("omega", ".3f"), ("alpha", ".4f"))]
        texts = [name, f"{reached} of {len(counts)}", f"{min(counts):,}", f"{max(counts):,}", *numbers]
        rows.append(text_cells([*texts, _short_percent(facts["missing"]["train"])]))
    more = len(ordered) > NAMED_LABELS
    caption = f"the {NAMED_LABELS} most imbalanced of {len(ordered):,} labels; inspection.json has all" if more else ""
    batches = f"batches of {inspection['batch_size']}, eta {inspection['eta']:g}"
    headings = ["label", "classes\nin reach", "smallest", "largest", "1:x", "Omega", "alpha", "not an-\nnotated %"]
    return rich_table(Grid(f"{inspection['dataset']} · training images per class, {batches}", headings, rows, caption))


def rarest_table(inspection: Mapping[str, Any]) -> Table:
    """The rarest classes that are trained on, the rarest first: how often CRL can act on them at all, in % of the batches."""
    classes = [
        (f"{label} = {name}", facts)
        for label, of_label in inspection["labels"].items()
        for name, facts in of_label["classes"].items()
        if facts["train"]
    ]
    rows = []
    for name, facts in sorted(classes, key=lambda entry: entry[1]["train"])[:RAREST]:
        counts = [f"{facts[split]:,}" for split in ("train", "validation", "test")]
        shares = ("share", "two_in_batch", "rectified", "rectified_in_pairs")
        rows.append(text_cells([name, *counts, *(_short_percent(facts[key]) for key in shares)]))
    headings = ["label = class", "train", "vali-\ndation", "test", "share\n%", "two in\nbatch %", "rectified\n%", "in pairs\n%"]
    return rich_table(Grid(f"{inspection['dataset']} · rarest classes, batches of {inspection['batch_size']}", headings, rows))


def association_line(inspection: Mapping[str, Any]) -> str | None:
    """The most strongly associated pairs of labels, in a line; None where no pair is."""
    pairs = [f"{a} and {b} {value:.2f}" for a, b, value in inspection["co_occurrence"] if value >= ASSOCIATED][:5]
    return f"associated labels (Cramér's V in the training images): {', '.join(pairs)}" if pairs else None


def _short_percent(share: float) -> str:
    # Two digits that count, however small: a rare class's share is the point.
    return f"{100 * share:.1f}" if share >= 0.001 or share == 0 else f"{100 * share:.2g}"
