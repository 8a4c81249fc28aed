"""tools/paper/content.py and render.py: the three forms of a page hold the same numbers; HTML is well-formed and complete."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from paper.content import Paragraph, Picture, Section, Table, measured
from paper.render import as_html, as_markdown, as_text, write_pages
from PIL import Image

VOID = {"meta", "link", "img", "br"}


class Strict(HTMLParser):
    """Checks that every element is closed in order, and collects attributes that name resources, identifiers and text."""

    def __init__(self):
        super().__init__()
        self.open, self.resources, self.identifiers, self.links, self.words = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.resources += [attrs[key] for key in ("src", "data", "poster") if key in attrs]
        self.resources += [attrs["href"]] if tag == "link" else []
        self.links += [attrs["href"]] if tag == "a" else []
        self.identifiers += [attrs["id"]] if "id" in attrs else []
        assert tag != "script" and (tag != "img" or attrs.get("alt"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(page):
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser


@pytest.fixture
def sections():
    figure = Figure((3, 2))
    figure.subplots().plot([1, 2], [3, 4])
    table = Table(["method", "ours, %"], [["CRL <all> & more | one", measured([36.0, 38.0])], ["ce", "–"]], "By <method>")
    return [
        Section("Table 9", "imbalanced & more", ["Budget 2h: epochs 200 → 14."], [table, Paragraph("a < b")]),
        Section("Fig. 10b", "a sweep", ["Left out."], [Picture(figure, 'accuracy over "gamma"')]),
    ]


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(sections):
    page = as_html(sections, "A <title>")
    parser = parsed(page)
    assert all(resource.startswith("data:") for resource in parser.resources) and len(parser.resources) == 2
    assert not re.search(r"https?://|url\(|@import|//\w", re.sub(r'src="data:[^"]*"', "", page))
    assert sorted(parser.links) == sorted(f"#{name}" for name in parser.identifiers) == ["#fig-10b", "#table-9"]
    words = " ".join(parser.words)
    assert "CRL <all> & more | one" in words and "37.0 ± 1.4" in words and "Budget 2h: epochs 200 → 14." in words
    assert '<meta name="viewport" content="width=device-width' in page and "prefers-color-scheme: dark" in page
    picture = base64.b64decode(next(r for r in parser.resources if r.startswith("data:image/png")).partition(",")[2])
    with Image.open(io.BytesIO(picture)) as image:
        assert image.width > 300


def test_wide_tables_scroll_and_a_keyboard_reaches_them(sections):
    page = as_html(sections, "t")
    assert re.search(r'<div class="scroll" tabindex="0"[^>]*><table>', page) and "overflow-x: auto" in page


def test_markdown_and_text_say_the_same(sections, tmp_path):
    markdown = as_markdown(sections, "Title", tmp_path)
    assert markdown.startswith("# Title\n") and "| CRL <all> & more \\| one | 37.0 ± 1.4 |" in markdown
    named = re.findall(r"!\[.*?\]\((.*?)\)", markdown)
    assert named == ["fig-10b-1.png"] and (tmp_path / named[0]).read_bytes().startswith(b"\x89PNG")
    text = as_text(sections[0])
    assert text.splitlines()[0] == "Table 9: imbalanced & more" and "Budget 2h: epochs 200 → 14." in text
    lines = [line for line in text.splitlines() if line.startswith(("CRL", "ce"))]
    assert len({len(line) for line in lines}) == 1 and lines[0].endswith("37.0 ± 1.4")


def test_three_files_are_written(sections, tmp_path):
    paths = write_pages(sections, "Title", tmp_path / "pages")
    assert [path.name for path in paths] == ["report.txt", "report.md", "report.html"]
    assert all("37.0 ± 1.4" in path.read_text(encoding="utf-8") for path in paths)
