"""Runs the benchmarks, keeps what they measured in performance_results.json, and writes the tables of docs/performance.md.

    python tools/performance_tables.py                          everything, about an hour on two cores that nothing else uses
    python tools/performance_tables.py --only=loss,small        some parts; the others keep their results
    python tools/performance_tables.py --tables                 measures nothing, writes the tables from the results
    python tools/performance_tables.py --check                  tells whether they are what the results say (a test does the same)

Each part is one benchmark in a process of its own, kept as soon as it is measured. A part without results leaves the document as
it is. `benchmark_tables.py` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import benchmark_tables
from documents import ROOT, write

RESULTS = Path(__file__).with_name("performance_results.json")
PAGE = ROOT / "docs" / "performance.md"


class Part(NamedTuple):
    """A benchmark of tools/, and its flags. minutes: on two idle cores, about."""

    tool: str
    flags: tuple[str, ...]
    minutes: int


LOSS_ROWS = (
    "celeba/loss/",
    "celeba/rectification/",
    "celeba/step/(cross_entropy|class_relative)( again| scope=all| bfloat16)?$",
    "celeba/naive/",
    "celeba/memory/",
    r"(xdomain|cifar)/loss/\w+$",
    "first step/",
)
"""What the tables of the losses show, which is a third of what bench_loss.py can measure."""

PARTS = {
    "loss": Part("bench_loss.py", (f"--only={','.join(LOSS_ROWS)}", "--rounds=7"), 5),
    "operations": Part("bench_operations.py", (), 1),
    "small": Part("bench_small.py", ("--rounds=7",), 7),
    "training": Part("bench_training.py", ("--rounds=5",), 5),
    "networks": Part("bench_networks.py", (), 5),
    "start": Part("bench_start.py", ("--rounds=5",), 3),
    "serving": Part("bench_serving.py", (), 3),
}
"""By the name of the marker in the document, performance-NAME, and of its tables in benchmark_tables.TABLES."""

DOCUMENTS = {f"performance-{name}": PAGE for name in PARTS}


def measured(part: Part) -> dict[str, Any]:
    """Runs a benchmark and returns what it wrote."""
    with tempfile.TemporaryDirectory(prefix="performance-") as scratch:
        found = Path(scratch) / "found.json"
        command = [sys.executable, str(Path(__file__).with_name(part.tool)), *part.flags, f"--json={found}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(found.read_text(encoding="utf-8"))


def contents(results: Mapping[str, Any]) -> dict[str, str]:
    """The text of every marker whose part was measured."""
    texts = {}
    for name in (name for name in PARTS if name in results):
        tables = benchmark_tables.TABLES[name](results[name])
        texts[f"performance-{name}"] = "\n\n".join(
            [benchmark_tables.about(results[name]), *(table.markdown() for table in tables)]
        )
    return texts


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, and writes or checks the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="the parts to measure; default: %(default)s")
    parser.add_argument("--tables", action="store_true", help="measure nothing; write the tables")
    parser.add_argument("--check", action="store_true", help="measure and write nothing; exit with 1 where a table differs")
    flags = parser.parse_args(arguments)
    names = flags.only.split(",")
    if unknown := set(names) - set(PARTS):
        parser.error(f"--only must name some of {','.join(PARTS)}, received {sorted(unknown)[0]!r}")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in [] if flags.tables or flags.check else names:
        print(f"measuring {name}, about {PARTS[name].minutes} minutes", flush=True)
        results[name] = measured(PARTS[name])
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write(contents(results), DOCUMENTS, check=flags.check, of=RESULTS.name)


if __name__ == "__main__":
    main()
