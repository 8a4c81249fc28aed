"""The table of methods, for `--method=list`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text


def method_list(methods: Mapping[str, Any]) -> Table:
    """One row per method: what it sets in a recipe, who proposed it, and its cost against cross-entropy.

    Args:
        methods: name to a row with `settings`, `source` and `cost` (`crl_tf.methods.METHODS`).
    """
    table = Table(title="methods, for --method and --compare; several that set different things are joined by +")
    for heading in ("method", "sets", "source", "training costs"):
        # Names are to be copied from here.
        table.add_column(heading, overflow="fold", no_wrap=heading == "method")
    for name, row in methods.items():
        sets = ", ".join(f"{key} = {'none' if value is None else value}" for key, value in row.settings.items())
        table.add_row(*(Text(cell) for cell in (name, sets, row.source, row.cost)))
    return table
