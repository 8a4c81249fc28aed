"""Reads publishers' lists: one line per image, its name and then its values between blanks. Numbers are parsed in blocks."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from crl_tf.text import shortened

BLOCK = 1 << 20
"""Bytes that are read and parsed at a time, so that a large list is never in memory as text."""

MINUS, ZERO, NEWLINE, BLANK = 45, 48, 10, 32
"""Characters; all that are not above a blank (tabs, carriage returns) count as blanks."""


class Listed(NamedTuple):
    """header: the words of the second line, empty for a list without a head. names: n images. values: [n, ...]."""

    header: list[str]
    names: list[str]
    values: np.ndarray


def read_numbers(
    source: str,
    path: Path,
    *,
    head: bool,
    width: int | None = None,
    meaning: Mapping[int, int] | None = None,
    dtype: type[np.signedinteger] = np.int8,
) -> Listed:
    """Reads a list of whole numbers, holding no more than a block of it as text.

    Args:
        source: the dataset's name, with which errors begin.
        path: UTF-8 lines "name value value ...", with blank lines left out.
        head: whether the list begins with a line with the number of images and a line with the names of the columns.
        width: values per line; None: as many as the columns have names.
        meaning: the allowed values, and what each becomes. None: any number of the type.
        dtype: of the returned values, [n, width].
    Raises:
        ValueError: for a malformed line (named by its number), an image that is listed twice, or another number of images
            than the first line says.
    """
    with _opened(path) as file:
        count, header = _head(source, path, file) if head else (None, [])
        width = len(header) if width is None else width
        if width == 0:
            raise ValueError(f"{source}: {path}, line 2: the names of the columns expected, received nothing")
        line, names, blocks = 3 if head else 1, [], [np.empty((0, width), dtype)]
        for block in _blocks(file):
            parsed = _Block(f"{source}: {path}", line, block, width, meaning)
            names += parsed.names()
            blocks.append(parsed.values(dtype))
            line += parsed.lines
    _check_names(source, path, names, count)
    return Listed(header, names, np.concatenate(blocks))


def read_words(source: str, path: Path, meaning: Mapping[str, int], *, head: bool) -> Listed:
    """Reads a list with one word for each image, such as its part; values int8 [n], as `meaning` says.

    Args and errors as for `read_numbers`.
    """
    names, values = [], []
    with _opened(path) as file:
        count, header = _head(source, path, file) if head else (None, [])
        for number, line in enumerate(file, start=3 if head else 1):
            # Split as bytes: a string would also be split at Unicode's blanks, which a file name may hold.
            words = [word.decode(errors="replace") for word in line.split()]
            if not words:
                continue
            if len(words) != 2 or words[1] not in meaning:
                received = repr(shortened(" ".join(words)))
                raise ValueError(
                    f"{source}: {path}, line {number}: expected a file name and {_any_of(meaning)}, received {received}"
                )
            names.append(words[0])
            values.append(meaning[words[1]])
    _check_names(source, path, names, count)
    return Listed(header, names, np.array(values, np.int8))


def same_order(source: str, first: Path, names: Sequence[str], other: Path, listed: Listed) -> np.ndarray:
    """The values of another list, in the order of the first list's names; ValueError if they name different images."""
    if listed.names == names:
        return listed.values
    row = {name: index for index, name in enumerate(listed.names)}
    differing = row.keys() ^ set(names)
    if differing:
        raise ValueError(
            f"{source}: {first.name} and {other.name} must name the same images; {len(differing)} are in only one of them,"
            f" the first: {min(differing)}"
        )
    return listed.values[[row[name] for name in names]]


def read_head(source: str, path: Path, lines: Sequence[str]) -> int:
    """The number in the first of these lines: how many rows the list has."""
    count = lines[0].removeprefix("\ufeff").strip() if lines else ""
    if not count.isdecimal() or len(count) > 18:
        raise ValueError(f"{source}: {path}: the first line must be the number of rows, received {shortened(count)!r}")
    return int(count)


def check_count(source: str, path: Path, expected: int, rows: int, what: str) -> None:
    """Raises ValueError unless a list has as many rows as its first line says."""
    if expected != rows:
        cause = "the file is cut off, fetch it again" if rows < expected else "correct the number, or remove what was added"
        raise ValueError(f"{source}: {path}: the first line says {expected} {what}, but {rows} follow: {cause}")


class _Block:
    """Complete lines of a list, with the place where each word ends."""

    def __init__(self, where: str, first_line: int, block: bytes, width: int, meaning: Mapping[int, int] | None) -> None:
        self._where, self._first_line, self._block, self._width, self._meaning = where, first_line, block, width, meaning
        self._text = np.frombuffer(block, np.uint8)
        blank = self._text <= BLANK
        ends = np.flatnonzero(~blank[:-1] & blank[1:])
        newlines = np.flatnonzero(self._text == NEWLINE)
        words = np.diff(np.searchsorted(ends, newlines), prepend=0)
        wrong = np.flatnonzero((words != 0) & (words != width + 1))
        if wrong.size:
            received = (
                f"{words[wrong[0]] - 1} values"
                if width > 1
                else repr(shortened(block.split(b"\n")[wrong[0]].decode(errors="replace")))
            )
            raise ValueError(f"{self._expected(int(wrong[0]))}, received {received}")
        self.lines = len(newlines)
        self._lines_with_words = np.flatnonzero(words)
        self._ends = ends.reshape(-1, width + 1)
        self._starts = np.concatenate([[0], newlines[:-1] + 1])[self._lines_with_words]

    def names(self) -> list[str]:
        places = zip(self._starts.tolist(), (self._ends[:, 0] + 1).tolist(), strict=True)
        try:
            return [self._block[start:end].strip().decode() for start, end in places]
        except UnicodeDecodeError as error:
            raise ValueError(f"{self._where}: file names must be UTF-8, received {error.object!r}") from error

    def values(self, dtype: type[np.signedinteger]) -> np.ndarray:
        numbers, sound = _integers(self._text, self._ends[:, 1:].ravel())
        if self._meaning is None:
            limits = np.iinfo(dtype)
            sound &= (numbers >= limits.min) & (numbers <= limits.max)
            values = numbers.astype(dtype)
        else:
            values, known = np.zeros(numbers.size, dtype), np.zeros(numbers.size, bool)
            for number, value in self._meaning.items():
                equal = numbers == number
                known |= equal
                np.putmask(values, equal, value)
            sound &= known
        if not sound.all():
            row, column = divmod(int(np.flatnonzero(~sound)[0]), self._width)
            start, end = self._ends[row, column] + 1, self._ends[row, column + 1] + 1
            word = self._block[start:end].decode(errors="replace").strip()
            expected = self._expected(int(self._lines_with_words[row]))
            raise ValueError(f"{expected}, received {shortened(word)!r} as value {column + 1}")
        return values.reshape(-1, self._width)

    def _expected(self, index: int) -> str:
        values = "1 value" if self._width == 1 else f"{self._width} values"
        each = _any_of(self._meaning) if self._meaning else "a whole number"
        return f"{self._where}, line {self._first_line + index}: expected a file name and {values}, each {each}"


def _integers(text: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers whose last digits are at these places of the text, int32, and whether each is a number of up to 9 digits."""
    last = text[at] - np.uint8(ZERO)  # a byte below "0" wraps around to more than 9
    sound = last <= 9
    numbers = last.astype(np.int32)
    at = at - 1
    longer = np.flatnonzero(text[at] - np.uint8(ZERO) <= 9)
    for place in range(1, 9):
        if not longer.size:
            break
        numbers[longer] += (text[at[longer]] - np.uint8(ZERO)) * np.int32(10**place)
        at[longer] -= 1
        longer = longer[text[at[longer]] - np.uint8(ZERO) <= 9]
    signed = text[at] == MINUS
    # A blank must stand before the digits and the sign; a tenth digit is none.
    sound &= text[at - signed] <= BLANK
    np.negative(numbers, out=numbers, where=signed)
    return numbers, sound


def _opened(path: Path) -> BinaryIO:
    file = path.open("rb")
    # Some editors put a byte order mark before the first line.
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def _head(source: str, path: Path, file: BinaryIO) -> tuple[int, list[str]]:
    lines = [file.readline().decode(errors="replace") for _ in range(2)]
    return read_head(source, path, lines), lines[1].split()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        block += file.readline()
        yield block if block.endswith(b"\n") else block + b"\n"


def _check_names(source: str, path: Path, names: Sequence[str], count: int | None) -> None:
    if count is not None:
        check_count(source, path, count, len(names), "images")
    if len(set(names)) != len(names):
        seen: set[str] = set()
        repeated = [name for name in names if name in seen or seen.add(name)]
        raise ValueError(f"{source}: {path}: {len(repeated)} images are listed more than once, the first: {repeated[0]}")


def _any_of(values: Mapping[int, int] | Mapping[str, int]) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}"
