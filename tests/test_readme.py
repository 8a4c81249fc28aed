"""README's code runs as it stands, in order, and its two lines name files and flags that exist."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_python_code_runs(tmp_path):
    # One block serves an exported model: an untrained one of the right shape stands in for the user's.
    export = """
from crl_tf.serving.export import export_saved_model
from crl_tf.models import build_network
from crl_tf.schema import Attribute, AttributeSchema
from pathlib import Path
schema = AttributeSchema((Attribute("season", ("summer", "winter")), Attribute("5 o'clock/shadow", ("no", "yes", "maybe"))))
network = CRLModel(build_network("deepid2", image_size=(32, 32), num_classes=schema.num_classes))
export_saved_model(network, schema, (32, 32), Path("runs/mine/export"))
"""
    code = blocks("python")
    serving = next(block for block in code if "saved_model.load" in block)
    code.remove(serving)
    assert len(code) == 5
    script = "\n".join([*code, export, serving])
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    logs, *served = ran.stdout.splitlines()
    # What README says is printed.
    assert f"# {logs}\n" in README
    starts = ["5 o'clock/shadow {'no': ", "season {'summer': "]
    assert [line.startswith(start) for line, start in zip(sorted(served), starts, strict=True)] == [True, True]


def test_its_commands_are_flags_that_exist():
    from absl import flags

    # Their flags are those of crl_tf.main and their own.
    for tool in ("prepare_dataset",):
        spec = importlib.util.spec_from_file_location(tool, ROOT / "tools" / f"{tool}.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    for line in blocks("bash"):
        for flag in re.findall(r"--(\w+)(?:=|\s|$)", re.sub("-c tools|-m pytest.*", "", line)):
            assert flag in flags.FLAGS, flag
    for path in re.findall(r"`((?:configs|tools)/[\w./]*)`", README):
        assert (ROOT / path).exists(), path


def test_ci_finds_both_lines():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for name, word in (("main-line", "crl_tf.main --compare=ce,class_rel"), ("test-line", "-m pytest")):
        assert name in script
        found = re.search(rf"<!-- {name} -->\n```bash\n(.+)\n```\n", README)
        assert found and "\n" not in found[1] and word in found[1] and found[1].startswith("python3 -m venv")


def test_its_yaml_is_a_schema_that_is_read(tmp_path):
    from crl_tf.datasets.tables.schema import read_table_schema

    (block,) = blocks("yaml")
    (tmp_path / "schema.yaml").write_text(block)
    meaning = read_table_schema("readme", tmp_path / "schema.yaml")
    assert meaning.path == "file_name" and set(meaning.labels) == {"season", "usage", "smiling", "tags"}
