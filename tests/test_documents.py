"""The documents: their code runs, what they name exists, and the rows of the program's tables are in them."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import crl_tf
from crl_tf import main
from crl_tf.datasets import DATASETS
from crl_tf.datasets.resampling import RESAMPLING
from crl_tf.datasets.tables.schema import read_table_schema
from crl_tf.decision import RULES
from crl_tf.experiment.config import load_recipe
from crl_tf.experiment.methods import METHODS, combined
from crl_tf.experiment.settings import SETTINGS
from crl_tf.experiment.trainers import TRAINERS
from crl_tf.losses.table import LOSSES
from crl_tf.models.backbones import NETWORKS
from crl_tf.models.build import find_network

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *DOCS)}
TEXTS = PAGES | {name: (ROOT / name).read_text(encoding="utf-8") for name in ("WORKSPACE.md", "CHANGELOG.md")}
TRACKED = ("crl_tf", "configs", "tools", "tests", "docs", ".ci")
FILES = [path.relative_to(ROOT).as_posix() for top in TRACKED for path in (ROOT / top).rglob("*")]

EXPORT = """
from pathlib import Path
from crl_tf import CRLModel
from crl_tf.models import build_network
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model
schema = AttributeSchema((Attribute("season", ("summer", "winter")), Attribute("5 o'clock/shadow", ("no", "yes", "maybe"))))
network = CRLModel(build_network("deepid2", image_size=(32, 32), num_classes=schema.num_classes))
export_saved_model(network, schema, (32, 32), Path("runs/mine/export"))
"""
"""The model that some pages serve: an untrained one of the right shape in place of the user's."""

RUN_PAGES = """
for page, code in PAGES.items():
    print("page", page)
    names = {"__name__": page}
    exec(code, names)
    names.get("get_config", bool)()  # of a recipe
"""


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def prose(text):
    return re.sub(r"```.*?```", "", text, flags=re.S)


def inline_code(text):
    return re.findall(r"`([^`\n]+)`", prose(text))


def commands(text):
    """The words of every command of the bash blocks."""
    for block in blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            ends = [i for i, word in enumerate(words) if word == "&&"]
            for start, end in zip([0, *(i + 1 for i in ends)], [*ends, len(words)], strict=True):
                yield words[start:end]


def flags_of(tool):
    """The flags that a tool defines itself or with a file of tools/ that it imports, and those of crl_tf.main if it does that."""
    source = (ROOT / tool).read_text(encoding="utf-8")
    parts = [ROOT / "tools" / f"{name}.py" for name in re.findall(r"^(?:from|import) (\w+)", source, re.M)]
    sources = [source, *(part.read_text(encoding="utf-8") for part in parts if part.is_file())]
    own = {name for text in sources for name in re.findall(r"(?:DEFINE_\w+|add_argument)\(\s*\"(?:--)?(\w+)\"", text)}
    imports_main = any(re.search(r"from crl_tf import .*\bmain\b", text) for text in sources)
    return own | (set(flags.FLAGS) if imports_main else set())


def test_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= 8192


def test_ci_finds_both_lines():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for name, word in (("main-line", "crl_tf.main --compare=ce,class_rel"), ("test-line", "-m pytest")):
        assert name in script
        line = re.search(rf"<!-- {name} -->\n```bash\n(.+)\n```\n", PAGES["README.md"])
        assert line and "\n" not in line[1] and word in line[1] and line[1].startswith("python3 -m venv")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the Python of every page prints: each page from its beginning, all in one new process."""
    code = {name: "\n".join(blocks(text, "python")) for name, text in PAGES.items() if "```python" in text}
    script = f"{EXPORT}\nPAGES = {code!r}\n{RUN_PAGES}"
    folder = tmp_path_factory.mktemp("pages")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder)
    assert ran.returncode == 0, ran.stderr[-3000:]
    pages = re.split(r"^page (.+)\n", ran.stdout, flags=re.M)[1:]
    return dict(zip(pages[::2], pages[1::2], strict=True))


def test_the_python_of_every_page_runs(printed):
    assert {"README.md", "keras.md", "serving.md", "distributed.md"} <= set(printed)


def test_pages_show_what_their_code_prints(printed):
    assert f"# {printed['keras.md'].strip()}\n" in PAGES["keras.md"]
    # A SavedModel does not keep the order of labels.
    served = sorted(printed["serving.md"].splitlines())
    names = [line.rpartition(" ")[0] for line in served]
    shadows = [f"5 o'clock/shadow {name}" for name in ("maybe", "no", "yes")]
    assert names == [*shadows, "season summer", "season winter"]
    assert all(re.fullmatch(r"[01]\.\d{3}", line.rpartition(" ")[2]) for line in served)


@pytest.mark.parametrize("name", TEXTS)
def test_commands_have_flags_and_values_that_exist(name):
    for words in commands(TEXTS[name]):
        tool = next((word for word in words if word.startswith("tools/") and word.endswith(".py")), None)
        if tool is None and "crl_tf.main" not in words:
            continue
        known = flags_of(tool) if tool else set(flags.FLAGS)
        for word in words:
            if word.startswith("--"):
                check_flag(word, known)


@pytest.mark.parametrize("name", TEXTS)
def test_flags_in_the_text_exist(name):
    known = set().union(*(flags_of(f"tools/{path.name}") for path in (ROOT / "tools").glob("*.py")), flags.FLAGS, ["help"])
    for code in inline_code(TEXTS[name]):
        if code.startswith("--"):
            for word in shlex.split(code):
                check_flag(word, known)


def check_flag(word, known):
    flag, _, value = word.removeprefix("--").partition("=")
    if flag.startswith("config."):
        key = flag.removeprefix("config.")
        assert key in SETTINGS or key in ("key", "NAME"), word
        if key in SETTINGS and value and not value.isupper():
            rule = SETTINGS[key].rule
            assert rule.allows(rule.converted(rule.parse(value))), word
        return
    assert flag in known or flag.removeprefix("no") in known, word
    if not value or value.isupper() or "NAME" in value:
        return
    if flag in ("method", "methods", "compare") and value not in ("list", "all"):
        for method in value.removeprefix("auto").removeprefix(",").split(",") if value != "auto" else []:
            combined(method)
    elif flag == "dataset":
        assert value in DATASETS, word
    elif flag == "model" and not value.startswith("list"):
        find_network(value)
    elif flag == "config" and "/" not in value and value != "mine.py":
        load_recipe(value)


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    base = ROOT / "docs" if (ROOT / "docs" / name).is_file() else ROOT
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose(TEXTS[name])):
        assert target.startswith("https://") or (base / target).exists(), target


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_exist(name):
    for code in inline_code(TEXTS[name]):
        if re.fullmatch(rf"(?:{'|'.join(map(re.escape, TRACKED))})/[\w./*-]*", code):
            assert list(ROOT.glob(code.rstrip("/"))), code
        elif re.fullmatch(r"[\w/]+\.py", code) or (name in ("WORKSPACE.md", "design.md") and re.fullmatch(r"[\w/]+/", code)):
            assert (ROOT / code).exists() or any(f"/{file}".endswith(f"/{code.rstrip('/')}") for file in FILES), code


@pytest.mark.parametrize("name", TEXTS)
def test_modules_that_are_named_exist(name):
    for code in inline_code(TEXTS[name]):
        if re.fullmatch(r"crl_tf(\.\w+)+", code):
            owner, _, attribute = code.rpartition(".")
            assert hasattr(importlib.import_module(owner), attribute) or importlib.import_module(code), code


def test_the_yaml_is_a_schema_that_is_read(tmp_path):
    meanings = []
    for block in blocks(PAGES["your-data.md"], "yaml"):
        (tmp_path / "schema.yaml").write_text(block)
        meanings.append(read_table_schema("your-data", tmp_path / "schema.yaml"))
    of_columns, long = meanings
    assert of_columns.path == "file_name" and set(of_columns.labels) == {"season", "usage", "smiling", "tags"}
    assert long.long == {"label": "what", "value": "class"}


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("methods.md", METHODS),
        ("methods.md", LOSSES),
        ("methods.md", [name for name in RULES if name != "argmax"]),
        ("methods.md", RESAMPLING),
        ("methods.md", [name for name in TRAINERS if name != "gradient"]),
        ("networks.md", NETWORKS),
        ("your-data.md", DATASETS),
        ("training.md", [path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in DATASETS]),
        ("performance.md", [f"tools/{path.name}" for path in (ROOT / "tools").glob("bench_*.py")]),
    ],
    ids=["methods", "losses", "rules", "resampling", "trainers", "networks", "datasets", "recipes", "benchmarks"],
)
def test_every_row_of_a_table_has_its_line(page, names):
    lines = {code for line in PAGES[page].splitlines() if line.startswith("|") for code in inline_code(line.split("|")[1])}
    assert set(names) <= lines


def test_methods_say_where_they_are_from():
    rows = [line.split("|") for line in PAGES["methods.md"].splitlines() if line.startswith("| `")]
    sources = {name: row[3] for row in rows if len(row) == 6 for name in inline_code(row[1])}
    for name, method in METHODS.items():
        for year in re.findall(r"\b(?:19|20)\d\d\b", method.source.replace("Dong et al. 2018", "")):
            assert year in sources[name], name


def test_the_settings_are_those_of_the_program():
    import settings_table

    assert settings_table.with_table(PAGES["training.md"]) == PAGES["training.md"], "run python tools/settings_table.py"
    assert all(f"`{key}`" in PAGES["training.md"] for key in SETTINGS)
    assert settings_table.HELP.read_text(encoding="utf-8") == settings_table.help_text(), "run python tools/settings_table.py"


def test_the_reference_has_every_public_name():
    assert sorted(re.findall(r"^::: crl_tf\.(\w+)$", PAGES["reference.md"], re.M)) == sorted(
        set(crl_tf.__all__) - {"__version__"}
    )


def test_the_newest_version_is_the_programs():
    assert crl_tf.__version__ in re.search(r"^## (.+)$", TEXTS["CHANGELOG.md"], re.M)[1]


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    ran = subprocess.run(build, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert ran.returncode == 0 and "WARNING" not in ran.stderr, ran.stderr[-3000:]
    site = {path.parent.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("index.html")}
    assert len(site) == len(DOCS)
    assert "CRLModel" in site["reference"] and not re.search(r"(?:src|<link[^>]*href)=\"?https?://", "".join(site.values()))


def test_the_command_is_imported_for_its_flags():
    assert main.__doc__ and "method" in flags.FLAGS
