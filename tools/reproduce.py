"""Repeats the paper's tables and figures: runs what is missing, and shows the numbers beside the paper's.

    python tools/reproduce.py --table=9 --data=DATA                    as the paper: days on two cores for most tables
    python tools/reproduce.py --table=9 --table=12 --figure=12 --budget=2h --data=DATA
    python tools/reproduce.py --all --show --data=DATA                 run nothing, show what is there
    python tools/reproduce.py --list                                   what there is, and how many runs each needs

Called again with the same flags, it goes on where it was stopped. A budget cuts epochs and training images alike; runs of another
budget are kept apart. Runs, logs and pages are written below --out: pages/<what>-<budget>/report.html, report.md and report.txt.
How to use it and what it costs: docs/reproduce.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from paper.budget import planned_cut
from paper.content import Section
from paper.exhibits import EXHIBITS, Exhibit, find
from paper.material import LISTS
from paper.planning import CELEBA, CIFAR, FASHION, FULL, Request, jobs
from paper.render import as_text, write_pages
from paper.runs import duration, execute, groups_of_cores, only_one
from paper.sections import left_out, section

from crl_tf.experiment.settings import SETTINGS, check_key

PLACES = {
    CELEBA: ("celeba",),
    CIFAR: ("cifar-100-python", "cifar100"),
    FASHION: ("fashion_product",),
    LISTS: ("celeba-full-lists",),
}
"""Below --data, where each of the data may be."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog="docs/reproduce.md says more.", allow_abbrev=False
    )
    what = flags.add_argument_group("what")
    what.add_argument("--table", action="append", default=[], metavar="N", help="a table, 2 to 13; several times for several")
    what.add_argument("--figure", action="append", default=[], metavar="N", help="a figure: 1, 2, 6, 10b and so on")
    what.add_argument("--all", action="store_true", help="every table and figure")
    what.add_argument("--list", action="store_true", help="name what there is, and stop")
    what.add_argument("--show", action="store_true", help="run nothing, show what is there")
    data = flags.add_argument_group("data, in their publishers' layouts; what needs missing ones is left out")
    data.add_argument("--data", type=Path, metavar="DIR", help="a folder that holds celeba/, cifar-100-python/, fashion_product/")
    data.add_argument("--celeba", type=Path, metavar="DIR", help="CelebA")
    data.add_argument("--celeba_lists", type=Path, metavar="DIR", help="CelebA's complete lists, if --celeba has not all images")
    data.add_argument("--cifar", type=Path, metavar="DIR", help="CIFAR-100, the folder with train, test and meta")
    data.add_argument("--fashion", type=Path, metavar="DIR", help="fashion product images with attributes.csv")
    how = flags.add_argument_group("how")
    how.add_argument("--budget", help="wall time for everything that is missing, such as 2h: epochs and images are cut alike")
    how.add_argument("--cut", choices=("both", "epochs"), default="both", help="what a budget cuts: epochs and images, or epochs")
    how.add_argument("--seeds", default="0,1,2", help="of the runs, separated by commas; default: 0,1,2")
    how.add_argument("--networks", help="run these alone, separated by commas: cifarnet,resnet32")
    how.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all runs; captions say it")
    how.add_argument("--jobs", type=int, help="runs at a time; default: as many as cores and memory allow, one on a GPU")
    how.add_argument("--out", type=Path, default=Path("runs/paper"), help="where everything is written; default: runs/paper")
    return flags


def exhibits_of(flags: argparse.Namespace) -> list[Exhibit]:
    """The exhibits that are asked for, in the paper's order."""
    if flags.all:
        return list(EXHIBITS.values())
    asked = [find("Table", number) for text in flags.table for number in text.split(",")]
    asked += [find("Fig.", number) for text in flags.figure for number in text.split(",")]
    if not asked:
        raise ValueError("give --table, --figure or --all; --list names them")
    return [one for one in EXHIBITS.values() if one in asked]


def folders_of(flags: argparse.Namespace) -> dict[str, Path]:
    """Where the data are; what is not there is left out."""
    folders = {}
    for key, names in PLACES.items():
        own = getattr(flags, key)
        if own is not None and not own.expanduser().is_dir():
            raise ValueError(f"{key} must be a folder, received {own}")
        below = [flags.data.expanduser() / name for name in names] if flags.data else []
        found = next((path for path in ([own.expanduser()] if own else below) if path.is_dir()), None)
        if found is not None:
            folders[key] = found.absolute()
    return folders


def changes_of(flags: argparse.Namespace) -> dict[str, Any]:
    """The settings of --set by their keys."""
    changes = {}
    for text in flags.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"set must be KEY=VALUE, received {text!r}")
        check_key(key)
        changes[key] = SETTINGS[key].rule.parse(value)
    return changes


def request_of(flags: argparse.Namespace) -> Request:
    """What is asked for, checked."""
    seeds = [int(seed) for seed in flags.seeds.split(",") if seed.strip().isdigit()]
    if not seeds or len(set(seeds)) != len(flags.seeds.split(",")):
        raise ValueError(f"seeds must be whole numbers, each once, received {flags.seeds!r}")
    networks = None if flags.networks is None else tuple(name.strip() for name in flags.networks.split(","))
    return Request(flags.out.expanduser().absolute(), folders_of(flags), seeds, changes_of(flags), networks)


def listing() -> str:
    """Every exhibit with the number of runs that it needs for one seed."""
    width = max(map(len, EXHIBITS))
    lines = [f"{one.name.ljust(width)}  {len(set(one.runs.values())):3} runs a seed  {one.title}" for one in EXHIBITS.values()]
    return "\n".join(lines)


def reproduce(flags: argparse.Namespace) -> list[Section]:
    """Runs what is missing, writes the pages and returns the sections."""
    exhibits, request = exhibits_of(flags), request_of(flags)
    specs = list(dict.fromkeys(spec for one in exhibits if one.trains for spec in one.runs.values()))
    for line in left_out(request, exhibits):
        show(line)
    groups = groups_of_cores(flags.jobs)
    what = "all" if flags.all else "-".join(one.name.replace(". ", "-").replace(" ", "-").lower() for one in exhibits)
    with only_one(request.out):
        cut, costs = FULL, None
        if flags.budget:
            options = {"images_too": flags.cut == "both", "run": not flags.show, "show": show}
            cut, costs = planned_cut(request, specs, what, flags.budget, groups, **options)
        planned = jobs(request, specs, cut)
        failed = {}
        if not flags.show:
            missing = sum(not one.finished for one in planned)
            show(f"{len(planned)} runs, {missing} to do, {len(groups)} at a time, cut: {cut.name}; into {request.out}")
            if costs and missing:
                left = sum(costs[one.folder] for one in planned if not one.finished) / len(groups)
                show(f"by the calibration this takes about {duration(left)}")
            failed, _ = execute(planned, request.out, groups, costs=costs, show=show)
        sections = [section(one, request, cut, flags.budget, failed) for one in exhibits]
        pages = write_pages(sections, title_of(exhibits), request.out / "pages" / f"{what}-{cut.name}")
    for one in sections:
        print(f"\n{as_text(one)}")
    print("\n".join(str(path) for path in pages))
    if failed:
        show(f"{len(failed)} runs failed; the captions name them")
    return sections


def title_of(exhibits: Sequence[Exhibit]) -> str:
    """The title of a page."""
    names = ", ".join(one.name for one in exhibits) if len(exhibits) <= 4 else f"{len(exhibits)} tables and figures"
    return f"Minority Class Incremental Rectification (Dong, Gong & Zhu 2018), repeated: {names}"


def show(line: str) -> None:
    """Prints a line of progress at once."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line, reproduces, and prints."""
    flags = parser().parse_args(arguments)
    logging.getLogger("crl_tf").setLevel(logging.WARNING)
    # A kill ends the runs as well, and leaves them resumable.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if flags.list:
            print(listing())
        else:
            reproduce(flags)
    except KeyboardInterrupt:
        sys.exit("\nreproduce: stopped; the same command goes on")
    except (ValueError, OSError) as error:
        sys.exit(f"reproduce: {error}")


if __name__ == "__main__":
    main()
