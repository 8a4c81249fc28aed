"""Joins requests that wait to one call of the model, in a thread of its own, and gives each its part of the answer."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)

Answer = Callable[..., Mapping[str, np.ndarray]]
"""From a signature's name and its inputs as keyword arguments to its outputs; `Served.answer`."""


class Full(Exception):
    """As many images wait as may wait."""


class Closed(Exception):
    """The batcher takes no more requests."""


@dataclass
class _Waiting:
    """A request: `key` says with which others it can be joined, None with none; `cost` is of its images in pixels."""

    signature: str
    inputs: Mapping[str, np.ndarray]
    key: tuple[Any, ...] | None
    count: int
    cost: int
    future: Future[dict[str, np.ndarray]] = field(default_factory=Future)


class Batcher:
    """Runs a model on requests of several threads.

    One thread calls the model. While it does, requests gather; those of the same signature, types and image size go into the next
    call together. A lone request does not wait for others: only when the call before joined several, the next waits a little.

    Args:
        answer: calls the model.
        largest: images of one call. A request of more is called alone.
        most_cost: pixels of one call, as the requests state them. A request of more is called alone.
        wait: seconds that a call waits for more requests.
        queue: images that may wait; a request beyond it is refused.
    """

    def __init__(
        self, answer: Answer, *, largest: int = 64, most_cost: int = 50_000_000, wait: float = 0.002, queue: int = 256
    ) -> None:
        self._answer, self._largest, self._most_cost, self._wait, self._queue = answer, largest, most_cost, wait, queue
        self._waiting: deque[_Waiting] = deque()
        self._images = 0
        self._closed = False
        self._joined = 1
        self._changed = threading.Condition()
        # A daemon: a model that hangs does not keep the program from ending.
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are still worked on."""
        return self._thread.is_alive()

    def submit(self, signature: str, inputs: Mapping[str, np.ndarray], *, cost: int = 0) -> Future[dict[str, np.ndarray]]:
        """Hands in a request; the future has its outputs, or its error.

        Args:
            inputs: arrays with one row per image.
            cost: pixels of its images.
        Raises:
            Full: too many images wait. Closed: the batcher is.
        """
        key = (signature, *sorted((name, value.dtype.str, value.shape[1:]) for name, value in inputs.items()))
        counts = {len(value) for value in inputs.values() if value.ndim}
        alone = len(counts) != 1 or any(not value.ndim for value in inputs.values())
        request = _Waiting(signature, inputs, None if alone else key, max(counts, default=1), cost)
        with self._changed:
            if self._closed:
                raise Closed("the server is shutting down")
            if self._waiting and self._images + request.count > self._queue:
                raise Full(f"{self._images} images wait, of at most {self._queue}; try again in a moment")
            self._waiting.append(request)
            self._images += request.count
            self._changed.notify()
        return request.future

    def close(self, timeout: float | None = None) -> bool:
        """Takes no more requests and finishes those that it has; whether that was done in time."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
        for request in left:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(Closed("the server was shut down before the answer"))
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            taken = [request for request in batch if request.future.set_running_or_notify_cancel()]
            if taken:
                self._joined = len(taken)
                self._run(taken)

    def _next(self) -> list[_Waiting] | None:
        """The requests of the next call; None at the end."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            deadline = time.monotonic() + self._wait
            batch = self._joinable()
            while self._joined > 1 and not self._closed and self._has_room(batch):
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
                batch = self._joinable()
            chosen = {id(request) for request in batch}
            self._waiting = deque(request for request in self._waiting if id(request) not in chosen)
            self._images -= sum(request.count for request in batch)
            return batch

    def _has_room(self, batch: Sequence[_Waiting]) -> bool:
        return batch[0].key is not None and sum(request.count for request in batch) < self._largest

    def _joinable(self) -> list[_Waiting]:
        """The oldest request, and those behind it that fit into the same call."""
        first = self._waiting[0]
        batch, count, cost = [first], first.count, first.cost
        for request in list(self._waiting)[1:] if first.key is not None else []:
            fits = count + request.count <= self._largest and cost + request.cost <= self._most_cost
            if request.key == first.key and fits:
                batch.append(request)
                count, cost = count + request.count, cost + request.cost
        return batch

    def _run(self, batch: Sequence[_Waiting]) -> None:
        if len(batch) == 1:
            self._run_alone(batch[0])
            return
        first = batch[0]
        try:
            joined = {name: np.concatenate([request.inputs[name] for request in batch]) for name in first.inputs}
            parts = _split(self._answer(first.signature, **joined), [request.count for request in batch])
        except Exception as error:
            # Of which request it is, only each alone can say.
            _log.debug("a call of %d requests failed: %s", len(batch), error)
            for request in batch:
                self._run_alone(request)
            return
        for request, part in zip(batch, parts, strict=True):
            request.future.set_result(part)

    def _run_alone(self, request: _Waiting) -> None:
        try:
            request.future.set_result(dict(self._answer(request.signature, **request.inputs)))
        except Exception as error:
            request.future.set_exception(error)


def _split(outputs: Mapping[str, np.ndarray], counts: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The rows of each request.

    Raises:
        ValueError: an output has not one row per image.
    """
    total = sum(counts)
    for name, value in outputs.items():
        if value.ndim == 0 or len(value) != total:
            raise ValueError(f"{name} must have {total} rows, received the shape {list(value.shape)}")
    ends = list(accumulate(counts))
    places = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    return [{name: value[place] for name, value in outputs.items()} for place in places]
