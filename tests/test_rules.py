"""The floors of the house (WORKSPACE.md): imports run downwards only, no file does too much, none is a cellar for leftovers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "crl_tf"

FLOORS = [
    {"schema", "imbalance", "layout", "recipe", "files"},
    {"datasets", "losses", "models", "metrics", "decision", "divergence", "optimization", "workdir"},
    {"methods", "crl_model", "recipe_data"},
    {"training", "evaluation", "export", "report", "inspection", "linear_svm", "embedding"},
    {"experiment"},
    {"comparing"},
    {"main"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_name(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported_modules(path):
    modules = {module_name(p) for p in FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "crl_tf")
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "crl_tf"):
            assert node.level == 0, f"{path.name}: relative import"
            # "from crl_tf import report" imports the module crl_tf.experiment.report.
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module


def test_every_room_has_a_floor():
    assert {room(p) for p in FILES} - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("path", [p for p in FILES if room(p) != "__init__"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    mine = room(path)
    for module in imported_modules(path):
        if module == "crl_tf":
            pytest.fail(f"{path.name} imports the package's front door; import the room")
        theirs = module.split(".")[1]
        assert theirs == mine or FLOOR[theirs] < FLOOR[mine], f"{path.relative_to(ROOT)} imports {module}"


def test_no_circle():
    graph = {module_name(p): set(imported_modules(p)) for p in FILES}
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
    settled = {"crl_tf", "configs", "tools", "tests", "setup.py", "WORKSPACE.md", "README.md", "pyproject.toml", "LICENSE"}
    settled |= {"constraints.txt", "runs"}
    top = {p.name for p in ROOT.iterdir() if not p.name.startswith(".") and not p.name.endswith(".egg-info")}
    assert top - {"build", "dist"} <= settled
