"""Over-, down- and class-balanced sampling: counts by arithmetic, what is refused, and the way into the pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from crl_tf.datasets import Split
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.resampling import (
    RESAMPLING,
    MeaninglessForData,
    harsh_down_sampling_probability,
    over_sampling_copies,
    resample,
)
from crl_tf.schema import Attribute, AttributeSchema


def schema_of(*sizes):
    names = [f"label{j}" for j in range(len(sizes))]
    return AttributeSchema(tuple(Attribute(n, tuple(f"c{k}" for k in range(s))) for n, s in zip(names, sizes, strict=True)))


def column(*counts):
    """Labels [n, 1] with so many samples of class 0, 1, ...; the last number is of those not annotated."""
    values = [*range(len(counts) - 1), -1]
    return np.random.default_rng(3).permutation(np.repeat(values, counts)).astype(np.int8)[:, None]


def mixed(n=400):
    """Three labels with 2, 3 and 5 classes, a tenth not annotated; class 4 of the last does not occur."""
    rng = np.random.default_rng(5)
    columns = [rng.choice(s, n, p=p) for s, p in ((2, [0.9, 0.1]), (3, [0.7, 0.25, 0.05]), (5, [0.5, 0.3, 0.15, 0.05, 0]))]
    labels = np.stack(columns, axis=1).astype(np.int16)
    labels[rng.random(labels.shape) < 0.1] = -1
    labels[7] = -1
    return labels


def occurrences(of, j, k):
    return sum(1 for row in of if row[j] == k)


def factors(labels, rule):
    """For every sample, by loops, rule(h of its class, all h > 0 of the label) of each of its annotated labels."""
    sizes, out = labels.max(axis=0) + 1, []
    h = [[occurrences(labels, j, k) for k in range(size)] for j, size in enumerate(sizes)]
    for row in labels:
        out.append([rule(h[j][a], [c for c in h[j] if c]) for j, a in enumerate(row) if a >= 0])
    return out


def test_over_sampling_of_one_label_is_exact():
    labels = column(50, 20, 0, 7, 6)
    indices, summary = resample("over_sampling", labels, schema_of(4), seed=1)
    assert indices.dtype == np.int64
    drawn = labels[indices, 0]
    assert [int((drawn == k).sum()) for k in (0, 1, 2, 3, -1)] == [50, 50, 0, 50, 6]
    times = np.bincount(indices, minlength=len(labels))
    # 50 = 2 * 20 + 10 and 50 = 7 * 7 + 1: ten and one sample more often than the others.
    assert sorted(times[labels[:, 0] == 1]) == [2] * 10 + [3] * 10
    assert sorted(times[labels[:, 0] == 3]) == [7] * 6 + [8]
    assert set(times[labels[:, 0] <= 0]) == {1}
    assert "83 -> 156 images" in summary and "largest imbalance ratio 1:7.1 -> 1:1.0" in summary
    # Copies beyond the first: 30 of class 1, 43 of class 3.
    assert "label 'label0', class 'c3' (images: 7): its label 100% of them, the class 59%" in summary


def test_down_sampling_of_one_label_is_exact():
    labels = column(50, 20, 0, 7, 6)
    indices, summary = resample("down_sampling", labels, schema_of(4), seed=1)
    drawn = labels[indices, 0]
    assert [int((drawn == k).sum()) for k in (0, 1, 2, 3, -1)] == [7, 7, 0, 7, 0]
    assert len(set(indices)) == 21
    assert (
        "83 -> 21 images" in summary
        and "1:7.1 -> 1:1.0" in summary
        and "label 'label0', class 'c3' (images: 7): its label 100%" in summary
    )


def test_over_sampling_of_several_labels_by_hand():
    # h = 3, 1 and 2, 4 - of 4 and 6 samples. Sample 3: (3/1 + 4/2) / 2 = 2.5; sample 4: 4/2; sample 5: 4/4; the last, nothing.
    labels = np.array([[0, 1], [0, 1], [0, 1], [1, 0], [-1, 0], [-1, 1], [-1, -1]])
    np.testing.assert_allclose(over_sampling_copies(labels, [2, 2]), [1, 1, 1, 2.5, 2, 1, 1])
    times = [
        np.bincount(resample("over_sampling", labels, schema_of(2, 2), seed)[0], minlength=7).tolist() for seed in range(400)
    ]
    assert all(t in ([1, 1, 1, 2, 2, 1, 1], [1, 1, 1, 3, 2, 1, 1]) for t in times)
    # 400 throws of a coin: 200 with an error of 10.
    assert 160 < sum(t[3] == 3 for t in times) < 240


def test_over_sampling_of_several_labels_by_loops():
    labels = mixed()
    wanted = np.array([np.mean(f) if f else 1.0 for f in factors(labels, lambda h, all_h: max(all_h) / h)])
    times = np.stack(
        [np.bincount(resample("over_sampling", labels, schema_of(2, 3, 5), seed)[0], minlength=400) for seed in range(200)]
    )
    assert (times >= 1).all()
    assert (np.abs(times - wanted) < 1).all()
    # Rounding up is a coin's throw: an error of at most 0.5 / sqrt(200) in each mean.
    assert np.abs(times.mean(axis=0) - wanted).max() < 5 * 0.5 / np.sqrt(200)


def test_down_sampling_of_several_labels_by_loops():
    labels = mixed()
    copies = np.array([np.mean(f) if f else np.nan for f in factors(labels, lambda h, all_h: max(all_h) / h)])
    wanted = np.nan_to_num(np.minimum(1.0, copies / np.nanmean(copies)))
    assert 0 < (wanted < 1).mean() < 1
    kept = np.zeros((200, 400))
    for seed in range(200):
        indices = resample("down_sampling", labels, schema_of(2, 3, 5), seed).indices
        assert len(set(indices)) == len(indices)
        kept[seed, indices] = 1
    assert kept[:, 7].sum() == 0
    assert kept[:, wanted == 1].all()
    assert np.abs(kept.mean(axis=0) - wanted).max() < 5 * 0.5 / np.sqrt(200)


def largest_balanced(labels, j):
    """The most samples of a label that can be balanced without repeating one: the smallest class for each that occurs."""
    h = [n for n in (occurrences(labels, j, k) for k in range(labels[:, j].max() + 1)) if n]
    return len(h) * min(h)


def test_harsh_down_sampling_of_several_labels_by_loops():
    labels = mixed()
    copies = [np.mean(f) if f else 0.0 for f in factors(labels, lambda h, all_h: max(all_h) / h)]
    limits = [largest_balanced(labels, j) for j in range(3)]
    scale = min(
        limits[j] / sum(copies[i] for i in range(400) if labels[i, j] >= 0) for j in range(3)
    )  # of the label that allows the fewest
    wanted = np.array([min(1.0, scale * c) for c in copies])
    assert sum(wanted) < 0.3 * 400
    for j in range(3):
        assert sum(wanted[i] for i in range(400) if labels[i, j] >= 0) <= limits[j] + 1e-9
    kept = np.zeros((200, 400))
    for seed in range(200):
        indices, summary = resample("harsh_down_sampling", labels, schema_of(2, 3, 5), seed)
        assert len(set(indices)) == len(indices)
        kept[seed, indices] = 1
    assert kept[:, 7].sum() == 0
    assert np.abs(kept.mean(axis=0) - wanted).max() < 5 * 0.5 / np.sqrt(200)
    fewest = int(np.argmin([n / sum(copies[i] for i in range(400) if labels[i, j] >= 0) for j, n in enumerate(limits)]))
    assert f"label 'label{fewest}' decides: balanced, it has at most {limits[fewest]} images" in summary


def test_harsh_down_sampling_by_hand():
    # h = 3, 1 and 2, 2: at most 2 * 1 images of the first label; copies 2 (of 3/1 and 1), else 1: sum 5.
    labels = np.array([[0, 0], [0, 1], [0, 1], [1, 0]])
    np.testing.assert_allclose(harsh_down_sampling_probability(labels, [2, 2]), [0.4, 0.4, 0.4, 0.8])
    # A label without an annotated image, and an image without an annotation, change nothing.
    more = np.concatenate([np.concatenate([labels, np.full((4, 1), -1)], axis=1), [[-1] * 3]])
    np.testing.assert_allclose(harsh_down_sampling_probability(more, [2, 2, 2]), [0.4, 0.4, 0.4, 0.8, 0.0])
    # Balanced labels keep everything.
    assert harsh_down_sampling_probability(np.array([[0, 1], [1, 0]]), [2, 2]).tolist() == [1.0, 1.0]


def test_of_one_label_harsh_down_sampling_is_down_sampling():
    labels = column(50, 20, 7, 0)
    probability = harsh_down_sampling_probability(labels, [3])
    np.testing.assert_allclose(probability, [7 / (50, 20, 7)[k] for k in labels[:, 0]])
    with pytest.raises(MeaninglessForData, match="harsh_down_sampling needs several labels; of one label down_sampling"):
        resample("harsh_down_sampling", labels, schema_of(3), 0)


def test_class_balanced_sampling_by_loops():
    labels = mixed()
    labels = np.concatenate([labels, np.full((400, 1), -1)], axis=1)
    indices, summary = resample("class_balanced_sampling", labels, schema_of(2, 3, 5, 2), seed=0)
    epochs = np.stack([indices(epoch) for epoch in range(300)])
    assert epochs.shape == (300, 400) and epochs.dtype == np.int64
    # 1 / (C_j h_j) of each of a sample's labels, and the mean over the three labels that have annotated samples.
    wanted = [sum(f) / 3 for f in factors(labels[:, :3], lambda h, all_h: 1 / (len(all_h) * h))]
    assert sum(wanted) == pytest.approx(1)
    share = np.bincount(epochs.ravel(), minlength=400) / epochs.size
    assert np.abs(share - wanted).max() < 5 * np.sqrt(max(wanted) / epochs.size)
    assert share[7] == 0
    assert "400 -> 400 images, anew in every epoch" in summary and "all labels alike" in summary


def test_one_label_is_drawn_evenly_from_its_classes():
    labels = column(900, 90, 10, 0, 0)
    indices, _ = resample("class_balanced_sampling", labels, schema_of(4), seed=0)
    drawn = np.concatenate([labels[indices(epoch), 0] for epoch in range(30)])
    # A third of 30,000 draws each, with an error of sqrt(30,000 * 1/3 * 2/3) = 82.
    assert all(abs(int((drawn == k).sum()) - 10_000) < 4 * 82 for k in range(3))


ONE_AND_SEVERAL = [
    pytest.param(name, labels, id=f"{name}-{kind}")
    for name in RESAMPLING
    for kind, labels in (("one", column(50, 20, 7, 6)), ("several", mixed()))
    if (name, kind) != ("harsh_down_sampling", "one")
]


@pytest.mark.parametrize(("name", "labels"), ONE_AND_SEVERAL)
def test_draws_follow_from_the_seed(name, labels):
    def drawn(seed, epoch=0):
        schema = schema_of(3) if labels.shape[1] == 1 else schema_of(2, 3, 5)
        indices = resample(name, labels, schema, seed).indices
        assert callable(indices) == RESAMPLING[name].every_epoch
        return (indices(epoch) if callable(indices) else indices).tolist()

    assert drawn(4) == drawn(4) != drawn(5)
    if RESAMPLING[name].every_epoch:
        assert drawn(4, 1) == drawn(4, 1) != drawn(4, 0)


def test_the_summary_names_what_drives():
    # Copies beyond the first, halved by the two labels: 97/3 - 1 of each of 3 (94 / 2 = 47), 60/40 - 1 of each of 40 (10).
    labels = np.stack([np.arange(100) >= 97, np.arange(100) < 40], axis=1).astype(np.int32)
    summary = resample("over_sampling", labels, schema_of(2, 2), 0).summary
    assert "class 'c1' (images: 3): its label 82% of them, the class 82%" in summary  # 47 / 57
    summary = resample("down_sampling", labels, schema_of(2, 2), 0).summary
    assert "most of the need is of label 'label0', class 'c1' (images: 3): its label 82% of it" in summary
    balanced = np.array([[0], [1], [0], [1]])
    indices, summary = resample("over_sampling", balanced, schema_of(2), 0)
    assert indices.tolist() == [0, 1, 2, 3] and "nothing to balance" in summary


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match=r"resample: name must be one of \['class_bal.*received 'smote'"):
        resample("smote", column(3, 3, 0), schema_of(2), 0)
    for name in RESAMPLING:
        for nothing in (column(0, 0, 5), np.zeros((0, 1), np.int32)):
            with pytest.raises(
                ValueError, match=f"{name} needs labels with an annotated sample, received {len(nothing)} samples"
            ):
                resample(name, nothing, schema_of(2), 0)
        with pytest.raises(ValueError, match=r"label 'label0' must lie in \[-1, 1\].*received 2"):
            resample(name, np.array([[0], [2]]), schema_of(2), 0)
    # 60 classes: 1,000 of the first and one of each other make 60,000 of 1,059, 56.7 of each.
    with pytest.raises(
        ValueError, match=r"at most 50 images of one, and would make 60,000 of 1,059; .* label 'label0', class 'c1'"
    ):
        resample("over_sampling", column(1000, *[1] * 59, 0), schema_of(60), 0)
    # 1 of each of three classes stays, and 2 * 3 are wanted.
    with pytest.raises(ValueError, match=r"would leave 3 for 3 classes; the smallest is 'c2' of label 'label0', images: 1"):
        resample("down_sampling", column(50, 20, 1, 5), schema_of(3), 0)
    # Of 1,000 images one is of class 1, so 2 may stay, of two classes each of two labels.
    lonely = np.stack([np.arange(1000) == 0, np.arange(1000) % 2], axis=1).astype(np.int32)
    with pytest.raises(
        ValueError, match=r"harsh_down_sampling must leave at least 1 images per class that occurs.* 2 for 4 classes"
    ):
        resample("harsh_down_sampling", lonely, schema_of(2, 2), 0)
    # 2 and 2 are just enough.
    assert len(resample("down_sampling", column(50, 2, 0), schema_of(2), 0).indices) == 4


def epochs_of(indices, seed=3, count=2, **arguments):
    split = Split(np.zeros((60, 2, 2, 3), np.uint8), np.arange(60, dtype=np.int32)[:, None])
    pipeline = make_pipeline(
        split, **{"image_size": (2, 2), "batch_size": 7, "training": True, "seed": seed, "indices": indices, **arguments}
    )
    epochs = [np.concatenate([labels[:, 0].numpy() for _, labels in pipeline]).tolist() for _ in range(count)]
    return pipeline, epochs


@pytest.mark.parametrize("training", [True, False])
def test_a_pipeline_draws_anew_in_every_epoch(training):
    asked = []

    def draw(epoch):
        asked.append(epoch)
        return np.random.default_rng(epoch).integers(0, 60, 20)

    pipeline, epochs = epochs_of(draw, training=training)
    assert asked[0] == 0 and len(asked) == 3 and len(set(asked)) == 3
    assert pipeline.cardinality() == 3  # 20 = 7 + 7 + 6
    for epoch, seen in zip(asked[1:], epochs, strict=True):
        expected = np.random.default_rng(epoch).integers(0, 60, 20).tolist()
        assert (sorted(seen) == sorted(expected) and seen != expected) if training else seen == expected
    assert epochs_of(draw, training=training)[1] == epochs
    assert epochs_of(draw, seed=4, training=training)[1] != epochs


def test_a_drawn_epoch_is_checked():
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 59\], received 60 to 60"):
        epochs_of(lambda epoch: np.array([60]))
    with pytest.raises(ValueError, match=r"indices must be a non-empty vector of integers, received int64 \[0\]"):
        epochs_of(lambda epoch: np.array([], np.int64))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
        epochs_of(lambda epoch: np.arange(5 if epoch == 0 else 6))


def test_resampled_training_sees_every_class_alike():
    labels = column(48, 12, 0)
    split = Split(np.zeros((60, 2, 2, 3), np.uint8), labels.astype(np.int32))
    for name, least in (("over_sampling", 48), ("down_sampling", 12), ("class_balanced_sampling", 15)):
        indices = resample(name, labels, schema_of(2), seed=2).indices
        pipeline = make_pipeline(split, image_size=(2, 2), batch_size=8, training=True, indices=indices)
        seen = np.concatenate([batch[:, 0].numpy() for _, batch in pipeline])
        counts = np.bincount(seen, minlength=2)
        # 60 draws: 30 of each, with an error of 4; the others exactly.
        assert counts.min() >= least if name.startswith("class") else (counts == least).all()
