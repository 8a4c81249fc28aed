"""Publishers' lists, read by the block, against reading them line by line."""

from __future__ import annotations

import numpy as np
import pytest

from crl_tf.datasets.sources import lists
from crl_tf.datasets.sources.files import check_images_present, splits_of_files


def line_by_line(text, head, meaning):
    rows = [line.split() for line in text.split("\n")[2 if head else 0 :] if line.split()]
    values = [[int(word) if meaning is None else meaning[int(word)] for word in row[1:]] for row in rows]
    return [row[0] for row in rows], np.array(values)


@pytest.mark.parametrize("block", [1, 30, 1 << 20])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_reading_line_by_line(block, seed, tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "BLOCK", block)
    rng = np.random.default_rng(seed)
    meaning = None if seed % 2 else {1: 1, -1: 0, 0: -1}
    numbers = rng.integers(-(10**6), 10**6, (40, 3)) >> rng.integers(0, 20, (40, 3)) if seed % 2 else rng.integers(-1, 2, (40, 3))
    blanks = ["\t", " ", "    "]
    lines = []
    for i, row in enumerate(numbers):
        lines.append(f"{' ' * (i % 3)}ïmg/{i}.jpg" + "".join(rng.choice(blanks) + str(n) for n in row) + " " * (i % 2))
        lines += [""] * (i % 7 == 0)
    ending = "\r\n" if seed < 2 else "\n"
    text = ending.join(["40", "a b c", *lines]) + ending * (seed % 3)
    path = tmp_path / "list.txt"
    path.write_bytes(text.encode())
    read = lists.read_numbers("source", path, head=True, meaning=meaning, dtype=np.int32)
    names, values = line_by_line(text, True, meaning)
    assert read.header == ["a", "b", "c"] and read.names == names and len(names) == 40
    np.testing.assert_array_equal(read.values, values)


@pytest.mark.parametrize("word", ["+1", "1.0", "-", "--1", "1-", "1x", "x1", "0x1", "1e3", "1234567890", "²", "128", "-129"])
def test_what_is_no_whole_number_of_the_type_is_named(word, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"a 1 2\n\nb 3 {word}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 3: expected a file name and 2 values, each a whole number, received") as raised:
        lists.read_numbers("source", path, head=False, width=2, dtype=np.int8)
    assert f"received {word!r} as value 2" in str(raised.value)


@pytest.mark.parametrize(
    "head, message", [("2\n\n", "line 2: the names of the columns"), ("9" * 5000 + "\na\n", "the number of rows")]
)
def test_a_head_without_a_number_or_names_is_named(head, message, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(head + "a 1\nb 2\n")
    with pytest.raises(ValueError, match=rf"list.txt.*{message}"):
        lists.read_numbers("source", path, head=True)


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "b/../../a.jpg"])
def test_a_list_names_nothing_outside_of_its_folder(name, tmp_path):
    with pytest.raises(ValueError, match="a list must name images below"):
        splits_of_files("celeba", tmp_path, ["a..jpg", name], np.zeros((2, 1)), np.zeros(2))


def test_a_line_is_counted_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "BLOCK", 64)
    path = tmp_path / "list.txt"
    lines = [f"{i}.jpg {i}" for i in range(1, 201)]
    lines[149] = "150.jpg"
    lines[20:30] = [""] * 10
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"line 150: expected a file name and 1 value, each a whole number, received '150.jpg'"):
        lists.read_numbers("source", path, head=False, width=1, dtype=np.int16)


def test_an_empty_file_and_one_that_is_no_text(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"the first line must be the number of rows, received ''"):
        lists.read_numbers("source", path, head=True)
    assert lists.read_numbers("source", path, head=False, width=2).values.shape == (0, 2)
    path.write_bytes(b"2\na\n\xff\xfe.jpg 1\n")
    with pytest.raises(ValueError, match=r"file names must be UTF-8, received b'\\xff\\xfe\.jpg'"):
        lists.read_numbers("source", path, head=True)


def test_files_are_looked_for_in_their_folders(tmp_path):
    for name in ("a/1.jpg", "a/b/2.jpg", "3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    check_images_present("source", tmp_path, ["3.jpg", "a/b/2.jpg", "a/1.jpg"])
    with pytest.raises(FileNotFoundError, match=r"source: 3 of 4 listed images are missing in .*, the first: a/2\.jpg"):
        check_images_present("source", tmp_path, ["a/1.jpg", "a/2.jpg", "c/1.jpg", "1.jpg"])
