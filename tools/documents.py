"""Tables in Markdown, and documents that hold them between markers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(markdown(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def between_markers(text: str, marker: str, content: str) -> str:
    """A document with new content between <!-- marker --> and <!-- /marker -->."""
    before, start, rest = text.partition(f"<!-- {marker} -->\n")
    _, end, after = rest.partition(f"<!-- /{marker} -->")
    if not start or not end:
        raise ValueError(f"the document must hold <!-- {marker} --> and <!-- /{marker} -->, received neither or one")
    return f"{before}{start}\n{content}\n\n{end}{after}"


def differing(contents: Mapping[str, str], documents: Mapping[str, Path]) -> dict[Path, str]:
    """The new text of every document that does not hold the contents.

    Args:
        contents: what each marker must hold. documents: where each marker is.
    """
    texts: dict[Path, str] = {}
    for marker, content in contents.items():
        path = documents[marker]
        texts[path] = between_markers(texts.get(path) or path.read_text(encoding="utf-8"), marker, content)
    return {path: text for path, text in texts.items() if text != path.read_text(encoding="utf-8")}


def write(contents: Mapping[str, str], documents: Mapping[str, Path], *, check: bool, of: str) -> None:
    """Writes the contents into the documents and says which changed.

    Args:
        check: write nothing; exit with 1 where a document differs. of: the file of results, for the message.
    """
    different = differing(contents, documents)
    names = ", ".join(path.name for path in different)
    if check and different:
        sys.exit(f"differ from {of}: {names}: run python tools/{Path(sys.argv[0]).name}")
    for path, text in different.items():
        path.write_text(text, encoding="utf-8")
    print(f"written: {names}" if different else "the tables are what the results say")
