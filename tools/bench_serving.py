"""Measures what serving costs: the SavedModel against the bare Keras model, and the server under load over loopback.

    python tools/bench_serving.py --json=bench.json          DeepID2 with CelebA's labels, about two minutes
    python tools/bench_serving.py --network=resnet32 --clients=1,64 --seconds=20
    python tools/bench_serving.py --quick                    only that it works, in seconds: no figures to quote

Calls: a batch of --batch images as the Keras model in a tf.function takes them, and as the signatures of its export do; one
process, interleaved rounds (tools/measuring.py), ratios within each round. The Keras model is measured twice: the ratio of
"Keras, again" shows how far from 1 a ratio is by chance.

Load: the server runs in a process of its own. So many clients at a time each send a JPEG as JSON (`image_bytes`), wait for the
answer and send the next, for --seconds, in turn in every round. Every answer must be 200 and its decisions those of the picture
that was sent. A request is lost if it has no answer. Clients and server share the machine's cores. What the server adds to a lone
request shows beside a call of one picture without it. Memory is the server's resident size: after a warm-up with all clients,
and after each round.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_tables
import keras
import measuring
import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from measuring import Item, repeated

from crl_tf.ending import ended_in_one_line
from crl_tf.files import write_json
from crl_tf.models import build_network, find_network
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import BYTES, DEFAULT, UINT8, export_saved_model
from crl_tf.serving.scoring import INDEX
from crl_tf.serving.served import Served, load_served

KERAS, CONTROL = "Keras model", "Keras model, again (A/A)"
PICTURES = 16
"""JPEGs that clients send in turn."""

CHECKED = 10
"""Of so many answers one is compared with what the model says of the picture."""

WITHIN = 20.0
"""Seconds without an answer after which a request is lost."""

_NETWORK = flags.DEFINE_string("network", "deepid2", "which network, a row of NETWORKS or keras:NAME")
_BATCH = flags.DEFINE_integer("batch", 64, "images of a call", lower_bound=1)
_CLIENTS = flags.DEFINE_list("clients", ["1", "8", "64"], "how many clients at a time")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "visits of every row", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 5.0, "of a load; a call is repeated for a tenth of it", lower_bound=0.01)
_QUICK = flags.DEFINE_bool("quick", False, "CifarNet, 2 rounds of a moment: that it works")
_JSON = flags.DEFINE_string("json", None, "JSON file for every number")

SERVER = "import sys; from crl_tf.serving.server import run_server; from crl_tf.serving.served import load_served; " + (
    "run_server(load_served(sys.argv[1]), port=0, started=lambda address: print(address, flush=True))"
)


class Export(NamedTuple):
    """An export and the model it is of."""

    model: keras.Model
    served: Served


class Load(NamedTuple):
    """What clients met: seconds of each answer, how many were refused or wrong or lost, and how long it took."""

    latencies: list[float]
    refused: int
    wrong: int
    lost: int
    seconds: float


def exported(name: str, folder: Path) -> Export:
    """Exports an untrained network."""
    row = find_network(name)
    keras.utils.set_random_seed(0)
    network = build_network(name, image_size=row.image_size, num_classes=row.published_classes)
    model = keras.Model(network.input, network.output["logits"])
    labels = tuple(
        Attribute(f"label{i}", tuple(f"class {k}" for k in range(size))) for i, size in enumerate(row.published_classes)
    )
    export_saved_model(model, AttributeSchema(labels), row.image_size, folder)
    return Export(model, load_served(folder))


def pictures(size: tuple[int, int]) -> list[bytes]:
    """JPEGs of noise and smooth shapes, of the size that is asked for."""
    rng = np.random.default_rng(0)
    smooth = [tf.image.resize(rng.normal(128, 60, (4, 4, 3)), size, "bicubic").numpy() for _ in range(PICTURES)]
    noisy = [np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8) for image in smooth]
    return [tf.io.encode_jpeg(image, quality=80).numpy() for image in noisy]


def calls(export: Export, batch: int) -> list[Item]:
    """A call of the Keras model, twice, and of three signatures."""
    contents = (pictures(export.served.image_size) * (batch // PICTURES + 1))[:batch]
    pixels = np.stack([tf.io.decode_jpeg(content).numpy() for content in contents])
    floats, integers, encoded = tf.constant(pixels, tf.float32), tf.constant(pixels), tf.constant(contents)
    forward = tf.function(lambda: export.model(floats, training=False))
    signatures = export.served.signatures
    programs: dict[str, Callable[[], Any]] = {
        KERAS: forward,
        CONTROL: forward,
        f"SavedModel, {DEFAULT}": lambda: signatures[DEFAULT](images=floats),
        f"SavedModel, {UINT8}": lambda: signatures[UINT8](images=integers),
        f"SavedModel, {BYTES}": lambda: signatures[BYTES](image_bytes=encoded),
    }

    return [Item(name, repeated(program)) for name, program in programs.items()]


def measured_calls(export: Export, batch: int, rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Seconds of a call by its name, and the ratio to the Keras model's."""
    items = calls(export, batch)
    for item in items:
        measuring.calibrate(item, seconds)
    measuring.measure(items, rounds=rounds, seconds=seconds, seed=0, report=lambda _: None)
    ratios = {item.name: measuring.quartiles(measuring.quotient(item, items[0])) for item in items}
    return {item.name: {**measuring.quartiles(list(item.by_round.values())), "ratio": ratios[item.name]} for item in items}


def one_picture(served: Served, times: int) -> dict[str, Any]:
    """Seconds of a call with one JPEG, without a server."""
    content, values = pictures(served.image_size)[0], []
    for _ in range(times + 5):
        began = time.perf_counter()
        served.answer(BYTES, image_bytes=tf.constant([content]))
        values.append(time.perf_counter() - began)
    return measuring.quartiles(values[5:])


class Question(NamedTuple):
    """A request as it is sent, and the decisions that its answer must hold."""

    content: bytes
    decisions: dict[str, int]


def questions(served: Served, address: str) -> list[Question]:
    """A request for each picture."""
    host = urlsplit(address).netloc
    asked = []
    for content in pictures(served.image_size):
        instance = {"b64": base64.b64encode(content).decode()}
        body = json.dumps({"signature_name": BYTES, "instances": [instance]}).encode()
        head = f"POST /v1/models/model:predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        outputs = served.answer(BYTES, image_bytes=tf.constant([content]))
        decisions = {name: int(value[0]) for name, value in outputs.items() if name.endswith(INDEX)}
        asked.append(Question(head.encode() + body, decisions))
    return asked


async def load(address: str, asked: Sequence[Question], clients: int, seconds: float) -> Load:
    """So many clients ask one question after the other for so long."""
    parts = urlsplit(address)
    latencies: list[float] = []
    refused = wrong = lost = 0
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal refused, wrong, lost
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        place = number
        try:
            while time.perf_counter() < end:
                question, place = asked[place % len(asked)], place + 1
                began = time.perf_counter()
                try:
                    status, body = await asyncio.wait_for(answer(reader, writer, question.content), WITHIN)
                except (OSError, asyncio.IncompleteReadError, TimeoutError):
                    lost += 1
                    return
                latencies.append(time.perf_counter() - began)
                refused += status != 200
                if status == 200 and place % CHECKED == 0:
                    row = json.loads(body)["predictions"][0]
                    wrong += any(row[name] != index for name, index in question.decisions.items())
        finally:
            writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return Load(latencies, refused, wrong, lost, time.perf_counter() - began)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer to one request of a connection that stays open."""
    writer.write(question)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


def measured_loads(export: Export, clients: Sequence[int], rounds: int, seconds: float) -> dict[str, Any]:
    """Latencies and throughput for each number of clients, and the server's memory."""
    command = [sys.executable, "-c", SERVER, str(export.served.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError("the server did not start")
            asked = questions(export.served, address)
            # The model's first calls of each batch size prepare its kernels.
            asyncio.run(load(address, asked, max(clients), max(0.5, seconds / 2)))
            memory = [resident(process.pid)]
            rows: dict[int, list[Load]] = {count: [] for count in clients}
            for _ in range(rounds):
                for count in clients:
                    rows[count].append(asyncio.run(load(address, asked, count, seconds)))
                memory.append(resident(process.pid))
        finally:
            process.terminate()
        ended = process.wait(60)
    return {"clients": {str(count): summary(of) for count, of in rows.items()}, "memory_bytes": memory, "exit_code": ended}


def summary(loads: Sequence[Load]) -> dict[str, Any]:
    """One row of the table: percentiles over all requests, throughput of each round."""
    latencies = [latency for of in loads for latency in of.latencies]
    p50, p99 = np.percentile(latencies, [50, 99]).tolist() if latencies else (None, None)
    counts = {key: sum(getattr(of, key) for of in loads) for key in ("refused", "wrong", "lost")}
    throughput = measuring.quartiles([len(of.latencies) / of.seconds for of in loads])
    return {"requests": len(latencies), **counts, "p50_seconds": p50, "p99_seconds": p99, "per_second": throughput}


def resident(process: int) -> int | None:
    """The resident size of a process in bytes; None where the system does not say."""
    status = Path(f"/proc/{process}/status")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status.read_text(), re.M) if status.exists() else None
    return 1024 * int(found[1]) if found else None


def run(argv: Sequence[str]) -> None:
    """Measures what the flags say, prints the tables and writes --json."""
    started = time.perf_counter()
    logging.set_verbosity(logging.WARNING)  # an export tells much of itself
    name, rounds, seconds = ("cifarnet", 2, 0.3) if _QUICK.value else (_NETWORK.value, _ROUNDS.value, _SECONDS.value)
    with ended_in_one_line(), tempfile.TemporaryDirectory(prefix="bench_serving-") as scratch:
        if not all(text.isdecimal() and int(text) > 0 for text in _CLIENTS.value):
            raise ValueError(f"clients must be whole numbers > 0, received {','.join(_CLIENTS.value)}")
        clients = [int(text) for text in _CLIENTS.value]
        export = exported(name, Path(scratch) / "export")
        result = {
            "network": name,
            "batch": _BATCH.value,
            "calls": measured_calls(export, _BATCH.value, rounds, seconds / 10),
            "one_picture_seconds": one_picture(export.served, 20 if _QUICK.value else 500),
            "load": measured_loads(export, clients, rounds, seconds),
        }
        result = {**measuring.facts(measuring.cores(), started), **result}
        benchmark_tables.show(result, benchmark_tables.serving(result))
        if _JSON.value:
            write_json(Path(_JSON.value), result)


if __name__ == "__main__":
    app.run(run)
