"""Shows sections: as text for a terminal, as Markdown, and as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from crl_tf.files import write_whole
from paper.content import Section

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --faint: #57606a; --line: #d0d7de; --band: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --ink: #e6e9ed; --faint: #9aa4af; --line: #383f47; --band: #1d2127; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 0 0 .5rem; }
section { border-top: 1px solid var(--line); padding: 1.25rem 0; }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
a { color: inherit; }
p { max-width: 48rem; overflow-wrap: anywhere; }
.caption { color: var(--faint); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .35rem; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--ground); white-space: normal;
  min-width: min(11rem, 34vw); overflow-wrap: anywhere; }
thead th { background: var(--band); white-space: normal; min-width: 4.5rem; vertical-align: bottom; }
thead th:first-child { background: var(--band); }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; }
"""


def as_text(section: Section) -> str:
    """One section for a terminal."""
    heading = f"{section.name}: {section.title}"
    return "\n".join(
        [heading, "=" * min(100, len(heading)), *section.caption, "", *(f"{part.text()}\n" for part in section.parts)]
    )


def as_markdown(sections: Sequence[Section], title: str, folder: Path) -> str:
    """All sections; their pictures are written to `folder`."""
    texts = [f"# {title}\n"]
    for section in sections:
        texts += [f"## {section.name}: {section.title}\n", *(f"{sentence}\n" for sentence in section.caption)]
        texts += [f"{part.markdown(folder, f'{section.key}-{place}')}\n" for place, part in enumerate(section.parts, 1)]
    return "\n".join(texts)


def as_html(sections: Sequence[Section], title: str) -> str:
    """All sections in one page: styles and pictures are inside; it reads on a phone, in light and dark."""
    links = "".join(f'<li><a href="#{one.key}">{html.escape(one.name)}</a></li>' for one in sections)
    blocks = []
    for one in sections:
        caption = html.escape(" ".join(one.caption))
        parts = "\n".join(part.html() for part in one.parts)
        blocks.append(
            f'<section id="{one.key}">\n<h2>{html.escape(one.name)}: {html.escape(one.title)}</h2>\n'
            f'<p class="caption">{caption}</p>\n{parts}\n</section>'
        )
    body = "\n".join(blocks)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{html.escape(title)}</h1>\n'
        f'<nav aria-label="contents"><ul>{links}</ul></nav>\n{body}\n</main>\n</body>\n</html>\n'
    )


def write_pages(sections: Sequence[Section], title: str, folder: Path) -> list[Path]:
    """Writes report.txt, report.md (with its pictures) and report.html to a folder; returns the three paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "report.txt": "\n".join(as_text(section) for section in sections),
        "report.md": as_markdown(sections, title, folder),
        "report.html": as_html(sections, title),
    }
    for name, text in contents.items():
        write_whole(folder / name, lambda partial, text=text: partial.write_text(text, encoding="utf-8"))
    return [folder / name for name in contents]
