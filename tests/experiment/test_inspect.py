"""What `--mode=inspect` finds, against slow loops, enumeration and the paper's own numbers."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats.contingency import association as scipy_association

from crl_tf.datasets import Dataset, Split, load_dataset
from crl_tf.datasets.source import file_paths
from crl_tf.experiment import inspect as inspection
from crl_tf.schema import Attribute, AttributeSchema

PNG = tf.io.encode_png(np.zeros((3, 2, 3), np.uint8)).numpy()
SCHEMA = AttributeSchema((Attribute("colour", ("red", "green", "blue")), Attribute("size", ("small", "large"))))


def dataset(train, validation=((0, 0),), test=((0, 0),)):
    splits = {}
    for name, rows in (("train", train), ("validation", validation), ("test", test)):
        labels = np.array(rows, np.int32)
        images = np.random.default_rng(len(splits)).integers(0, 256, (len(labels), 4, 4, 3), dtype=np.uint8)
        splits[name] = Split(images, labels)
    return Dataset("toy", SCHEMA, splits)


def test_two_in_batch_by_enumeration():
    # Every batch of 3 of the 7 samples, the first `count` of which are of the class.
    for count in range(8):
        batches = list(itertools.combinations(range(7), 3))
        share = np.mean([sum(i < count for i in batch) >= 2 for batch in batches])
        assert inspection.two_in_batch(np.array([count]), 7, 3)[0] == pytest.approx(share, abs=1e-12)
    # A batch that takes everything.
    np.testing.assert_allclose(inspection.two_in_batch(np.array([1, 2, 5]), 7, 100), [0, 1, 1])


def test_co_occurrence_and_association_by_a_slow_loop():
    labels = np.random.default_rng(0).integers(-1, [3, 2], (9000, 2)).astype(np.int32)
    together = inspection.co_occurrence(labels, SCHEMA)
    expected = np.zeros((5, 5), int)
    for colour, size in labels:
        there = [k for k in (colour if colour >= 0 else None, 3 + size if size >= 0 else None) if k is not None]
        for a in there:
            for b in there:
                expected[a, b] += 1
    np.testing.assert_array_equal(together, expected)
    values = inspection.association(together, SCHEMA)
    assert values[0, 1] == values[1, 0] == pytest.approx(scipy_association(expected[:3, 3:], method="cramer"))
    np.testing.assert_allclose(np.diag(values), 1)


def test_an_association_without_two_classes_is_none():
    labels = np.array([[0, 0], [1, 0], [2, 0]], np.int32)
    values = inspection.association(inspection.co_occurrence(labels, SCHEMA), SCHEMA)
    assert np.isnan(values[0, 1]) and np.isnan(values[1, 1])
    assert inspection.strongest_pairs(SCHEMA, inspection.co_occurrence(labels, SCHEMA)) == []


def test_facts_of_a_label():
    train = [(0, 0)] * 6 + [(1, 1)] * 2 + [(0, -1)] * 2
    found = inspection.inspect_dataset(dataset(train, test=[(2, 0)]), batch_size=5, eta=0.5)
    colour, size = found["labels"]["colour"], found["labels"]["size"]
    # 8 red, 2 green, no blue: Omega = (0 + 6 + 8) / (3 * 8).
    assert colour["ratio"] == 4 and colour["omega"] == pytest.approx(14 / 24) and colour["alpha"] == pytest.approx(7 / 24)
    assert colour["classes"]["green"]["share"] == 0.2 and size["missing"] == {"train": 0.2, "validation": 0, "test": 0}
    # Both green in 5 of 10: C(8, 3) / C(10, 5) = 56 / 252.
    assert colour["classes"]["green"]["two_in_batch"] == pytest.approx(56 / 252)
    # Whenever both greens are in a batch of 5 they are its minority: the same share, simulated.
    assert abs(colour["classes"]["green"]["rectified"] - 56 / 252) < 4 * np.sqrt(56 / 252 * 196 / 252 / 1000)
    assert colour["classes"]["red"]["rectified"] <= colour["classes"]["red"]["two_in_batch"]
    assert found["splits"]["train"] == {"images": 10, "missing": 0.1, "smallest_class": 0, "largest_class": 8}
    said = "\n".join(found["findings"])
    assert "1 of 5 classes have no training image but stand in validation or test, and cannot be learned: colour=blue" in said
    assert "2 of 5 classes have no test image, and are not measured" not in said  # red, green, large: three
    assert "3 of 5 classes have no test image, and are not measured: colour=red, colour=green, size=large" in said
    assert "have two images in fewer than half of the batches of 5" in said
    json.dumps(found, allow_nan=False)


def test_a_label_that_nobody_annotated_and_a_class_without_an_image():
    found = inspection.inspect_dataset(dataset([(0, -1)] * 3 + [(1, -1)] * 3), batch_size=2, eta=0.1)
    assert found["labels"]["size"]["ratio"] is None and found["labels"]["size"]["alpha"] is None
    assert "no training image is annotated for size: drop the label" in found["findings"]
    assert any(s.startswith("2 of 5 classes have no image in any split: colour=blue, size=large") for s in found["findings"])
    json.dumps(found, allow_nan=False)


def test_alpha_is_clipped_and_batch_size_checked():
    found = inspection.inspect_dataset(dataset([(0, 0)] * 9 + [(1, 1)]), batch_size=4, eta=50.0)
    assert found["labels"]["size"]["alpha"] == 1.0
    with pytest.raises(ValueError, match="batch_size must be >= 1, received 0"):
        inspection.inspect_dataset(dataset([(0, 0)]), batch_size=0, eta=0.1)


def test_images_that_cannot_be_read_are_no_repeated_picture(tmp_path):
    for name, content in (("a.png", b""), ("b.png", b""), ("c.png", PNG), ("d.png", PNG), ("e.png", PNG)):
        (tmp_path / name).write_bytes(content)
    splits = {"train": "ac", "validation": "b", "test": "de"}
    splits = {
        split: Split(file_paths(f"{tmp_path}/{n}.png" for n in names), np.zeros((len(names), 2), np.int8))
        for split, names in splits.items()
    }
    found = inspection.inspect_images(Dataset("toy", SCHEMA, splits), (4, 4))
    assert [Path(image["image"]).name for image in found["unreadable"]] == ["a.png", "b.png"]
    assert [[Path(name).name for name in names] for names in found["repeated"]] == [["c.png", "d.png", "e.png"]]
    assert found["repeated_within"] == {"train": 0, "validation": 0, "test": 1}
    assert found["read"] == 5 and found["forms"] == {"PNG": 3} and found["sizes"]["median"] == [3, 2]
    said = "\n".join(found["findings"])
    assert "2 of 5 images cannot be read, the first: " in said and "a.png (an empty file" in said and "1 in test" in said


# Table 3, row "Imbalance ratio (1:x)", by the names of the publisher's list.
TABLE_3 = {
    "Attractive": 1, "Mouth_Slightly_Open": 1, "Smiling": 1, "Wearing_Lipstick": 1, "High_Cheekbones": 1, "Male": 1,
    "Heavy_Makeup": 2, "Wavy_Hair": 2, "Oval_Face": 3, "Pointy_Nose": 3, "Arched_Eyebrows": 3, "Black_Hair": 3, "Big_Lips": 3,
    "Big_Nose": 3, "Young": 4, "Straight_Hair": 4, "Brown_Hair": 4, "Bags_Under_Eyes": 4, "Wearing_Earrings": 4, "No_Beard": 5,
    "Bangs": 6, "Blond_Hair": 6, "Bushy_Eyebrows": 6, "Wearing_Necklace": 7, "Narrow_Eyes": 8, "5_o_Clock_Shadow": 8,
    "Receding_Hairline": 11, "Wearing_Necktie": 13, "Eyeglasses": 14, "Rosy_Cheeks": 14, "Goatee": 15, "Chubby": 16,
    "Sideburns": 17, "Blurry": 18, "Wearing_Hat": 19, "Double_Chin": 20, "Pale_Skin": 22, "Gray_Hair": 23, "Mustache": 24,
    "Bald": 43,
}  # fmt: skip


def test_the_full_celeba_lists_give_tables_2_and_3(real_data):
    """From the lists alone. Table 2 counts the images with an attribute, not those without, and says 19,867 test images, which is
    the size of the official validation part, though its 17,041 is of the 19,962 of the official test part, where the
    smallest is 423, printed as 432."""
    lists = load_dataset("celeba", data_dir=str(real_data / "celeba-full-lists"), check_images=False)
    found = inspection.inspect_dataset(lists, batch_size=256, eta=0.01)
    train, validation, test = found["splits"].values()
    assert train["images"] + validation["images"] + test["images"] == 202_599
    assert (train["images"], train["smallest_present"], train["largest_present"]) == (162_770, 3_713, 135_779)
    assert validation["images"] == 19_867
    assert (test["images"], test["smallest_present"], test["largest_present"]) == (19_962, 423, 17_041)
    # Table 1 and Sec. 1: 3,713 : 159,057.
    assert (train["smallest_class"], train["largest_class"]) == (3_713, 159_057)
    assert {name: round(facts["ratio"]) for name, facts in found["labels"].items()} == TABLE_3
    first = lists.splits["train"].images[0]
    said = f"none of the images is there, such as {first}: this was counted from the lists alone"
    assert inspection.inspect_images(lists, (55, 47))["findings"] == [said]
