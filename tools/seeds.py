"""Several losses on several seeds, and the table of their means: the honest form of a comparison.

    python tools/seeds.py --dataset=cifar100_imb --data_dir=CIFAR --compare=ce,class_rel,instance_rel --seeds=0,1,2 \\
        --workdir=runs/cifar

Takes every flag of `crl_tf.main`. Each run stands in <workdir>/seed<n>/<loss>; called again with --resume it goes on where it
was stopped. --compare names the rows of the table, the baseline first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from rich.console import Console

from crl_tf import experiment, main, recipe, report
from crl_tf.files import write_json

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "seeds to run; each draws its own weights, order and validation split")


def run(argv: Sequence[str]) -> None:
    """Runs what the flags say and prints mean ± standard deviation over the seeds."""
    given = flags.FLAGS
    if not given.compare or not given.workdir:
        sys.exit("seeds: give --compare (the losses) and --workdir")
    workdir = Path(given.workdir).expanduser()
    results = []
    with main.errors_in_one_line():
        for seed in map(int, _SEEDS.value):
            config = recipe.override(given.config, {**main.given_settings(), "seed": seed})
            folder = workdir / f"seed{seed}"
            results += experiment.compare(config, given.compare, folder, resume=given.resume, export=given.export)
    write_json(workdir / "seeds.json", results)
    Console().print(report.seeds_table(results))


if __name__ == "__main__":
    app.run(run, flags_parser=main.parse)
