"""What trained models make of single images: features, hard samples, decisions that change (Figs. 2, 5, 7 and 9).

Scores are the softmax over the classes of a label (eq. 1). Indices of images count within a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from crl_tf.crl_model import CRLModel
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.decision import rule_offsets
from crl_tf.experiment.assemble import Parts, assemble
from crl_tf.experiment.data import Data
from crl_tf.experiment.workdir import CONFIG, MODEL, RESULT, config_in
from crl_tf.files import read_json
from crl_tf.imbalance import class_counts
from crl_tf.layout import Layout, log_probabilities
from crl_tf.progress import SILENT, Progress
from paper.figures import FeatureMap
from paper.pictures import PEOPLE_CLASSES, Picture, PictureRow, refuse_people

SHOWN_SIZE = 160
"""Pixels of the longer side of an image that is shown from a file, at most."""


class Outputs(NamedTuple):
    """What a trained model makes of the images of a split; n images, L labels.

    name: of the method. labels: int32 [n, L], -1 = not annotated. scores: float32 [n, sum(num_classes)]. decisions: int64 [n, L],
    by the decision rule of the run. features: float32 [n, D] or [n, L, D]; None where the model has none.
    """

    name: str
    data: Data
    split: str
    labels: np.ndarray
    scores: np.ndarray
    decisions: np.ndarray
    features: np.ndarray | None

    def counts(self, label: str) -> np.ndarray:
        """Training images per class of a label."""
        return self.data.counts[self.place(label)]

    def place(self, label: str) -> int:
        names = self.data.dataset.schema.names
        if label not in names:
            raise ValueError(f"label must be one of {list(names)}, received {label!r}")
        return list(names).index(label)

    def scores_of(self, label: str) -> np.ndarray:
        """float32 [n, classes of the label]."""
        return self.scores[:, self.data.dataset.schema.columns(label)]

    def truth(self, label: str) -> np.ndarray:
        """int32 [n]."""
        return self.labels[:, self.place(label)]

    def features_of(self, label: str) -> np.ndarray:
        """float32 [n, D].

        Raises:
            ValueError: the model has no features.
        """
        if self.features is None:
            raise ValueError(f"features: a model of {self.name} has none: its network yields decisions only")
        return self.features if self.features.ndim == 2 else self.features[:, self.place(label)]

    def classes(self, label: str) -> tuple[str, ...]:
        return self.data.dataset.schema.attributes[self.place(label)].classes


def outputs_of(folders: Sequence[Path], split: str = "test", progress: Progress = SILENT) -> list[Outputs]:
    """Runs the model of each finished run on a split of its data; runs with the same data share them.

    Args:
        folders: each with config.json, result.json and model.keras.
        split: train, validation or test.
    """
    outputs: list[Outputs] = []
    before: tuple[Parts, Data] | None = None
    for folder in map(Path, folders):
        parts = assemble(config_in(folder, CONFIG))
        same = before is not None and before[0].data_settings == parts.data_settings
        data = before[1] if same else parts.load(use_cache=False, progress=progress)
        before = parts, data
        outputs.append(_outputs(folder, data, split, progress))
    return outputs


def _outputs(folder: Path, data: Data, split: str, progress: Progress) -> Outputs:
    model, result = keras.saving.load_model(folder / MODEL), read_json(folder / RESULT)
    layout = Layout.of(data.dataset.schema.num_classes)
    rule = result.get("rule", "argmax")
    strengths = result["rules"][rule]["strengths"] if "rules" in result else dict.fromkeys(data.dataset.schema.names, 0.0)
    offsets = rule_offsets(rule, data.counts, list(strengths.values()))
    network = model.network if isinstance(model, CRLModel) else None

    @tf.function(reduce_retracing=True)
    def compute(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = {"logits": model(images, training=False)} if network is None else network(images, training=False)
        logits = outputs["logits"]
        scores = tf.transpose(tf.exp(log_probabilities(logits, layout)))
        decided = tf.argmax(layout.pad(logits + offsets, -np.inf), axis=-1)
        return {"scores": scores, "decisions": decided} | ({} if network is None else {"features": outputs["features"]})

    batches = data.batches(split)
    parts = [compute(images) for images, _ in progress.track(batches, f"running {result['method']}", int(batches.cardinality()))]
    arrays = {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
    labels = np.asarray(data.dataset.splits[split].labels)
    return Outputs(result["method"], data, split, labels, arrays["scores"], arrays["decisions"], arrays.get("features"))


def choose_classes(
    counts: Sequence[int], present: Sequence[int], rare: int = 1, frequent: int = 2, hidden: Sequence[int] = ()
) -> list[int]:
    """The classes that a figure shows: those with the most training images, then those with the fewest; ties by index.

    Args:
        counts: training images per class.
        present: images per class in the split that is shown. A class without one there, or in training, is not chosen.
        rare, frequent: how many of each, at most; of few classes the frequent ones give way.
        hidden: classes that must not be shown.
    Returns:
        frequent classes, the most frequent first, then rare ones, the rarest last.
    """
    known = [k for k in range(len(counts)) if counts[k] > 0 and present[k] > 0 and k not in hidden]
    by_count = sorted(known, key=lambda k: (counts[k], k))
    rarest = by_count[:rare]
    return sorted(by_count[rare:], key=lambda k: (-counts[k], k))[:frequent] + rarest[::-1]


def rare_and_frequent(outputs: Outputs, label: str, rare: int, frequent: int) -> list[int]:
    """`choose_classes` of a label, without classes whose images must not be shown."""
    names = outputs.classes(label)
    present = class_counts(outputs.labels, outputs.data.dataset.schema.num_classes)[outputs.place(label)]
    return choose_classes(outputs.counts(label), present, rare, frequent, hidden_classes(names))


def hidden_classes(names: Sequence[str]) -> list[int]:
    """The indices of the classes whose images show people."""
    return [index for index, name in enumerate(names) if name.lower() in PEOPLE_CLASSES]


def feature_map(
    outputs: Outputs, label: str, classes: Sequence[int], title: str, method: str = "pca", seed: int = 0
) -> FeatureMap:
    """The features of the images of a few classes in two dimensions (Fig. 2).

    Below the title it says how often the nearest neighbour of an image, among the images shown and by Euclidean distance of all
    features, is of its own class: of the rarest class, the last of `classes`, and of the others.

    Args:
        classes: as `choose_classes` returns them; their places are the colours.
        method: "pca", or "tsne" (scikit-learn; started from PCA, the same for the same seed).
    Raises:
        ValueError: fewer than 3 images of these classes, or another method.
    """
    truth = outputs.truth(label)
    shown = np.flatnonzero(np.isin(truth, classes))
    if shown.size < 3:
        raise ValueError(f"feature_map: classes must have 3 images or more in the split {outputs.split}, received {shown.size}")
    features = np.asarray(outputs.features_of(label)[shown], np.float64)
    places = np.array([list(classes).index(c) for c in truth[shown]])
    if method == "pca":
        pca = PCA(n_components=2, random_state=seed).fit(features)
        points, shares = pca.transform(features), pca.explained_variance_ratio_
        names = [f"PCA {number} ({100 * share:.0f} % of the variance)" for number, share in enumerate(shares, 1)]
    elif method == "tsne":
        tsne = TSNE(n_components=2, perplexity=min(30.0, (shown.size - 1) / 3), init="pca", random_state=seed)
        points, names = tsne.fit_transform(features), ["t-SNE 1", "t-SNE 2"]
    else:
        raise ValueError(f"feature_map: method must be pca or tsne, received {method!r}")
    neighbour = NearestNeighbors(n_neighbors=1).fit(features).kneighbors(return_distance=False)[:, 0]
    own, rarest = places[neighbour] == places, places == len(classes) - 1
    texts = [f"{name} {100 * own[of].mean():.0f} %" for name, of in (("rarest", rarest), ("others", ~rarest)) if of.any()]
    return FeatureMap(f"{title}\nneighbour of own class: {', '.join(texts)}", points, places, (names[0], names[1]))


def hardest_of_class(outputs: Outputs, label: str, of_class: int) -> tuple[np.ndarray, np.ndarray]:
    """All positives of a class, lowest score first, and all negatives, highest score first (eqs. 4, 5); ties by lower index."""
    truth, scores = outputs.truth(label), outputs.scores_of(label)[:, of_class]
    positives, negatives = np.flatnonzero(truth == of_class), np.flatnonzero((truth >= 0) & (truth != of_class))
    return (
        positives[np.argsort(scores[positives], kind="stable")],
        negatives[np.argsort(-scores[negatives], kind="stable")],
    )


def hardest_of_anchor(outputs: Outputs, label: str, anchor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All positives of an image, farthest first, and all negatives, nearest first (eqs. 6, 7); ties by lower index.

    Returns:
        positives, negatives, and the Euclidean distance of every image from the anchor, [n].
    """
    truth, features = outputs.truth(label), np.asarray(outputs.features_of(label), np.float64)
    distances = np.linalg.norm(features - features[anchor], axis=1)
    positives = np.flatnonzero((truth == truth[anchor]) & (np.arange(truth.size) != anchor))
    negatives = np.flatnonzero((truth >= 0) & (truth != truth[anchor]))
    return (
        positives[np.argsort(-distances[positives], kind="stable")],
        negatives[np.argsort(distances[negatives], kind="stable")],
        distances,
    )


def mined_rows(outputs: Outputs, label: str, classes: Sequence[int], level: str = "class", shown: int = 2) -> list[PictureRow]:
    """The hardest samples of rare classes, among all images of the split, by the trained model (Fig. 5).

    Training mines within a batch, by the model of that step; this looks at the whole split.

    Args:
        classes: indices, a row each.
        level: "class"; or "instance", where the anchor is the image of the class with the lowest index.
        shown: hard positives per row, and as many hard negatives.
    Raises:
        ValueError: images that may not be shown (`paper.pictures.refuse_people`), or another level.
    """
    if level not in ("class", "instance"):
        raise ValueError(f"mined_rows: level must be class or instance, received {level!r}")
    names, truth, rows = outputs.classes(label), outputs.truth(label), []
    allowed = ~np.isin(truth, hidden_classes(names))
    for of_class in classes:
        members = np.flatnonzero((truth == of_class) & allowed)
        if not members.size:
            continue
        pictures: list[tuple[int, str, str]] = []
        if level == "class":
            positives, negatives = hardest_of_class(outputs, label, of_class)
            texts = [f"score {score:.2g}" for score in outputs.scores_of(label)[:, of_class]]
        else:
            positives, negatives, distances = hardest_of_anchor(outputs, label, int(members[0]))
            texts = [f"distance {distance:.2g}" for distance in distances]
            pictures.append((int(members[0]), "", "anchor"))
        pictures += [(i, texts[i], "positive") for i in positives[:shown]]
        pictures += [(i, f"{texts[i]}\n{names[truth[i]]}", "negative") for i in negatives[allowed[negatives]][:shown]]
        rows.append(_row(outputs, f"{names[of_class]} ({outputs.counts(label)[of_class]:,} training images)", pictures))
    return rows


class Changes(NamedTuple):
    """Images of a split that two models decide differently; indices, those first whose score of the truth changes most.

    corrected: wrong before and right after. broken: right before and wrong after.
    """

    corrected: np.ndarray
    broken: np.ndarray


def changed_decisions(before: Outputs, after: Outputs, label: str) -> Changes:
    """Which annotated images a second model decides right and the first one wrong, and the other way round (Figs. 7 and 9).

    Raises:
        ValueError: the two do not have the same labels.
    """
    if before.split != after.split or not np.array_equal(before.labels, after.labels):
        raise ValueError(f"changed_decisions: {before.name} and {after.name} must have the same labels, theirs differ")
    truth, place = before.truth(label), before.place(label)
    known = np.flatnonzero(truth >= 0)
    rise = np.zeros(truth.size)
    rise[known] = (after.scores_of(label) - before.scores_of(label))[known, truth[known]]
    was, is_now = ((of.decisions[:, place] == truth) & (truth >= 0) for of in (before, after))
    corrected, broken = np.flatnonzero(~was & is_now), np.flatnonzero(was & ~is_now)
    return Changes(corrected[np.argsort(-rise[corrected], kind="stable")], broken[np.argsort(rise[broken], kind="stable")])


def changed_rows(before: Outputs, after: Outputs, label: str, classes: Sequence[int], shown: int = 2) -> list[PictureRow]:
    """Images of rare classes that the second model decides right and the first wrong, and the other way round.

    Args:
        classes: indices, a row each.
        shown: images that became right per row, and as many that became wrong.
    Raises:
        ValueError: images that may not be shown (`paper.pictures.refuse_people`).
    """
    changes = changed_decisions(before, after, label)
    names, truth, place, rows = before.classes(label), before.truth(label), before.place(label), []
    for of_class in classes:
        if of_class in hidden_classes(names):
            continue
        right, wrong = (of[truth[of] == of_class] for of in changes)
        pictures = [(i, f"was {names[before.decisions[i, place]]}", "right") for i in right[:shown]]
        pictures += [(i, f"now {names[after.decisions[i, place]]}", "wrong") for i in wrong[:shown]]
        size = f"{before.counts(label)[of_class]:,} in training"
        title = f"{names[of_class]} ({size}): {right.size} of {(truth == of_class).sum():,} become right, {wrong.size} wrong"
        rows.append(_row(before, title, pictures))
    return rows


def _row(outputs: Outputs, title: str, pictures: Sequence[tuple[int, str, str]]) -> PictureRow:
    images = images_of(outputs.data, outputs.split, [index for index, _, _ in pictures])
    return PictureRow(title, [Picture(image, text, kind) for image, (_, text, kind) in zip(images, pictures, strict=True)])


def images_of(data: Data, split: str, indices: Sequence[int]) -> list[np.ndarray]:
    """The images of a split to be shown, uint8 [H, W, 3]: of files in their own shape, `SHOWN_SIZE` at most.

    Raises:
        ValueError: images that may not be shown (`paper.pictures.refuse_people`).
    """
    samples = data.dataset.splits[split].take(np.asarray(indices, np.int64))
    paths = [str(path) for path in samples.images] if samples.in_files else []
    refuse_people(data.dataset.name, data.dataset.schema.names, paths)
    if not len(samples):
        return []
    if samples.in_files:
        return [_shrunk(path) for path in paths]
    size = samples.images.shape[1:3] if samples.decoded else data.image_size
    batches = make_pipeline(samples, image_size=size, batch_size=len(samples), training=False)
    return list(next(iter(batches))[0].numpy())


def _shrunk(path: str) -> np.ndarray:
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    upright.thumbnail((SHOWN_SIZE, SHOWN_SIZE))
    return np.asarray(upright)
