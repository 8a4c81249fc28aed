"""Images side by side with what a model made of them (as in Figs. 5, 7 and 9), of data that may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from crl_tf.experiment.report.figures import COLOURS, DARK, fitted
from paper.style import FONT, WIDTH, add_legend, require

PEOPLE = {
    "celeba": "its images are faces of people",
    "xdomain": "its images show people who wear the clothes",
    "deepfashion": "its images show people who wear the clothes",
}
"""Datasets whose images no figure shows, each with the reason."""

FACE_LABELS = frozenset(
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Big_Lips Big_Nose Bushy_Eyebrows Chubby Double_Chin Goatee"
    " Heavy_Makeup High_Cheekbones Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose"
    " Receding_Hairline Rosy_Cheeks Sideburns Smiling Wearing_Lipstick".replace("_", "")
    .lower()
    .split()
)
"""Labels of CelebA that only a face can have: its images may also come as records or as a CSV file."""

PEOPLE_CLASSES = frozenset({"baby", "boy", "girl", "man", "woman"})
"""Classes of CIFAR-100 whose images show people; no figure shows these images."""

KINDS = {
    "anchor": (DARK, "-", "the anchor"),
    "positive": (COLOURS[0], "-", "hard positive (of the class)"),
    "negative": (COLOURS[1], "--", "hard negative (of another class)"),
    "right": (COLOURS[0], "-", "decided right"),
    "wrong": (COLOURS[1], "--", "decided wrong"),
}
"""The frame of a picture, by what it is: colour, line, and its text in the legend."""


class Picture(NamedTuple):
    """An image, uint8 [H, W, 3], with a caption of a few lines. kind: a key of `KINDS`."""

    image: np.ndarray
    caption: str
    kind: str


class PictureRow(NamedTuple):
    """Pictures under a title."""

    title: str
    pictures: Sequence[Picture]


def refuse_people(dataset: str, labels: Sequence[str], paths: Sequence[str] = ()) -> None:
    """Refuses to show images of people, by the name of the dataset, its labels or the paths of its images.

    Args:
        dataset: its name. labels: the names of its labels. paths: of images, if they are files.
    Raises:
        ValueError: with the reason.

    >>> refuse_people("cifar100_imb", ["object"])
    """
    for people, reason in PEOPLE.items():
        if people in _plain(dataset):
            raise ValueError(f"pictures: no image of {dataset} may be shown, because {reason}")
    if any("celeba" in _plain(path) for path in paths):
        raise ValueError(f"pictures: no image of {dataset} may be shown, because a path names celeba: {PEOPLE['celeba']}")
    faces = [label for label in labels if _plain(label) in FACE_LABELS]
    if faces:
        raise ValueError(f"pictures: no image of {dataset} may be shown, because its label {faces[0]!r} says that they are faces")


def picture_rows(
    rows: Sequence[PictureRow],
    dataset: str,
    labels: Sequence[str],
    note: str = "",
    legend: Mapping[str, str] | None = None,
) -> Figure:
    """Rows of images, each under its title, with a frame and a caption per image.

    Args:
        rows: at least one picture in all.
        dataset, labels: its name and the names of its labels, which decide whether its images may be shown.
        note: a line below.
        legend: of kinds of pictures, what to say in place of the text of `KINDS`.
    Raises:
        ValueError: the images may not be shown (`refuse_people`), or there is none.
    """
    refuse_people(dataset, labels)
    rows = [row for row in rows if row.pictures]
    require("picture_rows: rows", rows, "a picture")
    columns = max(4, *(len(row.pictures) for row in rows))
    side = WIDTH / columns
    texts = [fitted(row.title, WIDTH - 0.2, FONT) for row in rows]
    lines = [max(_caption(picture, side).count("\n") + 1 for picture in row.pictures) for row in rows]
    heights = [
        side + 0.19 * lines_of_row + 0.22 * (text.count("\n") + 1) for lines_of_row, text in zip(lines, texts, strict=True)
    ]
    if note:
        # A row of its own: the layout of rows does not keep a place for a text of the figure.
        heights.append(0.22 * (fitted(note, WIDTH, FONT - 1).count("\n") + 1))
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(heights), 1, height_ratios=heights))
    for part, row, text in zip(parts, rows, texts, strict=False):
        part.suptitle(text, fontsize=FONT, x=0.01, ha="left", parse_math=False)
        panels = np.atleast_1d(part.subplots(1, columns))
        for index, panel in enumerate(panels):
            panel.set_visible(index < len(row.pictures))
            if index < len(row.pictures):
                _draw(panel, row.pictures[index], side)
    if note:
        parts[-1].text(0.5, 0.5, fitted(note, WIDTH, FONT - 1), ha="center", va="center", fontsize=FONT - 1, parse_math=False)
    texts_of = {kind: text for kind, (_, _, text) in KINDS.items()} | dict(legend or {})
    kinds = dict.fromkeys(picture.kind for row in rows for picture in row.pictures)
    frames = {kind: {"color": KINDS[kind][0], "linestyle": KINDS[kind][1], "linewidth": 3} for kind in kinds}
    add_legend(figure, [Line2D([], [], label=texts_of[kind], **frame) for kind, frame in frames.items()])
    return figure


def _draw(panel: Axes, picture: Picture, side: float) -> None:
    colour, line, _ = KINDS[picture.kind]
    panel.imshow(picture.image, interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set(color=colour, linewidth=3, linestyle=line)
    panel.set_xlabel(_caption(picture, side), fontsize=FONT - 1, parse_math=False)


def _caption(picture: Picture, side: float) -> str:
    return fitted(picture.caption, side, FONT - 1)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", str(name)).lower()
