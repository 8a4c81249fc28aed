from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from dataset_files import write_image

from crl_tf.datasets import Split, load_dataset
from crl_tf.datasets.pipeline import AUGMENTATIONS, make_pipeline


def arrays(n: int = 23, size: int = 16) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return Split(images, np.stack([np.arange(n), np.full(n, -1)], axis=1).astype(np.int32))


def run(split: Split, **arguments):
    pipeline = make_pipeline(split, **{"image_size": (16, 16), "batch_size": 4, "training": False, **arguments})
    return [(images.numpy(), labels.numpy()) for images, labels in pipeline]


def order(batches) -> list[int]:
    return np.concatenate([labels[:, 0] for _, labels in batches]).tolist()


def pixels(batches) -> np.ndarray:
    return np.concatenate([images for images, _ in batches])


def test_evaluation_keeps_order_and_pixels():
    split = arrays()
    batches = run(split)
    # 23 = 5 * 4 + 3: the smaller last batch is kept.
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 4, 3]
    np.testing.assert_array_equal(pixels(batches), split.images)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), split.labels)


def test_signature():
    pipeline = make_pipeline(arrays(), image_size=(8, 12), batch_size=5, training=True, augment=["flip", "crop"])
    assert pipeline.element_spec == (tf.TensorSpec((None, 8, 12, 3), tf.uint8), tf.TensorSpec((None, 2), tf.int32))
    assert pipeline.cardinality().numpy() == 5


def test_training_order_follows_the_seed():
    split = arrays(200)
    first, again, other = (order(run(split, training=True, seed=s)) for s in (7, 7, 8))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other) == list(range(200))


def test_every_epoch_has_an_order_of_its_own():
    def epochs():
        pipeline = make_pipeline(arrays(200), image_size=(4, 4), batch_size=50, training=True, seed=3)
        return [order([(x.numpy(), y.numpy()) for x, y in pipeline]) for _ in range(2)]

    first, second = epochs()
    assert first != second
    assert sorted(first) == sorted(second)
    assert epochs() == [first, second]


def test_shuffle_is_a_full_one():
    positions = np.array(order(run(arrays(400), training=True)))
    # Of a full shuffle the first quarter averages 199.5 with an error of 115 / sqrt(100); a small buffer would stay near 50.
    assert abs(positions[:100].mean() - 199.5) < 4 * 115 / 10


@pytest.mark.parametrize("training", [False, True])
def test_indices_select_and_repeat(training):
    split = arrays()
    batches = run(split, indices=np.array([5, 5, 2, 22, 5]), training=training)
    assert (sorted(order(batches)) if training else order(batches)) == ([2, 5, 5, 5, 22] if training else [5, 5, 2, 22, 5])
    np.testing.assert_array_equal(pixels(batches), split.images[order(batches)])


def test_augmentation_is_reproducible_and_new_in_every_epoch():
    split = arrays()

    def epochs(seed):
        arguments = {"image_size": (16, 16), "batch_size": 4, "training": True, "seed": seed, "augment": ["flip", "crop"]}
        pipeline = make_pipeline(split, **arguments)
        epochs = [[(x.numpy(), y.numpy()) for x, y in pipeline] for _ in range(2)]
        # In the order of the samples, so that only the augmentation can differ.
        return [pixels(e)[np.argsort(order(e))] for e in epochs]

    first, second = epochs(1)
    np.testing.assert_array_equal(epochs(1), [first, second])
    assert (first != second).any(axis=(1, 2, 3)).mean() > 0.5
    assert (epochs(2)[0] != first).any(axis=(1, 2, 3)).mean() > 0.5


def test_augmentation_is_for_training_only():
    split = arrays()
    np.testing.assert_array_equal(pixels(run(split, augment=["flip", "crop"])), split.images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flip_mirrors_about_half(dtype):
    images = arrays(200).images.astype(dtype)
    flipped = AUGMENTATIONS["flip"](tf.constant(images), tf.constant([1, 2], tf.int64)).numpy()
    assert flipped.dtype == dtype
    same = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    # 200 throws of a coin: 100 with an error of 7.
    assert 100 - 4 * 7 < mirrored.sum() < 100 + 4 * 7


def test_crop_shifts_by_at_most_an_eighth():
    # No black of their own.
    images = np.maximum(arrays(300).images, 1)
    cropped = AUGMENTATIONS["crop"](tf.constant(images), tf.constant([1, 2], tf.int64)).numpy()
    assert cropped.dtype == np.uint8
    # 16 pixels: a margin of 2 on every side, hence 5 * 5 places.
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    shifts = [(y, x) for y in range(5) for x in range(5)]
    hits = np.array([(cropped == padded[:, y : y + 16, x : x + 16]).all(axis=(1, 2, 3)) for y, x in shifts])
    assert (hits.sum(0) == 1).all()
    assert (hits.sum(1) > 0).all()


def test_files_jpeg_and_png(tmp_path):
    gradient = np.broadcast_to(np.linspace(0, 250, 40)[:, np.newaxis, np.newaxis], (40, 40, 3)).astype(np.uint8)
    paths = [tmp_path / "a.png", tmp_path / "b.jpg"]
    for path in paths:
        write_image(path, gradient)
    gray = tmp_path / "gray.png"
    gray.write_bytes(tf.io.encode_png(tf.constant(gradient[..., :1])).numpy())
    split = Split(np.array([str(p) for p in [*paths, gray]]), np.array([[0], [1], [-1]], np.int32))
    images, labels = run(split, image_size=(40, 40))[0]
    assert labels.tolist() == [[0], [1], [-1]]
    np.testing.assert_array_equal(images[0], gradient)
    np.testing.assert_allclose(images[1], gradient, atol=4)
    np.testing.assert_array_equal(images[2], gradient)


def test_shrinking_is_antialiased():
    # Stripes one pixel wide: averaged they are gray, subsampled they would stay black and white.
    stripes = np.zeros((1, 32, 32, 3), np.uint8)
    stripes[:, :, ::2] = 255
    images, _ = run(Split(stripes, np.zeros((1, 1), np.int32)), image_size=(8, 8))[0]
    np.testing.assert_allclose(images, 127.5, atol=10)


def test_sizes_differ_between_files(tmp_path):
    for name, shape in (("a.png", (9, 5, 3)), ("b.png", (30, 40, 3))):
        write_image(tmp_path / name, np.full(shape, 77))
    split = Split(np.array([str(tmp_path / n) for n in ("a.png", "b.png")]), np.zeros((2, 1), np.int32))
    np.testing.assert_array_equal(run(split, image_size=(12, 7))[0][0], np.full((2, 12, 7, 3), 77))


@pytest.mark.parametrize("damage", ["truncated", "no image", "empty"])
def test_unreadable_image_is_named(tmp_path, damage):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    for name in ("good.jpg", "broken.jpg"):
        write_image(tmp_path / name, noise)
    content = (tmp_path / "broken.jpg").read_bytes()
    (tmp_path / "broken.jpg").write_bytes({"truncated": content[:700], "no image": b"hello", "empty": b""}[damage])
    split = Split(np.array([str(tmp_path / n) for n in ("good.jpg", "broken.jpg")]), np.zeros((2, 1), np.int32))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"unreadable image: .*broken\.jpg"):
        run(split)


def test_missing_image_is_named(tmp_path):
    split = Split(np.array([str(tmp_path / "gone.jpg")]), np.zeros((1, 1), np.int32))
    with pytest.raises(tf.errors.NotFoundError, match=r"gone\.jpg"):
        run(split)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be a positive integer, received 0"),
        ({"batch_size": 2.5}, r"batch_size must be a positive integer, received 2\.5"),
        ({"image_size": (0, 16)}, r"image_size must be two positive integers \(height, width\), received \(0, 16\)"),
        ({"image_size": (16, 16, 3)}, r"image_size must be two positive integers"),
        (
            {"augment": ["flip", "rotate"]},
            r"augment must be a list of names among \['crop', 'flip'\], received \['flip', 'rotate'\]",
        ),
        ({"augment": "flip"}, r"augment must be a list of names .*received 'flip'"),
        ({"indices": np.array([0, 23])}, r"indices must lie in \[0, 22\], received 0 to 23"),
        ({"indices": np.array([-1])}, r"indices must lie in \[0, 22\], received -1 to -1"),
        ({"indices": np.array([0.0])}, r"indices must be a non-empty vector of integers, received float64 \[1\]"),
        ({"indices": np.array([], np.int64)}, r"indices must be a non-empty vector of integers, received int64 \[0\]"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(arrays(), **arguments)


def test_the_array_is_not_in_the_graph():
    """A hundred copies of CIFAR-100 in a graph would not fit: the serialised pipeline must not grow with the images."""
    split = Split(np.zeros((2000, 16, 16, 3), np.uint8), np.zeros((2000, 1), np.int32))
    pipeline = make_pipeline(split, image_size=(16, 16), batch_size=4, training=True, augment=["flip"])
    stages, functions = [pipeline], []
    for stage in stages:
        stages.extend(stage._inputs())
        functions.extend(stage._functions())
    assert len(functions) >= 2
    # The images are 1.5 MB; a function's graph is a few kB.
    assert max(len(f.function.graph.as_graph_def().SerializeToString()) for f in functions) < 100_000


def test_real_images_decode(real_data):
    dataset = load_dataset("attribute_csv", data_dir=str(real_data / "fashion_product"))
    images, labels = run(dataset.splits["train"], indices=np.arange(0, 15555, 250), image_size=(80, 60), batch_size=63)[0]
    assert images.shape == (63, 80, 60, 3)
    # Products on white ground.
    assert images.max() > 250
    assert np.median(images) > 200
    np.testing.assert_array_equal(labels, dataset.splits["train"].labels[::250])
