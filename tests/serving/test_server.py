"""The server over loopback: the REST contract, the page's own questions, and limits."""

import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import served_model as case
from served_model import GREEN, RED, of_bytes, predict, ready

from crl_tf.serving.limits import Limits
from crl_tf.serving.server import make_app

LIMITS = Limits(body_bytes=200_000, held_bytes=300_000, images=16, pixels=20_000, queue=64, seconds=1.5)


@pytest.fixture(scope="module")
def address(served):
    with case.running(make_app(served, name="tiny", limits=LIMITS, neighbours=case.neighbours())) as server:
        yield server.address


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, timeout=30) as client:
        ready(client)
        yield client


def images(count, side=4):
    return np.random.default_rng(count).integers(0, 255, (count, side, side + 1, 3)).astype(np.float32)


@pytest.mark.parametrize("path", ["/v1/models/tiny:predict", "/v1/models/tiny/versions/1:predict"])
def test_predictions_are_those_of_the_model(client, served, path):
    direct = served.answer("serving_default", images=images(3))
    rows = predict(client, {"instances": images(3).tolist()}, path).json()["predictions"]
    columns = predict(client, {"inputs": {"images": images(3).tolist()}}, path).json()["outputs"]
    assert set(columns) == set(direct) and [set(row) for row in rows] == [set(direct)] * 3
    for name, value in direct.items():
        expected = value.astype(str).tolist() if value.dtype == object else value.tolist()
        for found in (columns[name], [row[name] for row in rows]):
            if value.dtype == np.float32:
                np.testing.assert_allclose(found, value, atol=1e-6)
            else:
                assert found == expected, name


def test_every_signature_answers(client):
    whole = images(2).astype(int).tolist()
    assert len(predict(client, {"signature_name": "uint8_images", "instances": whole}).json()["predictions"]) == 2
    assert np.shape(predict(client, {"signature_name": "features", "instances": whole}).json()["predictions"]) == (2, 3)
    names = predict(client, {"signature_name": "class_names", "inputs": {}}).json()["outputs"]
    assert names == {"hue": list(case.HUES), "kind": list(case.MANY)}
    answer = predict(client, {**of_bytes(RED), "signature_name": "features_of_bytes"}).json()["predictions"]
    assert np.argmax(answer[0]) == 0


def test_one_bad_image_does_not_fail_the_others(client):
    rows = predict(client, of_bytes(RED, b"nonsense", GREEN)).json()["predictions"]
    assert [row["valid"] for row in rows] == [True, False, True]
    assert [row["hue_name"] for row in rows] == ["red", "", "green"] and rows[1]["hue_scores"] == [None] * 3


def test_the_model_says_what_it_is(client):
    for path in ("/v1/models/tiny", "/v1/models/tiny/versions/1"):
        assert client.get(path).json()["model_version_status"][0]["state"] == "AVAILABLE"
        described = client.get(f"{path}/metadata").json()["metadata"]["signature_def"]["signature_def"]
        assert described["image_bytes"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
        assert "hue_scores" in described["serving_default"]["outputs"]
    assert client.get("/healthz").json() == {"status": "ok"} and client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/tiny/versions/2:predict", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/tiny/versions/2", 404),
        ("GET", "/v1/models/other/metadata", 404),
        ("GET", "/v1/models/tiny:predict", 405),
        ("PUT", "/v1/models/tiny:predict", 405),
        ("POST", "/v1/models/tiny", 405),
        ("POST", "/v1/models/tiny:classify", 400),
        ("POST", "/v1/models/tiny:regress", 400),
        ("GET", "/v1/models", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/..%2fapp.py", 404),
        ("GET", "/api/neighbours/3", 404),
        ("GET", "/api/neighbours/-1", 404),
        ("GET", "/api/neighbours/x", 404),
        ("POST", "/api/look", 400),
    ],
)
def test_what_is_not_there_is_named(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status and set(answer.json()) == {"error"}


JUNK = {
    "no JSON": b"{",
    "deep": b'{"instances":' + b"[" * 90_000 + b"]" * 90_000 + b"}",
    "deep objects": b'{"instances":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    "ragged": b'{"instances": [[[[1, 2, 3]], [[1, 2, 3], [1, 2, 3]]]]}',
    "of another type": b'{"instances": ["a"]}',
    "an unknown signature": b'{"signature_name": "__saved_model_init_op", "inputs": {}}',
    "bad base64": b'{"signature_name": "image_bytes", "instances": [{"b64": "!"}]}',
    "no text": bytes(range(256)),
    "UTF-16 of nothing": b"\xff\xfe",
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_refused_and_the_server_goes_on(client, name):
    answer = client.post("/v1/models/tiny:predict", content=JUNK[name])
    assert answer.status_code == 400 and answer.json()["error"]
    assert client.get("/healthz").status_code == 200


def test_nan_gives_null(client):
    content = b'{"instances": [[[[NaN, 1, 2]]], [[[200, 1, 2]]]]}'
    rows = client.post("/v1/models/tiny:predict", content=content).json()["predictions"]
    assert rows[0]["hue_scores"] == [None] * 3 and rows[0]["hue_index"] == -1 and rows[1]["hue_index"] == 0


def test_too_many_images_and_too_many_pixels_are_refused(client):
    answer = predict(client, of_bytes(*[RED] * 17))
    assert answer.status_code == 413 and "at most 16 images" in answer.json()["error"]
    answer = predict(client, {"signature_name": "uint8_images", "instances": np.zeros((1, 160, 130, 3), int).tolist()})
    assert answer.status_code == 413 and "at most 20000 pixels together, received 20800" in answer.json()["error"]
    assert predict(client, of_bytes(*[RED] * 16)).status_code == 200


def bomb(side):
    """A PNG whose header says that it has side x side pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [150, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(client, side):
    for answer in (predict(client, of_bytes(RED, bomb(side))), client.post("/api/look", content=bomb(side))):
        assert answer.status_code == 413 and "pixels together" in answer.json()["error"]


def test_a_large_body_is_refused_whether_its_length_is_said_or_not(client):
    def chunks():
        for _ in range(8):
            yield b" " * 50_000

    for content in (b" " * 400_000, chunks()):
        answer = client.post("/v1/models/tiny:predict", content=content)
        assert answer.status_code == 413 and "at most 200000 bytes, received" in answer.json()["error"]
    answer = client.post("/api/look", content=RED, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


def raw(address, *parts, pause=0.0, timeout=30):
    """Sends bytes as they are and gives what comes back until the server closes or falls silent."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        received = b""
        while b"\r\n\r\n" not in received or not received.endswith(b"}"):
            part = connection.recv(65536)
            if not part:
                break
            received += part
    return received


HEAD = b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"


def test_a_slow_body_is_given_up_and_nothing_is_held(address, client):
    began = time.monotonic()
    answer = raw(address, HEAD, b"{")
    assert b" 408 " in answer.split(b"\r\n")[0] and b"within 1.5 s, received 1 bytes" in answer
    assert time.monotonic() - began < 10
    assert client.post("/v1/models/tiny:predict", content=b" " * 199_000).status_code == 400


def test_a_client_that_leaves_is_let_go(address, client):
    host, port = address.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(HEAD.replace(b"100", b"190000") + b" " * 90_000)
    time.sleep(0.3)
    assert client.post("/v1/models/tiny:predict", content=b" " * 199_000).status_code == 400


def test_bodies_together_take_so_much_and_no_more(address, client):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(HEAD.replace(b"100", b"190000") + b" " * 180_000)
        time.sleep(0.5)
        answer = client.post("/v1/models/tiny:predict", content=b" " * 180_000)
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
        assert predict(client, of_bytes(RED)).status_code == 200
    time.sleep(0.5)
    assert client.post("/v1/models/tiny:predict", content=b" " * 180_000).status_code == 400


@pytest.mark.parametrize("request_", [b"\x00\x01\x02\r\n\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"])
def test_what_is_no_http_is_refused(address, client, request_):
    assert b"400" in raw(address, request_).split(b"\r\n")[0]
    assert client.get("/healthz").status_code == 200


def test_other_sites_are_refused(client, address):
    port = address.rsplit(":", 1)[1]
    for host in ("evil.example", f"127.0.0.1.evil.example:{port}", "[", ""):
        assert client.get("/api/model", headers={"Host": host}).status_code in (400, 403), host
    for host in ("localhost", f"127.0.0.1:{port}", "[::1]:1"):
        assert client.get("/api/model", headers={"Host": host}).status_code == 200, host
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert client.post("/api/look", content=RED, headers={"Origin": origin}).status_code == 403, origin
    answer = client.post("/api/look", content=RED, headers={"Origin": address})
    assert answer.status_code == 200 and "Access-Control-Allow-Origin" not in answer.headers


def test_every_answer_has_the_headers_that_keep_browsers_safe(client):
    for path in ("/", "/script.js", "/api/model", "/nope", "/api/neighbours/0"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"] and "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and "server" not in headers


def test_the_page_asks_nothing_of_other_sites(client):
    for path in ("/", "/style.css", "/script.js"):
        answer = client.get(path)
        assert answer.status_code == 200 and "://" not in answer.text, path
    assert "<script>" not in client.get("/").text and "style=" not in client.get("/").text and " on" + "click" not in answer.text


def test_the_page_learns_the_models_numbers(client):
    facts = client.get("/api/model").json()
    assert facts["name"] == "tiny" and facts["about"]["method"] == "class_rel" and facts["test"]["rarest_third"] == 0.5
    assert facts["test"]["balanced_accuracy"] == 0.77
    assert facts["decision"] == "the rule argmax; thresholds for recall:0.9 tell which classes are detected"
    assert facts["detects"] and not facts["calibrated"] and facts["goal"] == "recall:0.9" and facts["neighbours"] == 3
    hue, _ = facts["labels"]
    assert [row["name"] for row in hue["classes"]] == list(case.HUES)
    expected = {"train_count": 90, "recall": 0.9, "average_precision": 0.9, "threshold": 0.4, "test_images": 40, "rare": False}
    assert expected.items() <= hue["classes"][1].items() and hue["classes"][1]["train_share"] == 90 / 999
    # The third of all twelve classes with the fewest training images.
    rare = [row["name"] for label in facts["labels"] for row in label["classes"] if row["rare"]]
    assert rare == [case.HUES[2], "kind 6", "kind 7", "kind 8"]
    assert facts["limits"]["body_bytes"] == 200_000


def test_a_look_at_a_picture(client, served):
    said = client.post("/api/look", content=GREEN).json()
    hue, kind = said["labels"]
    direct = served.answer("image_bytes", image_bytes=np.array([GREEN], object))
    np.testing.assert_allclose(hue["scores"], direct["hue_scores"][0], atol=1e-6)
    assert hue["decided"] == 1 and hue["detected"] == [False, True, False] and len(kind["scores"]) == 9
    nearest = said["neighbours"]
    assert nearest[0]["caption"] == "green <i>.png" and nearest[0]["labels"] == {"hue": "green", "kind": "kind 1"}
    shown = client.get(f"/{nearest[0]['image']}")
    assert shown.headers["content-type"] == "image/png" and shown.content == case.picture((0, 200, 0))


@pytest.mark.parametrize(
    "content, reason", [(b"hello", "not an image"), (RED[:40], "PNG"), (GREEN[:200], "truncated or damaged")]
)
def test_a_picture_that_cannot_be_read_is_named(client, content, reason):
    answer = client.post("/api/look", content=content)
    assert answer.status_code == 422 and reason in answer.json()["error"]


def test_without_training_images_and_numbers_the_page_says_less(folder, served):
    from dataclasses import replace

    bare = replace(served, card={"schema": served.card["schema"]})
    with case.running(make_app(bare)) as server, httpx.Client(base_url=server.address) as client:
        facts = client.get("/api/model").json()
        assert facts["neighbours"] == 0 and facts["test"] == {} and facts["calibration"] is None
        assert not any(row["rare"] for label in facts["labels"] for row in label["classes"])
        assert client.post("/api/look", content=RED).json()["neighbours"] == []
        assert client.get("/api/neighbours/0").status_code == 404


def test_many_clients_have_their_own_answers(client, served):
    def ask(number):
        rows = predict(client, {"instances": images(number % 3 + 1, 4 + number % 2).tolist()}).json()["predictions"]
        return [row["hue_scores"] for row in rows]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(200)))
    for number, scores in enumerate(answers):
        direct = served.answer("serving_default", images=images(number % 3 + 1, 4 + number % 2))
        np.testing.assert_allclose(scores, direct["hue_scores"], atol=1e-6)
