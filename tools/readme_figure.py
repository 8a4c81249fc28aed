"""Draws the picture of README: what methods do to rare classes, from finished runs.

    python tools/readme_figure.py --runs=runs/my-comparison --out=docs/images/rare_classes.png
    python tools/readme_figure.py --runs=runs/a,runs/b/result.json --methods=class_rel,logit_adjusted --out=picture.png

--runs takes result.json files, and folders of runs or comparisons, of which every result.json is taken. All runs must be of one
dataset, model and number of epochs. What the picture shows: `save_rare_classes` of
`crl_tf.experiment.report.method_figures`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from crl_tf.experiment.report.method_figures import save_rare_classes
from crl_tf.files import read_json, write_whole

COLOURS = 64
"""Of the PNG: few enough for a small file, enough for smooth letters."""


def result_files(paths: Sequence[Path]) -> list[Path]:
    """The result.json files that are named, or below the folders that are; each once, in order."""
    files: list[Path] = []
    for path in paths:
        below = sorted(path.rglob("result.json")) if path.is_dir() else [path] if path.is_file() else []
        if not below:
            raise ValueError(f"runs must be result.json files or folders that hold one, received {path}")
        files += [file.resolve() for file in below]
    return list(dict.fromkeys(files))


def draw(runs: Sequence[Path], out: Path, methods: Sequence[str] | None = None, baseline: str | None = None) -> int:
    """Draws the results of the runs to the PNG `out`. Returns how many results there are."""
    results = [read_json(file) for file in result_files(runs)]
    save_rare_classes(results, out, methods, baseline)
    with Image.open(out) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    write_whole(out, lambda partial: small.save(partial, format="PNG", optimize=True))
    return len(results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, draws, and prints what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", required=True, help="result.json files and folders of runs, separated by commas")
    parser.add_argument("--out", required=True, type=Path, help="the PNG to write")
    parser.add_argument(
        "--methods", help="which methods to draw beside the baseline, separated by commas; default: all, six at most"
    )
    parser.add_argument("--baseline", help="the method to compare with; default: ce, or the first")
    flags = parser.parse_args(arguments)
    try:
        count = draw(
            [Path(name).expanduser() for name in flags.runs.split(",")],
            flags.out.expanduser(),
            flags.methods and flags.methods.split(","),
            flags.baseline,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"readme_figure: {error}")
    print(f"{flags.out}: {count} runs, {flags.out.expanduser().stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
