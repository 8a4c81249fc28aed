from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from crl_tf.datasets import load_dataset
from crl_tf.datasets.sources import celeba


def load(folder: Path):
    return load_dataset("celeba", data_dir=str(folder))


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_official_partition(celeba_dir):
    dataset = load(celeba_dir)
    assert dataset.schema.names == ("Bald", "Smiling")
    assert all(a.classes == ("absent", "present") for a in dataset.schema.attributes)
    found = {
        name: {Path(image).name: tuple(row.tolist()) for image, row in zip(split.images, split.labels, strict=True)}
        for name, split in dataset.splits.items()
    }
    # The fixture: even numbers are bald, those above 4 smile.
    assert found == {
        "train": {"000001.jpg": (0, 0), "000002.jpg": (1, 0), "000003.jpg": (0, 0)},
        "validation": {"000004.jpg": (1, 0)},
        "test": {"000005.jpg": (0, 1), "000006.jpg": (1, 1)},
    }
    assert all(Path(image).is_file() for split in dataset.splits.values() for image in split.images)


def test_images_that_no_list_names_are_left_alone(celeba_dir):
    (celeba_dir / "img_align_celeba" / "999999.jpg").write_bytes(b"")
    assert sum(len(s) for s in load(celeba_dir).splits.values()) == 6


def test_missing_images_are_counted(celeba_dir):
    for name in ("000003.jpg", "000005.jpg"):
        (celeba_dir / "img_align_celeba" / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of 6 listed images are missing in .*, the first: 00000[35]\.jpg"):
        load(celeba_dir)


def test_missing_list(celeba_dir):
    (celeba_dir / "list_eval_partition.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks list_eval_partition\.txt$"):
        load(celeba_dir)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "6\n", "7\n", r"list_attr.*the first line says 7 images, but 6 follow: the file is cut off"),
        ("list_attr_celeba.txt", "6\n", "5\n", r"the first line says 5 images, but 6 follow: correct the number"),
        ("list_attr_celeba.txt", "6\n", "six\n", r"the first line must be the number of rows, received 'six'"),
        ("list_attr_celeba.txt", "000006.jpg  1", "000006.jpg  2", r"line 3: .* 2 values, each 1 or -1, received '2' as value 1"),
        ("list_attr_celeba.txt", "000005.jpg -1", "000005.jpg", r"line 4: .* 2 values, each 1 or -1, received 1 values"),
        (
            "list_attr_celeba.txt",
            "000005.jpg",
            "000006.jpg",
            r"list_attr.*: 1 images are listed more than once, the first: 000006",
        ),
        (
            "list_eval_partition.txt",
            "000004.jpg 1",
            "000004.jpg 3",
            r"line 4: expected a file name and 0, 1 or 2, received '000004.jpg 3'",
        ),
        (
            "list_eval_partition.txt",
            "000004.jpg",
            "000003.jpg",
            r"partition.* 1 images are listed more than once, the first: 000003",
        ),
        ("list_eval_partition.txt", "000004.jpg 1\n", "", r"same images; 1 are in only one of them, the first: 000004\.jpg"),
        ("list_eval_partition.txt", "000004.jpg 1\n", "000004.jpg 0\n", r"split 'validation' is empty"),
    ],
)
def test_malformed_lists(celeba_dir, file, old, new, message):
    replace(celeba_dir / file, old, new)
    with pytest.raises(ValueError, match=message):
        load(celeba_dir)


def write_extras(folder: Path) -> None:
    """Identity 100 + i and landmarks 10 i, 10 i + 1, ... of image i, in yet another order."""
    numbers = (2, 1, 6, 5, 4, 3)
    (folder / "identity_CelebA.txt").write_text("".join(f"00000{i}.jpg {100 + i}\r\n" for i in numbers))
    rows = [f"00000{i}.jpg " + " ".join(f"{10 * i + c:3d}" for c in range(10)) for i in numbers]
    columns = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    (folder / "list_landmarks_align_celeba.txt").write_text("\n".join(["6", columns, *rows]))


def test_identities_and_landmarks_come_along_where_their_lists_are(celeba_dir):
    assert all(not split.extras for split in load(celeba_dir).splits.values())
    write_extras(celeba_dir)
    for split in load(celeba_dir).splits.values():
        numbers = np.array([int(Path(image).stem) for image in split.images])
        identity, landmarks = split.extras["identity"], split.extras["landmarks"]
        assert (identity.dtype, landmarks.dtype, landmarks.shape) == (np.int32, np.int16, (len(split), 10))
        np.testing.assert_array_equal(identity, 100 + numbers)
        np.testing.assert_array_equal(landmarks, 10 * numbers[:, np.newaxis] + np.arange(10))
    (celeba_dir / "identity_CelebA.txt").unlink()
    assert set(load(celeba_dir).splits["test"].extras) == {"landmarks"}


def test_lists_alone_are_enough_where_images_are_not_checked(celeba_dir):
    with_images = load(celeba_dir)
    shutil.rmtree(celeba_dir / "img_align_celeba")
    with pytest.raises(FileNotFoundError, match=r"lacks img_align_celeba$"):
        load(celeba_dir)
    without = celeba.load_celeba(str(celeba_dir), check_images=False)
    for name, split in without.splits.items():
        np.testing.assert_array_equal(split.images, with_images.splits[name].images)
        np.testing.assert_array_equal(split.labels, with_images.splits[name].labels)


def test_nothing_is_fetched_unasked():
    with pytest.raises(ValueError, match=r"needs --data_dir, a folder with img_align_celeba/.*list_attr.*or --download, which"):
        celeba.load_celeba()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "identity_CelebA.txt",
            "106",
            "Ann",
            r"identity.*line 3: expected a file name and 1 value, each a whole number, received 'Ann'",
        ),
        ("identity_CelebA.txt", "106", "", r"identity.*line 3: expected a file name and 1 value, .* received '000006\.jpg'"),
        ("identity_CelebA.txt", "106", "5000000000", r"received '5000000000' as value 1"),
        ("identity_CelebA.txt", "000006.jpg", "000007.jpg", r"list_attr.* and identity.*; 2 are in only one.*: 000006\.jpg"),
        (
            "list_landmarks_align_celeba.txt",
            " 60 ",
            " 40000 ",
            r"landmarks.*line 5: .* 10 values, .* received '40000' as value 1",
        ),
        (
            "list_landmarks_align_celeba.txt",
            "6\n",
            "8\n",
            r"landmarks.*the first line says 8 images, but 6 follow: the file is cut",
        ),
    ],
)
def test_malformed_extras(celeba_dir, file, old, new, message):
    write_extras(celeba_dir)
    replace(celeba_dir / file, old, new)
    with pytest.raises(ValueError, match=message):
        load(celeba_dir)


def write_persons(folder: Path, *persons: int) -> None:
    rows = [f"00000{i}.jpg {person}" for i, person in enumerate(persons, start=1)]
    (folder / "identity_CelebA.txt").write_text("\n".join(rows))


def test_carved_validation_comes_from_training_and_leaves_the_official_one_out(celeba_dir):
    def names(seed, **options):
        dataset = load_dataset("celeba", data_dir=str(celeba_dir), seed=seed, **options)
        return {name: {int(Path(image).stem) for image in split.images} for name, split in dataset.splits.items()}

    drawn = [names(seed, celeba_validation="carved") for seed in range(20)]
    for splits in drawn:
        # 3 * 10,000 / 162,770 is less than one: one image of the three. Image 4 was the official validation.
        assert len(splits["validation"]) == 1 and splits["train"] | splits["validation"] == {1, 2, 3}
        assert splits["test"] == {5, 6}
    assert names(0, celeba_validation="carved") == drawn[0] and len({str(splits) for splits in drawn}) == 3
    assert names(0) == names(1) == names(0, celeba_validation="official")
    # A person with two images does not fit into one image.
    write_persons(celeba_dir, 9, 8, 9, 7, 6, 6)
    assert all(names(seed, celeba_validation="carved")["validation"] == {2} for seed in range(20))
    with pytest.raises(ValueError, match=r"celeba_validation must be one of \['official', 'carved'\], received 'mine'"):
        names(0, celeba_validation="mine")


def test_carved_validation_of_persons_by_a_loop():
    """As many images as wanted, in whole persons, of 2,000 training images of 150 persons."""
    rng = np.random.default_rng(0)
    parts, person = rng.choice(3, 2500, p=[0.8, 0.1, 0.1]), rng.integers(0, 150, 2500)
    train = [i for i in range(2500) if parts[i] == 0]
    wanted = round(len(train) * 10_000 / 162_770)
    seen = set()
    for seed in range(5):
        new = celeba.carved(parts, person, seed)
        moved = [i for i in range(2500) if parts[i] == 0 and new[i] == 1]
        assert wanted - 5 <= len(moved) <= wanted
        assert not {person[i] for i in moved} & {person[i] for i in train if new[i] == 0}
        assert all(new[i] == {0: new[i], 1: -1, 2: 2}[parts[i]] for i in range(2500)) and set(new) == {-1, 0, 1, 2}
        seen.add(tuple(moved))
    assert len(seen) == 5


def test_real_celeba_carved_as_in_the_paper(real_data):
    folder = str(real_data / "celeba-full-lists")
    splits = celeba.load_celeba(folder, celeba_validation="carved", check_images=False).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 152_770, "validation": 10_000, "test": 19_962}
    train, validation, test = (set(split.extras["identity"].tolist()) for split in splits.values())
    assert not train & validation and not (train | validation) & test


def test_real_celeba(real_data):
    dataset = load(real_data / "celeba")
    assert [len(s) for s in dataset.splits.values()] == [9385, 4535, 4640]
    assert len(dataset.schema) == 40
    assert dataset.schema.names[0] == "5_o_Clock_Shadow"
    bald = np.concatenate([s.labels for s in dataset.splits.values()])[:, dataset.schema.names.index("Bald")]
    # 2.5 % by the data's own description.
    assert bald.mean() == pytest.approx(0.025, abs=0.0005)


def test_real_celeba_has_its_identities(real_data):
    listed = dict(line.split() for line in (real_data / "celeba" / "identity_CelebA.txt").read_text().splitlines())
    split = load(real_data / "celeba").splits["test"]
    assert [str(i) for i in split.extras["identity"].tolist()] == [listed[Path(image).name] for image in split.images]


def test_real_lists_without_images(real_data):
    dataset = celeba.load_celeba(str(real_data / "celeba-full-lists"), check_images=False)
    assert [len(s) for s in dataset.splits.values()] == [162770, 19867, 19962]
    # 10,177 people, none of whom is in two parts.
    people = [set(split.extras["identity"].tolist()) for split in dataset.splits.values()]
    assert len(set.union(*people)) == sum(map(len, people)) == 10177


def test_a_byte_order_mark_changes_nothing(celeba_dir):
    before = load(celeba_dir)
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (celeba_dir / name).write_bytes(b"\xef\xbb\xbf" + (celeba_dir / name).read_bytes())
    for split in before.splits:
        np.testing.assert_array_equal(load(celeba_dir).splits[split].images, before.splits[split].images)
