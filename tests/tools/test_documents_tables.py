"""tools/documents.py: what lies between the markers is written, and nothing else of a document changes."""

import documents
import pytest


def test_a_document_without_markers_is_refused_and_the_rest_of_it_is_kept():
    text = "a\n<!-- m -->\nold\n<!-- /m -->\nb"
    assert documents.between_markers(text, "m", "new") == "a\n<!-- m -->\n\nnew\n\n<!-- /m -->\nb"
    with pytest.raises(ValueError, match="must hold <!-- m --> and <!-- /m -->"):
        documents.between_markers("a <!-- m -->", "m", "new")


def test_tables_are_written_checked_and_then_left_alone(tmp_path, capsys):
    one, other = tmp_path / "one.md", tmp_path / "other.md"
    one.write_text("<!-- a -->\n<!-- /a -->\n<!-- b -->\n<!-- /b -->\n")
    other.write_text("<!-- c -->\n\nthree\n\n<!-- /c -->\n")
    contents, places = {"a": "one", "b": "two", "c": "three"}, {"a": one, "b": one, "c": other}
    with pytest.raises(SystemExit, match=r"differ from found.json: one.md: run python tools/"):
        documents.write(contents, places, check=True, of="found.json")
    assert "two" not in one.read_text()
    documents.write(contents, places, check=False, of="found.json")
    assert one.read_text() == "<!-- a -->\n\none\n\n<!-- /a -->\n<!-- b -->\n\ntwo\n\n<!-- /b -->\n"
    documents.write(contents, places, check=True, of="found.json")
    assert capsys.readouterr().out == "written: one.md\nthe tables are what the results say\n"
