"""An exhibit as it is shown: its parts, and a caption that says how its numbers came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crl_tf.files import read_json
from paper.content import Paragraph, Section
from paper.exhibits import Exhibit
from paper.material import LISTS, Material, listed
from paper.planning import CELEBA, FULL, Cut, Job, Request, Spec, job

PAPER_IMAGES = {"celeba_paper": 152_770, "xdomain_paper": 155_467, "deepfashion_paper": 209_222}
"""Training images of the paper, without the 10,000 validation images among them, where the data at hand are others or fewer."""


def section(exhibit: Exhibit, request: Request, cut: Cut, budget: str | None, failed: Mapping[Path, str]) -> Section:
    """What is shown of an exhibit.

    Args:
        cut, budget: what the runs were cut to, and for which time.
        failed: by folder, why runs failed.
    """
    planned = {
        name: [job(request, spec, seed, cut) for seed in request.seeds] if request.leaves_out(spec) is None else []
        for name, spec in exhibit.runs.items()
    }
    material = Material(request, cut, exhibit.runs, planned if exhibit.trains else {name: [] for name in planned})
    missing = [data for data in exhibit.needs if data not in request.folders]
    if missing:
        words = " and ".join(f"--{data}=DIR" for data in missing)
        return Section(exhibit.name, exhibit.title, [f"Left out: no data ({words})."], [])
    trained = exhibit.trains and any(planned.values())
    caption = _caption(exhibit, request, cut, budget, planned, failed) if trained else []
    try:
        parts = list(exhibit.build(material))
    except (LookupError, ValueError, OSError) as error:  # such as a model that was deleted: the other exhibits are shown
        reason = str(error.args[0] if error.args else error).partition("\n")[0]
        parts = [Paragraph(f"Not shown: {reason.rstrip('.')}.")]
    reasons = list(dict.fromkeys(why for spec in exhibit.runs.values() if (why := request.leaves_out(spec))))
    caption += [f"Left out: {'; '.join(reasons)}."] if reasons and exhibit.trains else []
    return Section(exhibit.name, exhibit.title, caption, parts)


def left_out(request: Request, exhibits: Sequence[Exhibit]) -> list[str]:
    """A line for each of the data that are missing, with the exhibits that need them."""
    by_data: dict[str, list[str]] = {}
    for one in exhibits:
        for data in dict.fromkeys([*one.needs, *(spec.data for spec in one.runs.values())]):
            has_lists = not one.trains and data == CELEBA and LISTS in request.folders
            if data not in request.folders and not has_lists:
                by_data.setdefault(data, []).append(one.name)
    return [
        f"left out for want of --{data}=DIR (or --data=DIR): all or part of {', '.join(names)}" for data, names in by_data.items()
    ]


def _caption(
    exhibit: Exhibit,
    request: Request,
    cut: Cut,
    budget: str | None,
    planned: Mapping[str, Sequence[Job]],
    failed: Mapping[Path, str],
) -> list[str]:
    sentences = ["Class-balanced accuracy on the whole test set, mean ± standard deviation over seeds."]
    groups: dict[str, None] = {}
    for name, jobs in planned.items():
        if jobs:
            groups[_lengths(request, exhibit.runs[name], jobs[0], cut)] = None
    if cut == FULL:
        uncut = "the budget suffices: nothing is cut" if budget else "nothing is cut"
        sentences.append(f"{uncut[0].upper()}{uncut[1:]}: {'; '.join(groups)}.")
    else:
        sentences.append(f"Budget {budget}: {'; '.join(groups)}. The test set is whole.")
    if request.changes:
        changes = ", ".join(f"{key} = {value}" for key, value in request.changes.items())
        sentences.append(f"Changed from the paper's settings: {changes}.")
    jobs = [one for of_name in planned.values() for one in of_name]
    reasons = [f"{one.name}: {failed[one.folder]}" for one in jobs if one.folder in failed]
    unfinished = [one for one in jobs if not one.finished and one.folder not in failed]
    if reasons:
        sentences.append(f"Failed: {'; '.join(dict.fromkeys(reasons))}.")
    if unfinished:
        sentences.append(
            f"{len({one.folder for one in unfinished})} of {len({one.folder for one in jobs})} runs are not finished."
        )
    return sentences


def _lengths(request: Request, spec: Spec, one: Job, cut: Cut) -> str:
    """Epochs and training images of a run, and what they were cut from."""
    full = request.config(spec).train.epochs
    epochs = f"epochs {full:,}" if cut == FULL else f"epochs {full:,} → {one.config.train.epochs:,}"
    at_hand = len(listed(request, spec, complete=False).splits["train"])
    paper = PAPER_IMAGES.get(spec.recipe)
    images = f"{paper:,} (paper) → {at_hand:,} (at hand)" if paper and paper != at_hand else f"{at_hand:,}"
    described = one.folder / "config.json"
    if cut != FULL and cut.images < 1:
        used = read_json(described)["images"]["train"] if described.is_file() else round(at_hand * cut.images)
        images += f" → {used:,}"
    return f"{one.config.dataset}: {epochs}, training images {images}"
