"""Measures seconds to open a manifest of a million rows and forty labels, to its first batch, and peak memory.

    python tools/bench_manifest.py                          1,000,000 rows x 40 labels, CSV and Parquet
    python tools/bench_manifest.py --rows=100000 --json=found.json
    python tools/bench_manifest.py --rows=10000000 --machines=4 --rounds=1 --only=parquet       one of four machines

Each row of the table is a fresh process on --cores cores that does what a run does: `load_dataset`, then `make_pipeline` of
the training images (batches of 256, shuffled) and its first batch, of which one of --machines reads its share. The peak is the
kernel's high-water mark of the resident set (VmHWM; `getrusage` elsewhere), beside the one after the imports alone.

Every path is a directory entry of its own, in folders of 10,000, and leads to an image: entries are hard links to --images
JPEG files, since a million files would measure the disk. The loader looks for every one of them. Labels have 2 to 10 classes
that fall off by a power law; "seeded split" is the same table without its column `split`.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from rich.console import Console
from rich.table import Table

PER_FOLDER = 10_000
BATCH = 256
MEASURED = {
    "csv": ("attributes.csv", True),
    "csv, seeded split": ("unsplit.csv", True),
    "parquet": ("attributes.parquet", True),
    "parquet, seeded split": ("unsplit.parquet", True),
    "parquet, images not looked for": ("attributes.parquet", False),
}
"""The file, and whether its images are looked for."""
SHOWN = {
    "open_seconds": ("open s", 2),
    "open_cpu_seconds": ("(CPU s)", 2),
    "batch_seconds": ("batch s", 2),
    "imports_mb": ("imports", 0),
    "open_mb": ("opened", 0),
    "batch_mb": ("batch", 0),
}

# No heavy imports here: the memory of this process would count in those that it starts.
_ROWS = flags.DEFINE_integer("rows", 1_000_000, "rows of the manifest", lower_bound=100)
_LABELS = flags.DEFINE_integer("labels", 40, "labels", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 1_000, "image files that the paths lead to", lower_bound=1)
_CORES = flags.DEFINE_integer("cores", 1, "processor cores that each measurement may use", lower_bound=1)
_MACHINES = flags.DEFINE_integer("machines", 1, "machines that share each batch", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "measurements of each row; the table shows the median", lower_bound=1)
_ONLY = flags.DEFINE_multi_enum("only", None, list(MEASURED), "measure this row of the table; can be given several times")
_FOLDER = flags.DEFINE_string("folder", None, "where to write the files for the time being; default: the temporary folder")
_JSON = flags.DEFINE_string("json", None, "file for the measurements; default: none is written")


def generate(folder_name: str, rows: int, labels: int, images: int) -> None:
    """Writes the images and the tables into a folder."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet
    import tensorflow as tf

    rng, folder, originals = np.random.default_rng(0), Path(folder_name), []
    (folder / "originals").mkdir()
    for number in range(images):
        pixels = tf.constant(np.kron(rng.integers(0, 256, (8, 6, 3)), np.ones((8, 8, 1))), tf.uint8)
        originals.append(folder / "originals" / f"{number}.jpg")
        originals[-1].write_bytes(tf.io.encode_jpeg(pixels).numpy())
    names = [f"images/{row // PER_FOLDER:04d}/{row:08d}.jpg" for row in range(rows)]
    for row, name in enumerate(names):
        if row % PER_FOLDER == 0:
            (folder / name).parent.mkdir(parents=True)
        os.link(originals[row % images], folder / name)
    # At least one row in each split.
    splits = np.append([0, 1, 2], rng.choice(3, rows - 3, p=[0.8, 0.1, 0.1])).astype(np.int32)
    columns = {"path": pa.array(names), "split": pa.DictionaryArray.from_arrays(splits, ["train", "val", "test"])}
    for label in range(labels):
        law = 1.0 / np.arange(1, 3 + label % 9) ** 2
        codes = np.append([0, 1], rng.choice(len(law), rows - 2, p=law / law.sum())).astype(np.int32)
        columns[f"label {label}"] = pa.DictionaryArray.from_arrays(codes, [f"class {k}" for k in range(len(law))])
    table = pa.table(columns)
    for with_split, stem in ((table, "attributes"), (table.drop_columns("split"), "unsplit")):
        pa.parquet.write_table(with_split, folder / f"{stem}.parquet")
        texts = pa.table(
            {name: column.cast(pa.string()) for name, column in zip(with_split.column_names, with_split, strict=True)}
        )
        pa.csv.write_csv(texts, folder / f"{stem}.csv")


def measure(path: str, check_images: bool, machines: int) -> dict[str, Any]:
    """One measurement, in this process."""
    import tensorflow  # noqa: F401

    from crl_tf.datasets import load_dataset
    from crl_tf.datasets.pipeline import Shares, make_pipeline

    imports, started, cpu = peak_mb(), time.perf_counter(), time.process_time()
    dataset = load_dataset("attribute_csv", data_dir=path, check_images=check_images)
    opened, opened_cpu, open_mb = time.perf_counter(), time.process_time(), peak_mb()
    shares = Shares(0, 1, machines)
    data = make_pipeline(dataset.splits["train"], image_size=(64, 48), batch_size=BATCH, training=True, shares=shares)
    images, _ = next(iter(data))
    return {
        "open_seconds": opened - started,
        "open_cpu_seconds": opened_cpu - cpu,
        "batch_seconds": time.perf_counter() - opened,
        "imports_mb": imports,
        "open_mb": open_mb,
        "batch_mb": peak_mb(),
        "batch": list(images.shape),
        "splits": {name: len(split) for name, split in dataset.splits.items()},
    }


def peak_mb() -> float:
    """High-water mark of this process's resident set, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Unlike getrusage, VmHWM does not begin with the memory of the parent process.
        return next(int(line.split()[1]) * 1024 / 1e6 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def in_fresh_process(call: str, *arguments: object) -> Any:
    """The result of a function of this file, called in a process of its own."""
    code = "import json, sys, bench_manifest as b; print(json.dumps(getattr(b, sys.argv[1])(*json.loads(sys.argv[2]))))"
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    ran = subprocess.run(
        [sys.executable, "-c", code, call, json.dumps(arguments)], capture_output=True, text=True, env=environment
    )
    if ran.returncode:
        sys.exit(f"bench_manifest: {ran.stderr.strip().splitlines()[-1]}")
    return json.loads(ran.stdout.splitlines()[-1])


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"flags only, received {argv[1:]}")
    if _FOLDER.value is not None and not os.path.isdir(_FOLDER.value):
        sys.exit(f"bench_manifest: folder must be a folder that is there, received {_FOLDER.value!r}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: _CORES.value])
    with tempfile.TemporaryDirectory(prefix="bench_manifest-", dir=_FOLDER.value) as folder:
        started = time.perf_counter()
        in_fresh_process("generate", folder, _ROWS.value, _LABELS.value, _IMAGES.value)
        generated = time.perf_counter() - started
        sizes = {name: os.path.getsize(Path(folder) / file) / 1e6 for name, (file, _) in MEASURED.items()}
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in _ONLY.value or MEASURED}
        for _ in range(_ROUNDS.value):
            for name in rounds:
                file, check_images = MEASURED[name]
                rounds[name].append(in_fresh_process("measure", str(Path(folder) / file), check_images, _MACHINES.value))
    about = {
        "rows": _ROWS.value,
        "labels": _LABELS.value,
        "cores": _CORES.value,
        "batch": BATCH,
        "machines": _MACHINES.value,
        "generate_seconds": generated,
    }
    result = {**about, "python": platform.python_version(), "machine": platform.machine(), "file_mb": sizes, "rounds": rounds}
    title = f"{_ROWS.value:,} rows x {_LABELS.value} labels, {_CORES.value} core(s), median of {_ROUNDS.value}; peak memory in MB"
    table = Table("", "file MB", *(head for head, _ in SHOWN.values()), title=title, title_justify="left")
    for name, measured in rounds.items():
        middle = {key: sorted(one[key] for one in measured)[len(measured) // 2] for key in SHOWN}
        table.add_row(name, f"{sizes[name]:,.0f}", *(f"{middle[key]:,.{digits}f}" for key, (_, digits) in SHOWN.items()))
    # A narrow terminal would cut off figures.
    Console(width=100).print(table)
    if _JSON.value:
        from crl_tf.files import write_json

        write_json(Path(_JSON.value), result)


if __name__ == "__main__":
    app.run(main)
