"""The four rules of the house (docs/design.md): imports run one way, only the command prints, one interface, one setting."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crl_tf.datasets import DATASETS
from crl_tf.datasets.resampling import RESAMPLING
from crl_tf.decision import RULES
from crl_tf.experiment.methods import METHODS
from crl_tf.experiment.settings import SETTINGS
from crl_tf.experiment.trainers import TRAINERS
from crl_tf.losses.crl.comparison import COMPARISONS
from crl_tf.losses.table import LOSSES
from crl_tf.models import NETWORKS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "crl_tf"
FILES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))
WINGS = ("models", "datasets", "experiment", "serving", "main")


def wing(module):
    """The wing of a module; the files at the top, losses/ and layers/ are the library."""
    part = module.split(".")[1] if "." in module else ""
    if part in ("ending", "console", "commands", "command_flags", "help"):  # with main.py the command
        return "main"
    return part if part in WINGS else "library"


MAY_IMPORT = {
    "library": {"library"},
    "models": {"library", "models"},
    "datasets": {"library", "datasets"},
    "serving": {"library", "models", "serving", "datasets.images"},
    "experiment": {"library", "models", "datasets", "serving", "experiment"},
    "main": {"library", "models", "datasets", "serving", "experiment", "main"},
}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path):
    modules = {module_name(file) for file in FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "crl_tf")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if (node.module or "").split(".")[0] == "crl_tf":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in modules else node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    mine = wing(module_name(path))
    for module in imported_modules(path):
        if (path.name, module) == ("__init__.py", "crl_tf.help") and path.parent == PACKAGE:
            continue  # before anything is loaded
        if module == "crl_tf":
            assert mine == "main", f"{path.name} imports the package's public names; import the module"
            continue
        allowed = any(wing(module) == name or module.startswith(f"crl_tf.{name}") for name in MAY_IMPORT[mine])
        assert allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_no_circle():
    graph = {module_name(file): set(imported_modules(file)) for file in FILES}
    done, path = set(), []

    def visit(module):
        assert module not in path, f"circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            path.append(module)
            for other in graph.get(module, ()):
                visit(other)
            path.pop()
            done.add(module)

    for module in graph:
        visit(module)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_prints(path):
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not prints, f"{path.name}:{prints[0].lineno} prints"
    text = path.read_text()
    if wing(module_name(path)) != "main":
        assert "sys.stdout" not in text and "rich.progress" not in text and "Console(" not in text
        shown = re.search(r"verbose=(?!0)", text)
        assert not shown, f"{path.name}: Keras prints with verbose"


@pytest.mark.parametrize("path", [*FILES, *TOOLS], ids=lambda path: path.name)
def test_whoever_uses_a_row_never_asks_for_its_type(path):
    """No isinstance of a loss, layer or trainer class outside the file that defines it."""
    tree = ast.parse(path.read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    classes = {name for file in FILES for name in re.findall(r"^class (\w+(?:Loss|CRL)?)\(", file.read_text(), re.M)}
    rows = {name for name in classes if name.endswith("Loss") or name in ("CRL", "MultiLabelCrossEntropy")} - {"Loss"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            assert not (asked & rows) - defined, f"{path.name}:{node.lineno} asks for the type of a loss"


def test_one_table_for_each_kind_of_thing():
    tables = {
        "LOSSES": LOSSES,
        "COMPARISONS": COMPARISONS,
        "NETWORKS": NETWORKS,
        "DATASETS": DATASETS,
        "RESAMPLING": RESAMPLING,
        "RULES": RULES,
        "TRAINERS": TRAINERS,
        "METHODS": METHODS,
        "SETTINGS": SETTINGS,
    }
    for name, rows in tables.items():
        assert len({type(row) for row in rows.values()}) == 1, f"the rows of {name} have several types"
        places = [file for file in FILES if re.search(rf"^{name}\b.* = ", file.read_text(), re.M)]
        assert len(places) == 1, f"{name} is defined in {places}"


def test_every_part_of_a_method_is_a_row_of_its_table():
    for name, row in METHODS.items():
        for part, table in (("loss", LOSSES), ("trainer", TRAINERS), ("resampling", RESAMPLING), ("rule", RULES)):
            assert getattr(row, part) is None or getattr(row, part) in table, (name, part)
    assert set(LOSSES) <= set(METHODS) and set(TRAINERS) - {"gradient"} <= set(METHODS)


def test_a_setting_has_one_name_and_no_second_meaning():
    flags = [setting.flag for setting in SETTINGS.values() if setting.flag]
    assert len(set(flags)) == len(flags)
    for key, setting in SETTINGS.items():
        assert setting.rule.allows(setting.default), key
        assert setting.default != -1, f"{key}: -1 stands for something else"


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_is_read_somewhere(key):
    name = key.split(".")[-1]
    readers = [path for path in FILES if path.name != "settings.py" and re.search(rf"\b{name}\b", path.read_text())]
    assert readers, f"nothing reads {key}"


@pytest.mark.parametrize("folder", ["crl_tf", "tools", "configs", "tests"])
def test_no_file_over_400_lines_and_no_utils(folder):
    for path in (ROOT / folder).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
        assert not any(word in path.stem for word in ("util", "helper", "common", "misc")), path


def test_ruff_is_clean():
    for command in (["check"], ["format", "--check"]):
        ran = subprocess.run([sys.executable, "-m", "ruff", *command, ROOT], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout


def test_only_the_settled_names_stand_at_the_top():
    settled = {"crl_tf", "configs", "tools", "tests", "docs", "setup.py", "pyproject.toml", "mkdocs.yml", "LICENSE"}
    settled |= {"WORKSPACE.md", "README.md", "CHANGELOG.md", "runs", "site"}
    top = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and not path.name.endswith(".egg-info")}
    assert top - {"build", "dist"} <= settled


def test_tests_mirror_the_package():
    """Every folder of tests is a folder of the package (or tools, cases and fixtures)."""
    for folder in (path for path in (ROOT / "tests").rglob("*") if path.is_dir() and list(path.glob("test_*.py"))):
        inside = folder.relative_to(ROOT / "tests")
        assert (PACKAGE / inside).is_dir() or inside.parts[0] == "tools", inside


def test_every_imported_distribution_is_declared():
    from importlib.metadata import packages_distributions

    distributions = packages_distributions()
    declared = {re.split(r"[<>=\[]", line)[0].lower().replace("_", "-") for line in _requirements()}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"crl_tf"}:
                of_module = {distribution.lower().replace("_", "-") for distribution in distributions[name]}
                assert of_module & declared, f"{path.name} imports {name}, of {of_module}, which setup.py does not declare"


def _requirements():
    """What is always installed, and what the extras need that a user of the command chooses."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (call,) = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup"]
    always = ast.literal_eval(next(keyword.value for keyword in call.keywords if keyword.arg == "install_requires"))
    extras = [n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id in ("LITERT", "ONNX", "SERVE")]
    return [*always, *(line for extra in extras for line in ast.literal_eval(extra))]
