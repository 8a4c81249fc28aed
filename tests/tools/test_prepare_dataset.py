"""tools/prepare_dataset.py in a process of its own: what it writes and prints, and the line for what is wrong."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crl_tf.datasets import load_dataset

TOOL = Path(__file__).parents[2] / "tools" / "prepare_dataset.py"

SEVERAL = """
import contextlib, importlib.util, io, json, sys
from absl import flags
spec = importlib.util.spec_from_file_location("prepare_dataset", sys.argv[1])
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
found = []
for given in json.loads(sys.argv[2]):
    out, said = io.StringIO(), 0
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    with contextlib.redirect_stdout(out):
        try:
            tool.run(flags.FLAGS(["tool", *given]))
        except SystemExit as error:
            said = error.code
    found.append([said, out.getvalue()])
print("found:" + json.dumps(found))
"""
"""Several commands in one process, because importing TensorFlow takes seconds."""


def several(*commands):
    program = [sys.executable, "-c", SEVERAL, str(TOOL), json.dumps(commands)]
    ran = subprocess.run(program, capture_output=True, text=True)
    assert "found:" in ran.stdout, ran.stderr
    return json.loads(ran.stdout.split("found:")[1])


@pytest.fixture(scope="module")
def broken_shop(shop, tmp_path_factory):
    """Of 180 images one is cut off: fewer than 1 %."""
    folder = tmp_path_factory.mktemp("broken")
    header, *rows = csv.reader((shop / "attributes.csv").open())
    more = []
    for copy in range(3):
        for path, *rest in rows:
            shutil.copy(shop / path, folder / f"{copy}-{path}")
            more.append([f"{copy}-{path}", *rest])
    with (folder / "attributes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *more])
    broken = folder / "1-7.png"
    broken.write_bytes(broken.read_bytes()[:200])
    return folder


def test_prepares_and_says_how_to_train(shop, tmp_path):
    flags = ["--dataset=attribute_csv", f"--data_dir={shop}", "--out=out", "--shard_megabytes=1"]
    ran = subprocess.run([sys.executable, str(TOOL), *flags], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    folder = tmp_path / "out" / "crl_attribute_csv" / "1.0.0"
    where, train, read = ran.stdout.strip().splitlines()[-3:]
    assert re.fullmatch(rf"{folder}: train 36, validation 12, test 12; 3 shards, 0\.\d MB", where)
    assert train == f"train from it: python -m crl_tf.main --dataset=records --data_dir={folder}"
    assert read == f"read it: tfds.load('crl_attribute_csv', data_dir='{tmp_path / 'out'}')"
    records = load_dataset("records", data_dir=str(folder))
    source = load_dataset("attribute_csv", data_dir=str(shop))
    assert records.schema == source.schema
    assert {s: p.labels.tolist() for s, p in records.splits.items()} == {s: p.labels.tolist() for s, p in source.splits.items()}


def test_verifying_skipping_and_what_is_wrong(shop, broken_shop, tmp_path):
    good = ["--dataset=attribute_csv", f"--data_dir={shop}", f"--out={tmp_path / 'good'}"]
    bad = ["--dataset=attribute_csv", f"--data_dir={broken_shop}", f"--out={tmp_path / 'bad'}"]
    (tmp_path / "file").write_text("")
    found = several(
        good,
        ["--verify", f"--out={tmp_path / 'good'}"],
        [*good, "--seed=1"],
        ["--dataset=attribute_csv"],
        bad,
        [*bad, "--skip_unreadable"],
        [*bad[:2], "--skip_unreadable", f"--out={tmp_path / 'skipped'}"],
        ["--verify", f"--out={tmp_path / 'nothing'}"],
        [*good[:2], f"--out={tmp_path / 'file'}"],
        [*good[:1], "--data_dir=/nowhere", f"--out={tmp_path / 'new'}"],
    )
    prepared, verified, other, no_out, unreadable, begun, skipped, nothing, no_folder, no_source = found
    folder = tmp_path / "good" / "crl_attribute_csv" / "1.0.0"
    assert prepared[0] == 0 and prepared[1].startswith(f"{folder}: train 36")
    assert verified[0] == 0 and verified[1].endswith("every checksum is as it was written\n")
    assert other[0].startswith(f"crl_tf: prepare: {folder} holds another dataset, or this one with other labels, files, seed")
    assert no_out[0] == "prepare_dataset: give --out, the folder to write to"
    assert unreadable[0].startswith("crl_tf: prepare: ") and f"{broken_shop}/1-7.png" in unreadable[0]
    assert begun[0].startswith(f"crl_tf: prepare: {tmp_path / 'bad'}/crl_attribute_csv/1.0.0 holds another dataset")
    assert skipped[0] == 0 and f"{tmp_path / 'skipped'}/crl_attribute_csv/1.0.0: train 107, validation 36, test 36;" in skipped[1]
    assert nothing[0].startswith(f"crl_tf: records: no crl_tf.json in {tmp_path / 'nothing'} or up to two folders below")
    assert no_folder[0].startswith(f"crl_tf: prepare: folder {tmp_path / 'file'}/crl_attribute_csv/1.0.0 must be writable")
    assert "/nowhere" in no_source[0] and not (tmp_path / "new").exists()
    assert all("\n" not in str(said) for said, _ in found)

    shard = next(folder.glob("*tfrecord*"))
    content = bytearray(shard.read_bytes())
    content[-20] ^= 1
    shard.write_bytes(content)
    ((said, _),) = several(["--verify", f"--out={tmp_path / 'good'}"])
    assert said.startswith(f"crl_tf: records: {shard} is damaged, its checksum is another than when it was written")
