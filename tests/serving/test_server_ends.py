"""How the server begins and ends, and what it says when it is full."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import served_model as case
from served_model import GREEN, RED, of_bytes, predict, ready

from crl_tf.serving.limits import Limits
from crl_tf.serving.server import Server, make_app


class Slow:
    """A loaded export whose model waits for a gate after the warm-up."""

    def __init__(self, served):
        self.served, self.gate, self.entered = served, threading.Event(), threading.Event()

    def __getattr__(self, name):
        return getattr(self.served, name)

    def answer(self, signature, **inputs):
        if len(next(iter(inputs.values()))) > 1:
            self.entered.set()
            assert self.gate.wait(30)
        return self.served.answer(signature, **inputs)


def test_a_full_queue_is_said_and_what_was_accepted_is_answered(served):
    slow = Slow(served)
    limits = Limits(queue=4, images=4)
    with case.running(make_app(slow, name="tiny", limits=limits)) as server, httpx.Client(base_url=server.address) as client:
        ready(client)
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(predict, client, of_bytes(RED, RED))
            assert slow.entered.wait(30)
            others = [pool.submit(predict, client, of_bytes(RED, GREEN)) for _ in range(6)]
            while sum(other.done() for other in others) < 4:  # two wait, and four were refused
                time.sleep(0.05)
            slow.gate.set()
            statuses = sorted(other.result().status_code for other in others)
        assert first.result().status_code == 200 and statuses == [200] * 2 + [503] * 4


def test_a_server_that_stops_answers_what_it_has_accepted(served):
    slow = Slow(served)
    with case.running(make_app(slow, name="tiny")) as server, httpx.Client(base_url=server.address, timeout=30) as client:
        ready(client)
        with ThreadPoolExecutor(4) as pool:
            accepted = [pool.submit(predict, client, of_bytes(RED, RED)) for _ in range(3)]
            assert slow.entered.wait(30)
            time.sleep(0.3)
            server.stop()
            time.sleep(0.5)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.address}/healthz")
            slow.gate.set()
            assert [future.result().status_code for future in accepted] == [200] * 3


def test_a_server_that_stops_does_not_wait_for_ever(served):
    slow, limits = Slow(served), Limits(seconds=1)
    began = time.monotonic()
    with case.running(make_app(slow, name="tiny", limits=limits), seconds=1) as server:
        with httpx.Client(base_url=server.address, timeout=30) as client, ThreadPoolExecutor(1) as pool:
            ready(client)
            asked = pool.submit(predict, client, of_bytes(RED, RED))
            assert slow.entered.wait(30)
            server.stop()
            error = asked.exception(20)
            assert isinstance(error, httpx.TransportError) or asked.result().status_code >= 500
    assert time.monotonic() - began < 20
    slow.gate.set()


def test_a_port_that_is_taken_is_named(served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"port {port} of 127.0.0.1 cannot be had \(.*\); choose another"):
            Server(make_app(served), port=port)
    with pytest.raises(ValueError, match="port must be between 0 and 65535, received 70000"):
        Server(make_app(served), port=70_000)
    with pytest.raises(ValueError, match="name must be of letters"):
        make_app(served, name="a/b")
    with pytest.raises(ValueError, match="queue must be > 0, received 0"):
        Limits(queue=0)


PROGRAM = """
import sys
from crl_tf.serving.served import load_served
from crl_tf.serving.server import run_server
run_server(load_served(sys.argv[1]), port=0, started=lambda address: print(address, flush=True))
print("ended", flush=True)
"""


def test_a_signal_ends_it_cleanly(folder):
    command, environment = [sys.executable, "-c", PROGRAM, str(folder)], {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    numbers = (signal.SIGTERM, signal.SIGINT)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in numbers]
    for process, number in zip(processes, numbers, strict=True):
        with process:
            with httpx.Client(base_url=process.stdout.readline().strip(), timeout=30) as client:
                ready(client)
                assert json.loads(client.get("/v1/models/model").text)
            process.send_signal(number)
            assert process.stdout.read().strip() == "ended" and process.wait(30) == 0


def test_a_missing_extra_is_named():
    program = "import sys; sys.modules['fastapi'] = None; import crl_tf.serving.server"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "a server needs fastapi: pip install 'crl_tf[serve]'" in ran.stderr
