"""Writes the tables of all settings into docs/training.md, and crl_tf/help.txt, from the program's own table and flags.

python tools/settings_table.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from crl_tf.experiment.settings import SETTINGS
from crl_tf.help import HELP

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"
SECTIONS = {
    "": "A run",
    "data": "Data",
    "network": "Network",
    "train": "Training",
    "crl": "Class rectification",
    "decision": "Scores and decisions",
    "embedding": "Methods that decide by neighbours: lmle, triplet_knn, hog_knn",
}


def settings_table() -> str:
    """All settings in Markdown, one table per section; the sections of single losses share one."""
    tables: dict[str, list[str]] = {}
    for key, setting in SETTINGS.items():
        title = SECTIONS.get(key.rpartition(".")[0], "Parameters of other losses")
        rule = re.sub(r"\[('.*')\]", r"\1", setting.rule.words).replace("'", "`").replace("|", "\\|")
        flag = f"`--{setting.flag}`" if setting.flag else ""
        rows = tables.setdefault(title, ["| setting | default | must be | flag | meaning |", "|---|---|---|---|---|"])
        rows.append(f"| `{key}` | {_shown(setting.default)} | {rule} | {flag} | {setting.what} |")
    return "".join(f"### {title}\n\n" + "\n".join(rows) + "\n\n" for title, rows in tables.items())


def with_table(page: str) -> str:
    """The text of the page with the table between its two marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{settings_table()}{END}{rest.split(END)[1]}"


def help_text() -> str:
    """The command's help, as absl makes it of the flags, without where on this machine the command lies."""
    command = [sys.executable, "-m", "crl_tf.main", "--helpshort"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=PAGE.parents[1], check=False).stdout
    return re.sub(r"^.*crl_tf/main\.py:$", "crl_tf/main.py:", shown, flags=re.M)


def _shown(value: object) -> str:
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    HELP.write_text(help_text(), encoding="utf-8")
