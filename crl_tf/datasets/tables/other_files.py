"""Files that are called a table of text and are something else: named for what they are, with what to do."""

from __future__ import annotations

import zipfile
from pathlib import Path

AS_CSV = "save the sheet as CSV (UTF-8)"
UNPACK = "unpack it, and name the table in it"

MARKS = (
    (b"PAR1", "a Parquet file", "give its name the ending .parquet"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)", AS_CSV),
    (b"\x1f\x8b", "compressed by gzip", UNPACK),
    (b"BZh", "compressed by bzip2", UNPACK),
    (b"\xfd7zXZ\x00", "compressed by xz", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (b"SQLite format 3\x00", "an SQLite database", "export its table as CSV"),
    (b"\xff\xfe\x00\x00", "UTF-32", "save it as UTF-8"),
    (b"\xff\xfe", "UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16", "save it as UTF-8"),
)
"""The first bytes of a form, its name, and what to do."""

SHEETS = {"xl/": "an Excel workbook (.xlsx)", "content.xml": "an OpenDocument sheet (.ods)", "Index/": "a Numbers sheet"}
"""What is inside the zip archives that are workbooks."""


def refuse_other_form(owner: str, path: Path) -> None:
    """Raises ValueError if a file is none of comma-separated text, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(4096)
    form = next(((name, remedy) for mark, name, remedy in MARKS if start.startswith(mark)), None)
    if start.startswith(b"PK\x03\x04"):
        form = _of_zip(path)
    elif form is None and start.lstrip()[:9].lower() in (b"<!doctype", b"<html>"):
        form = "a page of HTML", "fetch the table itself"
    elif form is None and start.startswith((b"{", b"[")):
        form = "JSON", "a COCO file must end in .json, and other JSON be saved as CSV"
    elif form is None and b"\x00" in start:
        # Text has no such byte. In UTF-16 every second one is, if the text is Latin.
        every_second = min(start[::2].count(0), start[1::2].count(0)) == 0
        form = ("UTF-16" if every_second else "binary"), "save it as UTF-8" if every_second else AS_CSV
    if form is not None:
        raise ValueError(f"{owner}: {path} must be CSV in UTF-8, received {form[0]}; {form[1]}")


def _of_zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a damaged zip archive", UNPACK
    sheet = next((form for start, form in SHEETS.items() if any(name.startswith(start) for name in names)), None)
    return (sheet, AS_CSV) if sheet else ("a zip archive", UNPACK)
