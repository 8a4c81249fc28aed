"""Reads tables of text in CSV or Parquet: each column as its distinct values and codes into them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from crl_tf.datasets.tables.other_files import refuse_other_form
from crl_tf.text import repeated, shortened

BLOCK = 1 << 23
"""Bytes of CSV that are read at a time; a row must fit in."""
EXACT = 2.0**53
"""The largest number up to which a float64 holds every whole number."""


@dataclass(frozen=True)
class Column:
    """A column as its distinct values, without the space around them, and the place of each row's value among them.

    values: those that occur, in no order. codes: int32 [n], places in `values`; -1 for a null.
    """

    values: tuple[str, ...]
    codes: np.ndarray

    def first(self, value: str) -> int:
        """The first row that holds the value."""
        return int(np.flatnonzero(self.codes == self.values.index(value))[0])


@dataclass(frozen=True)
class Table:
    """Some columns of a file.

    owner: the dataset that the table belongs to; errors begin with it. rows: of each row, which one of the file it stands for;
    None: the same.
    """

    owner: str
    path: Path
    columns: dict[str, pa.ChunkedArray]
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def where(self, row: int) -> str:
        """What errors call a row, counted from 0: the line of a CSV on which it begins, else its number from 1."""
        row = row if self.rows is None else int(self.rows[row])
        if not _is_parquet(self.path) and not is_json(self.path):
            # Only errors ask: reading the table does not count lines.
            line = next((line for line, _ in islice(_csv_rows(self.owner, self.path), row + 1, None)), None)
            if line is not None:
                return f"line {line}"
        return f"row {row + 1}"

    def error(self, message: str, row: int | None = None) -> ValueError:
        """A ValueError that names the file, and the row if one is given."""
        place = "" if row is None else f", {self.where(row)}"
        return ValueError(f"{self.owner}: {self.path}{place}: {message}")

    def texts(self, name: str) -> pa.LargeStringArray:
        """A column of texts that are all different, such as paths; nulls become empty."""
        column = self.columns[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if not _is_text(column.type):
            raise self.error(f"column {name!r} must hold text, received {column.type}")
        # large: a plain array of strings ends at 2 GB.
        return pc.fill_null(pc.utf8_trim_whitespace(column.cast(pa.large_string()).combine_chunks()), "")

    def categories(self, name: str) -> Column:
        """A column of repeated values: text, truth values ("false", "true") or whole numbers."""
        column = self.columns[name]
        of = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_floating(of):
            column, of = self._whole(name, column), pa.int64()
        if not (_is_text(of) or pa.types.is_boolean(of) or pa.types.is_integer(of) or pa.types.is_null(of)):
            raise self.error(
                f"column {name!r} must hold text, truth values or whole numbers, received {of}; list it under ignore"
            )
        if pa.types.is_null(of):
            column = column.cast(pa.string())
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        encoded = encoded.unify_dictionaries().combine_chunks()
        values = pc.utf8_trim_whitespace(encoded.dictionary.cast(pa.string())).to_pylist()
        codes = pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int32, copy=False)
        # A dictionary may hold values that no row has, values that differ in space only, and a null.
        used = np.bincount(codes + 1, minlength=len(values) + 1)[1:] > 0
        places: dict[str, int] = {}
        recode = [
            places.setdefault(value, len(places)) if value is not None and occurs else -1
            for value, occurs in zip(values, used.tolist(), strict=True)
        ]
        if recode != list(range(len(values))):
            codes = np.array([*recode, -1], np.int32)[codes]
        return Column(tuple(places), codes)

    def _whole(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        numbers = column.cast(pa.float64())
        # A null becomes 0 here, and stays one in what is returned.
        values = pc.fill_null(numbers, 0.0).to_numpy()
        wrong = np.flatnonzero(~((np.trunc(values) == values) & (np.abs(values) <= EXACT)))
        if wrong.size:
            value = values[wrong[0]]
            advice = "write null where nothing is annotated" if np.isnan(value) else "a class is text or a whole number"
            raise self.error(f"column {name!r} holds {'NaN' if np.isnan(value) else value}; {advice}", int(wrong[0]))
        return numbers.cast(pa.int64())


def find_table(owner: str, data_dir: str | os.PathLike[str] | None, stem: str) -> Path:
    """The path of the table: `data_dir` itself, or `stem`.csv or `stem`.parquet in it.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if `data_dir` is None, or the folder holds both.
    """
    names = [f"{stem}.csv", f"{stem}.parquet"]
    if data_dir is None:
        raise ValueError(
            f"{owner}: data_dir must be a table (.csv, .parquet) or a folder with {names[0]} or {names[1]}, received None"
        )
    if not os.path.isdir(data_dir):
        if not os.path.isfile(data_dir):
            raise FileNotFoundError(f"{owner}: no file {data_dir}")
        return Path(data_dir)
    present = [name for name in names if (Path(data_dir) / name).is_file()]
    if not present:
        raise FileNotFoundError(
            f"{owner}: no file {Path(data_dir) / names[0]}, nor {names[1]} beside it; a table of another name is"
            " itself the data_dir"
        )
    if len(present) == 2:
        raise ValueError(f"{owner}: {data_dir} holds {names[0]} and {names[1]}; name one of them as data_dir")
    return Path(data_dir) / present[0]


def column_names(owner: str, path: Path) -> list[str]:
    """Names of a table's columns, in order.

    Raises:
        ValueError: if a name is repeated, more than one is empty, or the file cannot be read.
    """
    if _is_parquet(path):
        try:
            names = [name.strip() for name in pq.read_schema(path).names]
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{owner}: {path} is not a readable Parquet file: {shortened(str(error), 400)}") from error
        place = f"{path}"
    else:
        refuse_other_form(owner, path)
        line, row = next(_csv_rows(owner, path), (1, []))
        names, place = [name.strip() for name in row], f"{path}, line {line}"
    if not names:
        raise ValueError(f"{owner}: {path} is empty")
    other = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
    if other is not None:
        raise ValueError(
            f"{owner}: {place}: values must be separated by commas, received {names[0]!r}; save it with , for {other!r}"
        )
    twice = repeated(names)
    if twice == [""]:
        raise ValueError(f"{owner}: {place}: column {names.index('', names.index('') + 1) + 1} has no name, as one before it")
    if twice:
        raise ValueError(f"{owner}: {place}: column names must be distinct, repeated: {twice}")
    return names


def numbers_rows(column: Column) -> bool:
    """Whether a column holds a whole number of its own in every row, as the index that pandas writes, also of chosen rows.

    >>> numbers_rows(Column(("4", "7"), np.array([1, 0]))), numbers_rows(Column(("1", "2"), np.array([0, 1, 1])))
    (True, False)
    """
    different = len(column.values) == len(column.codes) and bool((column.codes >= 0).all())
    return different and all(value.isdecimal() for value in column.values)


def read_table(owner: str, path: Path, names: Sequence[str], texts: Sequence[str]) -> Table:
    """Reads the named columns: those in `texts` for `Table.texts`, the others for `Table.categories`.

    Raises:
        ValueError: if the file is malformed (a CSV: with the line), or has no row.
    """
    read = _read_parquet if _is_parquet(path) else _read_csv
    table = Table(owner, path, read(owner, path, names, texts))
    if len(table) == 0:
        raise ValueError(f"{owner}: {path} holds no row{'' if _is_parquet(path) else ' below its header'}")
    return table


def _read_parquet(owner: str, path: Path, names: Sequence[str], texts: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    try:
        schema = pq.read_schema(path)
        raw = {name.strip(): name for name in schema.names}
        encoded = [raw[n] for n in names if n not in texts and _is_text(schema.field(raw[n]).type)]
        # ParquetFile reads no partitions into the folder's name.
        with pq.ParquetFile(path, read_dictionary=encoded) as file:
            table = file.read(columns=[raw[name] for name in names])
        # Whether texts are UTF-8 shows only here.
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{owner}: {path} is not a readable Parquet file: {shortened(str(error), 400)}") from error
    return {name: table.column(raw[name]) for name in names}


def _read_csv(owner: str, path: Path, names: Sequence[str], texts: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    _, header = next(_csv_rows(owner, path), (1, []))
    raw = {name.strip(): name for name in header}
    encoded = pa.dictionary(pa.int32(), pa.string())
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[raw[name] for name in names],
                column_types={raw[name]: pa.string() if name in texts else encoded for name in names},
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowException as error:
        # Arrow does not name the line.
        if _check_csv(owner, path, len(header)) == 0:
            raise ValueError(f"{owner}: {path} holds no row below its header") from error
        raise ValueError(f"{owner}: {path}: {shortened(str(error), 400)}") from error
    columns = {name: table.column(raw[name]) for name in names}
    # A quotation mark that is not closed swallows lines, which Arrow accepts.
    if any(_holds_line_break(chunk) for column in columns.values() for chunk in column.chunks):
        _check_csv(owner, path, len(header))
    return columns


def _holds_line_break(values: pa.Array) -> bool:
    values = values.dictionary if isinstance(values, pa.DictionaryArray) else values
    return bool(pc.any(pc.match_substring_regex(values, r"[\r\n]")).as_py())


def _check_csv(owner: str, path: Path, width: int) -> int:
    """Reads every row again, slowly and strictly, to raise an error with the line; returns the number of rows."""
    count = 0
    for line, row in islice(_csv_rows(owner, path), 1, None):
        if len(row) != width:
            raise ValueError(f"{owner}: {path}, line {line}: {width} values expected, received {len(row)}")
        count += 1
    return count


def _csv_rows(owner: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not an empty line, the header first, with the line on which it begins."""
    # utf-8-sig: spreadsheets put a byte order mark before the first column's name.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise ValueError(f"{owner}: {path}, line {line}: {error}") from error
            except UnicodeDecodeError as error:
                # The file is decoded in blocks, ahead of its lines.
                place, byte = _line_that_is_no_text(path)
                raise ValueError(f"{owner}: {path}, line {place}: the byte {byte:#04x} is no UTF-8; save it as UTF-8") from error
            if row is None:
                return
            if row:
                yield line, row


def _line_that_is_no_text(path: Path) -> tuple[int, int]:
    """The first line that is not UTF-8, from 1, and its first wrong byte."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return 1, 0


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def is_json(path: Path) -> bool:
    """Whether a table is COCO's JSON."""
    return path.suffix.lower() == ".json"


def _is_text(of: pa.DataType) -> bool:
    return pa.types.is_string(of) or pa.types.is_large_string(of)
