"""Joined requests: which go into one call, that everybody has their own part or their own error, and how it ends."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from crl_tf.serving.batching import Batcher, Closed, Full


class Model:
    """Doubles `x`; it records its calls, waits at a gate, and fails where a value is negative."""

    def __init__(self):
        self.calls = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, signature, **inputs):
        self.entered.set()
        assert self.gate.wait(30)
        self.calls.append((signature, {name: value.shape for name, value in inputs.items()}))
        if signature == "constant":
            return {"names": np.array(["a", "b", "c"])}
        if (inputs["x"] < 0).any():
            raise ValueError(f"negative: {inputs['x'].ravel().tolist()}")
        return {"y": 2 * inputs["x"], "rows": np.arange(len(inputs["x"]))}


def x(*values, width=1):
    return {"x": np.repeat(np.array(values, np.float32)[:, np.newaxis], width, axis=1)}


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(model):
    batcher = Batcher(model, largest=8, most_cost=100, queue=16)
    yield batcher
    model.gate.set()
    assert batcher.close(30)


def held(model, batcher):
    """Holds the model in a first call, so that what is handed in next waits."""
    model.gate.clear()
    model.entered.clear()
    first = batcher.submit("a", x(0))
    assert model.entered.wait(30)
    return first


def test_a_lone_request_is_called_as_it_is(batcher, model):
    answer = batcher.submit("a", x(1, 2)).result(30)
    assert answer["y"].ravel().tolist() == [2, 4] and model.calls == [("a", {"x": (2, 1)})]


def test_requests_that_wait_are_joined_and_each_has_its_rows(batcher, model):
    held(model, batcher)
    futures = [batcher.submit("a", x(*range(1, count + 1))) for count in (1, 2, 3)]
    model.gate.set()
    answers = [future.result(30)["y"].ravel().tolist() for future in futures]
    assert answers == [[2], [2, 4], [2, 4, 6]]
    assert model.calls[1:] == [("a", {"x": (6, 1)})]


def test_only_the_same_signature_size_and_type_are_joined(batcher, model):
    held(model, batcher)
    others = [("a", x(1)), ("b", x(1)), ("a", x(1, width=2)), ("a", {"x": np.ones((1, 1), np.float64)}), ("a", x(1))]
    futures = [batcher.submit(*other) for other in others]
    model.gate.set()
    for future in futures:
        assert (future.result(30)["y"] == 2).all()
    shapes = [shapes["x"] for _, shapes in model.calls[1:]]
    assert sorted(shapes) == [(1, 1), (1, 1), (1, 2), (2, 1)]


def test_a_call_has_at_most_so_many_images_and_pixels(batcher, model):
    held(model, batcher)
    futures = [batcher.submit("a", x(*[1] * 3)) for _ in range(3)] + [batcher.submit("b", x(1), cost=60) for _ in range(2)]
    model.gate.set()
    for future in futures:
        future.result(30)
    assert [shapes["x"][0] for _, shapes in model.calls[1:]] == [6, 3, 1, 1]


def test_a_request_larger_than_a_call_is_called_alone(batcher, model):
    assert len(batcher.submit("a", x(*range(20)), cost=1000).result(30)["y"]) == 20


def test_one_request_that_fails_does_not_fail_the_others(batcher, model):
    held(model, batcher)
    good, bad, also_good = (batcher.submit("a", x(value)) for value in (1, -1, 2))
    model.gate.set()
    assert good.result(30)["y"].item() == 2 and also_good.result(30)["y"].item() == 4
    with pytest.raises(ValueError, match=r"negative: \[-1.0\]"):
        bad.result(30)


def test_a_request_without_inputs_is_never_joined(batcher, model):
    held(model, batcher)
    futures = [batcher.submit("constant", {}) for _ in range(2)]
    model.gate.set()
    assert [future.result(30)["names"].tolist() for future in futures] == [["a", "b", "c"]] * 2
    assert len(model.calls) == 3


def test_outputs_that_are_not_one_row_per_image_are_given_to_each_alone(batcher, model):
    held(model, batcher)
    futures = [batcher.submit("constant", x(1)) for _ in range(2)]
    model.gate.set()
    assert all(len(future.result(30)["names"]) == 3 for future in futures)


def test_a_full_queue_refuses_and_then_takes_again(batcher, model):
    held(model, batcher)
    waiting = [batcher.submit("a", x(*[1] * 8)) for _ in range(2)]
    with pytest.raises(Full, match="16 images wait, of at most 16"):
        batcher.submit("a", x(1))
    model.gate.set()
    for future in waiting:
        future.result(30)
    assert batcher.submit("a", x(1)).result(30)["y"].item() == 2


def test_a_request_that_was_given_up_is_not_called(batcher, model):
    held(model, batcher)
    given_up, wanted = batcher.submit("a", x(1)), batcher.submit("a", x(2))
    assert given_up.cancel()
    model.gate.set()
    assert wanted.result(30)["y"].item() == 4
    assert model.calls[1:] == [("a", {"x": (1, 1)})]


def test_closing_finishes_what_was_accepted_and_takes_no_more(model):
    batcher = Batcher(model)
    held(model, batcher)
    waiting = [batcher.submit("a", x(value)) for value in range(5)]
    closing = threading.Thread(target=batcher.close, args=(30,))
    closing.start()
    while True:  # until the other thread has said so
        try:
            waiting.append(batcher.submit("a", x(7)))
        except Closed:
            break
    model.gate.set()
    closing.join(30)
    assert all(future.result(0)["y"].shape == (1, 1) for future in waiting) and not batcher.alive


def test_closing_does_not_wait_for_ever(model):
    batcher = Batcher(model)
    held(model, batcher)
    waiting = batcher.submit("a", x(1))
    began = time.monotonic()
    assert not batcher.close(0.1) and time.monotonic() - began < 5
    with pytest.raises(Closed, match="before the answer"):
        waiting.result(0)
    model.gate.set()


def test_many_threads_lose_nothing(model):
    batcher = Batcher(model, largest=16, queue=10_000)

    def ask(value):
        return batcher.submit("a", x(*[value] * (value % 3 + 1))).result(30)["y"].ravel().tolist()

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(600)))
    assert answers == [[2 * value] * (value % 3 + 1) for value in range(600)]
    assert batcher.close(30) and len(model.calls) <= 600
