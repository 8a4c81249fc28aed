"""The embedded dataset: real handwritten digits composed into small colour images with five labels, power-law imbalanced.

Needs no download: the digits are the 1,797 of scikit-learn (UCI Optical Recognition of Handwritten Digits, 8x8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crl_tf.datasets.source import SPLITS, Dataset, Split
from crl_tf.imbalance import power_law_counts
from crl_tf.schema import Attribute, AttributeSchema

SIZE = 32
SAMPLES = {"train": 10_000, "validation": 960, "test": 3_000}
DIGIT_SHARES = (0.6, 0.2, 0.2)
"""The share of the digits' images that each split is composed of."""
CHUNK = 500
"""Images composed at a time, so that the intermediate arrays fit into the processor's cache."""


@dataclass(frozen=True)
class _Label:
    """A label, its classes from frequent to rare, and its training sizes: the rarest class and the law's exponent."""

    name: str
    classes: tuple[str, ...]
    smallest: int
    gamma: float


# Rare inks lie between frequent ones on the colour circle, so that a network loses little by confusing them.
HUES = {
    "red": 0,
    "green": 120,
    "blue": 240,
    "yellow": 60,
    "violet": 300,
    "cyan": 180,
    "orange": 30,
    "azure": 210,
    "lime": 90,
    "rose": 330,
    "mint": 150,
    "indigo": 270,
}
PLACES = {"upper left": (6, 6), "upper right": (6, 25), "lower left": (25, 6), "lower right": (25, 25)}
STROKES = {"slash": -45.0, "backslash": 45.0}
LABELS = (
    _Label("digit", tuple("0123456789"), smallest=100, gamma=2.0),
    _Label("ink", tuple(HUES), smallest=5, gamma=4.0),
    _Label("small_digit", tuple("3805917264"), smallest=25, gamma=3.0),
    _Label("place", tuple(PLACES), smallest=2_500, gamma=1.0),
    _Label("stroke", tuple(STROKES), smallest=50, gamma=1.0),
)


def load_handwriting(data_dir: str | None = None, *, seed: int = 0) -> Dataset:
    """Handwritten digits composed into colour images, uint8 [n, 32, 32, 3], with five labels of 2 to 12 classes.

    The labels: `digit` (10), the value of the large digit; `ink` (12), its colour; `small_digit` (10) and `place` (4), value
    and corner of a small digit; `stroke` (2), how the thin stroke across the image slants. Each is drawn independently of
    the others. Training sizes follow f(i) = a / (i^gamma + b) (Sec. 4.3), from 1:1 (`place`) to past 1:1,000 (`ink`).

    Training, validation and test (10,000 / 960 / 3,000 images) are composed of different images of digits. Unlike training,
    validation and test hold *equally many images of every class*, so that the sensitivity of the rarest class is measured on 250
    test images and not on one.

    Args:
        data_dir: must be None; the dataset is embedded.
        seed: of everything; the same seed gives the same images.
    """
    if data_dir is not None:
        raise ValueError(f"handwriting: data_dir must be None, the dataset is embedded; received {data_dir!r}")
    from sklearn.datasets import load_digits

    digits = load_digits()
    glyphs = (digits.images / 16.0).astype(np.float32)
    rng = np.random.default_rng(seed)
    schema = AttributeSchema(tuple(Attribute(label.name, label.classes) for label in LABELS))
    splits = {}
    for split, pool in zip(SPLITS, split_digits(digits.target, rng), strict=True):
        labels = _draw_labels(split, rng)
        members = [pool[digits.target[pool] == value] for value in range(10)]
        chunks = [_compose(glyphs, members, labels[i : i + CHUNK], rng) for i in range(0, len(labels), CHUNK)]
        splits[split] = Split(np.concatenate(chunks), labels)
    return Dataset("handwriting", schema, splits)


def split_digits(values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Disjoint indices of digits for train, validation and test; each value is divided by `DIGIT_SHARES`."""
    pools: list[list[np.ndarray]] = [[], [], []]
    for value in range(10):
        members = rng.permutation(np.flatnonzero(values == value))
        ends = np.rint(np.cumsum(DIGIT_SHARES[:-1]) * len(members)).astype(int)
        for pool, part in zip(pools, np.split(members, ends), strict=True):
            pool.append(part)
    return [np.sort(np.concatenate(pool)) for pool in pools]


def training_sizes(num_classes: int, total: int, smallest: int, gamma: float) -> np.ndarray:
    """Power-law class sizes of a given sum, to which the largest class is adjusted."""
    low, high = smallest, total
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (low, middle - 1) if power_law_counts(num_classes, gamma, middle, smallest).sum() > total else (middle, high)
    sizes = power_law_counts(num_classes, gamma, low, smallest)
    sizes[0] += total - sizes.sum()
    return sizes


def _draw_labels(split: str, rng: np.random.Generator) -> np.ndarray:
    """int32 [n, L]: power law in training, uniform elsewhere; columns shuffled independently."""
    total = SAMPLES[split]
    columns = []
    for label in LABELS:
        k = len(label.classes)
        sizes = training_sizes(k, total, label.smallest, label.gamma) if split == "train" else np.full(k, total // k)
        columns.append(rng.permutation(np.repeat(np.arange(k), sizes)))
    return np.stack(columns, axis=1).astype(np.int32)


def _compose(glyphs: np.ndarray, members: list[np.ndarray], labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Paints background, clutter, stroke and the two digits, back to front; uint8 [n, 32, 32, 3]."""
    # Colour planes come first until the end, because NumPy is faster with a long last axis.
    n = len(labels)
    digit, ink, small, place, stroke = labels.T

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, (n, *shape)).astype(np.float32)

    def draw(values: np.ndarray) -> np.ndarray:
        # One vector of the members of all values; an offset selects within those of one value.
        lengths = np.array([len(m) for m in members])
        offsets = (rng.random(n) * lengths[values]).astype(np.int64)
        return glyphs[np.concatenate(members)[(np.cumsum(lengths) - lengths)[values] + offsets]]

    small_values = np.array([int(v) for v in LABELS[2].classes])[small]
    hues = np.array(list(HUES.values()), np.float32)[ink] + uniform(-11, 11)
    corners = np.array(list(PLACES.values()), np.float32)[place] + uniform(-1.5, 1.5, 2)
    slants = np.array(list(STROKES.values()), np.float32)[stroke] + uniform(-15, 15)

    image = _enlarge(uniform(0.0, 0.55, 3, 4, 4))
    # Clutter: a pale piece of some digit in some colour, like the digits that count but fainter.
    clutter = _place(glyphs[rng.choice(np.concatenate(members), n)], uniform(4, 28, 2), uniform(1.0, 2.2), uniform(-90, 90))
    image = _paint(image, clutter * uniform(0.15, 0.5, 1, 1), _colour(uniform(0, 360), uniform(0.4, 1), uniform(0.4, 1)))
    line = _line(uniform(9, 23, 2), slants, uniform(4, 7))
    image = _paint(image, line * uniform(0.55, 0.9, 1, 1), _colour(uniform(0, 360), uniform(0, 0.6), uniform(0.6, 1)))
    large = _place(draw(digit), 15.5 + uniform(-2.5, 2.5, 2), uniform(1.9, 2.5), uniform(-15, 15))
    image = _paint(image, large * uniform(0.75, 1, 1, 1), _colour(hues, uniform(0.55, 1), uniform(0.65, 1)))
    little = _place(draw(small_values), corners, uniform(1.15, 1.4), uniform(-12, 12))
    image = _paint(image, little * uniform(0.8, 1, 1, 1), _colour(uniform(0, 360), uniform(0.0, 0.5), uniform(0.75, 1)))
    image += 0.06 * rng.standard_normal(image.shape, np.float32)
    return np.ascontiguousarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1))


def _paint(image: np.ndarray, opacity: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Covers images [n, 3, 32, 32] with one colour each, [n, 3], by opacity [n, 32, 32]."""
    return image + opacity[:, np.newaxis] * (colour[:, :, np.newaxis, np.newaxis] - image)


def _colour(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Red, green, blue in [0, 1], [n, 3], of hues in degrees."""
    sector = (np.array([5, 3, 1], np.float32) + hue[:, np.newaxis] / 60) % 6
    dip = np.clip(np.minimum(sector, 4 - sector), 0, 1)
    return (value[:, np.newaxis] * (1 - saturation[:, np.newaxis] * dip)).astype(np.float32)


def _centred_grid(centres: np.ndarray, degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every pixel relative to a centre, rotated; each [n, 32, 32]."""
    pixels = np.arange(SIZE, dtype=np.float32)
    y = pixels[np.newaxis, :, np.newaxis] - centres[:, 0, np.newaxis, np.newaxis]
    x = pixels[np.newaxis, np.newaxis, :] - centres[:, 1, np.newaxis, np.newaxis]
    angle = np.deg2rad(degrees)[:, np.newaxis, np.newaxis]
    return y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)


def _place(glyphs: np.ndarray, centres: np.ndarray, scale: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Each 8x8 glyph enlarged, rotated and placed at its centre, bilinear, on [n, 32, 32]."""
    y, x = (3.5 + c / scale[:, np.newaxis, np.newaxis] for c in _centred_grid(centres, degrees))
    return _sample(glyphs, y, x)


def _sample(grids: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear values of grids [n, h, w] at (y, x) [n, 32, 32]; 0 outside."""
    padded = np.pad(grids, ((0, 0), (1, 1), (1, 1)))
    n, height, width = padded.shape
    y, x = np.clip(y + 1, 0, height - 1.001), np.clip(x + 1, 0, width - 1.001)
    row, column = y.astype(np.int32), x.astype(np.int32)
    dy, dx = y - row.astype(np.float32), x - column.astype(np.float32)
    flat = padded.reshape(-1)
    at = (np.arange(n) * height * width)[:, np.newaxis, np.newaxis] + row * width + column
    upper = flat[at] * (1 - dx) + flat[at + 1] * dx
    lower = flat[at + width] * (1 - dx) + flat[at + width + 1] * dx
    return upper * (1 - dy) + lower * dy


def _line(centres: np.ndarray, degrees: np.ndarray, half_length: np.ndarray) -> np.ndarray:
    """A stroke about 1.5 pixels wide, soft-edged, on [n, 32, 32]; positive degrees fall to the right."""
    across, along = _centred_grid(centres, degrees)
    return np.clip(1.3 - np.abs(across), 0, 1) * np.clip(half_length[:, np.newaxis, np.newaxis] - np.abs(along), 0, 1)


def _enlarge(coarse: np.ndarray) -> np.ndarray:
    """[..., 4, 4] to [..., 32, 32] by linear interpolation along each axis."""
    weights = np.maximum(0, 1 - np.abs(np.linspace(0, 3, SIZE)[:, np.newaxis] - np.arange(4))).astype(np.float32)
    return weights @ coarse @ weights.T
