"""The web application that serves a loaded export: TensorFlow Serving's REST contract, and a page for people."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from crl_tf.datasets.images.decode import fault, form_of
from crl_tf.serving.batching import Batcher, Closed, Full
from crl_tf.serving.export import BYTES, FEATURES_OF_BYTES, warmup_requests
from crl_tf.serving.facts import facts_of, look_of, nearest_of
from crl_tf.serving.guard import LOOPBACK, Guard
from crl_tf.serving.limits import Bodies, Limits, pixels_of
from crl_tf.serving.neighbours import Neighbours
from crl_tf.serving.rest import (
    VERSION,
    RestError,
    inputs_of,
    metadata_of_model,
    read_predict,
    status_of_model,
    to_json,
    write_answer,
)
from crl_tf.serving.scoring import VALID
from crl_tf.serving.served import Served
from crl_tf.text import shortened

_log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/script.js": ("script.js", "text/javascript; charset=utf-8"),
}

SMALL = 32 * 1024
"""A body of fewer bytes is read in the event loop itself: a thread would take longer to be asked."""

READERS = 2
"""Large bodies that are read at a time: JSON takes a multiple of its length while it is."""

NEAREST = 6
"""Training images that the page shows of each picture."""

_OF_TENSORFLOW: dict[type[Exception], int] = {
    tf.errors.InvalidArgumentError: 400,
    tf.errors.OutOfRangeError: 400,
    tf.errors.ResourceExhaustedError: 429,
    tf.errors.UnimplementedError: 501,
}
"""Statuses of the model's errors, as TensorFlow Serving translates them; any other is 500."""

_T = TypeVar("_T")


def make_app(
    served: Served,
    *,
    name: str = "model",
    limits: Limits | None = None,
    neighbours: Neighbours | None = None,
    hosts: Sequence[str] | None = LOOPBACK,
) -> FastAPI:
    """The web application.

    - `/`: the page. `/api/model`, `/api/look` and `/api/neighbours/INDEX`: what it asks.
    - `/v1/models/NAME:predict`, `/v1/models/NAME`, `/v1/models/NAME/metadata`, and the same with `/versions/1` behind the name:
      TensorFlow Serving's contract (`crl_tf.serving.rest`).
    - `/healthz`: 200 while requests are worked on. `/readyz`: 200 once the model is warm, 503 before it is and while it stops.

    Args:
        served: the loaded export.
        name: of the model in the paths: letters, digits, `_`, `-` and `.`.
        limits: of requests; None: `Limits()`.
        neighbours: training images that the page may show; None: it shows none.
        hosts: the names under which the server may be asked; None: any.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"name must be of letters, digits, _, - and ., received {shortened(repr(name))}")
    handlers = _Handlers(served, name, limits or Limits(), neighbours)
    # No pages of FastAPI's own: they load scripts from other sites.
    app = FastAPI(title="crl_tf", docs_url=None, redoc_url=None, openapi_url=None, lifespan=handlers.lifespan)
    for path in ("/v1/models/{model}/versions/{version}", "/v1/models/{model}"):
        app.add_api_route(f"{path}:predict", handlers.predict, methods=["POST"])
        for verb in ("classify", "regress"):
            app.add_api_route(f"{path}:{verb}", _no_such_verb, methods=["POST"])
        app.add_api_route(f"{path}/metadata", handlers.metadata, methods=["GET"])
        app.add_api_route(path, handlers.status, methods=["GET"])
    app.add_api_route("/healthz", handlers.health, methods=["GET"])
    app.add_api_route("/readyz", handlers.readiness, methods=["GET"])
    app.add_api_route("/api/model", handlers.facts, methods=["GET"])
    app.add_api_route("/api/look", handlers.look, methods=["POST"])
    app.add_api_route("/api/neighbours/{index}", handlers.thumbnail, methods=["GET"])
    for path in _PAGE_FILES:
        app.add_api_route(path, _page_file, methods=["GET"])
    app.add_exception_handler(RestError, _rest_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _other_error)
    app.add_middleware(Guard, hosts=hosts)
    app.state.handlers = handlers
    return app


class _Handlers:
    """Answers the requests of one application."""

    def __init__(self, served: Served, name: str, limits: Limits, neighbours: Neighbours | None) -> None:
        self._served, self._name, self._limits, self._neighbours = served, name, limits, neighbours
        self._inputs = inputs_of(served.signatures)
        self._bodies = Bodies(limits)
        self._facts = to_json({"name": name, "limits": asdict(limits), **facts_of(served, self._shown())})
        self._metadata = to_json(metadata_of_model(name, served.folder))
        self._batcher: Batcher | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._unready = "the model is being warmed up"

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Starts the model's thread and warms the model up; at the end finishes what was accepted."""
        limits = self._limits
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._batcher = Batcher(self._call, largest=limits.batch, most_cost=limits.pixels, queue=limits.queue)
        warming = asyncio.create_task(self._warm_up())
        try:
            yield
        finally:
            self._unready = "the server is shutting down"
            warming.cancel()
            await asyncio.to_thread(self._batcher.close, limits.seconds)
            self._readers.shutdown(wait=False, cancel_futures=True)

    async def predict(self, request: Request) -> Response:
        """TensorFlow Serving's predict."""
        self._check_model(request)
        async with self._body(request) as body:
            wanted, cost = await self._aside(len(body), self._read, body)
            outputs = await self._answer(wanted.signature, wanted.inputs, cost)
            size = sum(value.nbytes for value in outputs.values())
            return _json(await self._aside(size, write_answer, outputs, wanted.by_row))

    async def metadata(self, request: Request) -> Response:
        """The signatures."""
        self._check_model(request)
        return _json(self._metadata)

    async def status(self, request: Request) -> Response:
        """Whether the model is there."""
        self._check_model(request)
        return _json(to_json(status_of_model(not self._unready)))

    async def health(self) -> Response:
        """Whether requests are worked on."""
        alive = self._batcher is not None and self._batcher.alive
        return _json(to_json({"status": "ok" if alive else "the model's thread has ended"}), 200 if alive else 503)

    async def readiness(self) -> Response:
        """Whether requests are answered at once."""
        return _json(to_json({"status": self._unready or "ready"}), 503 if self._unready else 200)

    async def facts(self) -> Response:
        """The model's facts for the page."""
        return _json(self._facts)

    async def look(self, request: Request) -> Response:
        """What the model says of one picture, whose file is the body."""
        async with self._body(request) as body:
            if not body:
                raise RestError("the body must be a picture's file, received none")
            inputs = {"image_bytes": np.array([body], object)}
            cost = await self._aside(len(body), pixels_of, inputs, self._limits)
            outputs = await self._answer(BYTES, inputs, cost)
            if not outputs[VALID][0]:
                reason = await self._aside(SMALL, fault, body, self._served.image_size)
                reason = reason or "a form that the server does not read, such as an animation"
                raise RestError(f"The picture cannot be read: {reason}", 422)
            said: dict[str, Any] = {"labels": look_of(self._served, outputs), "neighbours": []}
            if (neighbours := self._shown()) is not None:
                features = (await self._answer(FEATURES_OF_BYTES, inputs, cost))["features"][0]
                said["neighbours"] = await self._aside(SMALL, nearest_of, neighbours, features, NEAREST)
            return _json(to_json(said))

    async def thumbnail(self, request: Request) -> Response:
        """A training image that the page may show."""
        neighbours, index = self._shown(), request.path_params["index"]
        if neighbours is None or not re.fullmatch(r"\d{1,9}", index) or int(index) >= len(neighbours):
            raise RestError("there is no such training image", 404)
        try:
            content = await self._aside(SMALL, neighbours.thumbnail, int(index))
        except (OSError, ValueError, tf.errors.OpError) as error:
            _log.warning("training image %s cannot be shown: %s", index, error)
            raise RestError("this training image cannot be read", 404) from error
        return Response(content, media_type=f"image/{(form_of(content) or 'octet-stream').lower()}")

    def _shown(self) -> Neighbours | None:
        """The training images, if the export has features to compare with."""
        return self._neighbours if FEATURES_OF_BYTES in self._served.signatures else None

    def _check_model(self, request: Request) -> None:
        model, version = request.path_params["model"], request.path_params.get("version", VERSION)
        if ":" in model + version:  # a path of POST
            raise HTTPException(405, headers={"Allow": "POST"})
        if model != self._name or version != VERSION:
            known = f"the model served is {self._name}, version {VERSION}"
            raise RestError(f"{known}; received {shortened(model)}, version {shortened(version)}", 404)

    def _read(self, body: bytes) -> tuple[Any, int]:
        wanted = read_predict(body, self._inputs, self._limits.images)
        return wanted, pixels_of(wanted.inputs, self._limits)

    @contextlib.asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, which counts as held until the end."""
        if (packed := request.headers.get("content-encoding", "identity")) != "identity":
            raise RestError(f"a body must not be packed, received Content-Encoding {shortened(packed)}", 415)
        body = await self._bodies.read(request.stream(), request.headers.get("content-length"))
        try:
            yield body
        finally:
            self._bodies.release(len(body))

    async def _aside(self, size: int, function: Callable[..., _T], *arguments: Any) -> _T:
        """Calls a function, in a thread if what it works on is not small."""
        if size < SMALL:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    async def _answer(self, signature: str, inputs: Mapping[str, np.ndarray], cost: int) -> dict[str, np.ndarray]:
        """The outputs of a signature; what goes wrong as a `RestError`."""
        assert self._batcher is not None
        try:
            return await asyncio.wrap_future(self._batcher.submit(signature, inputs, cost=cost))
        except (Full, Closed) as error:
            raise RestError(str(error), 503) from error
        except tf.errors.OpError as error:
            status = next((status for kind, status in _OF_TENSORFLOW.items() if isinstance(error, kind)), 500)
            raise RestError(f"the model failed: {shortened(error.message, 300)}", status) from error
        except Exception as error:
            _log.exception("a call of %s failed", signature)
            raise RestError(f"the model failed ({type(error).__name__})", 500) from error

    def _call(self, signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        specs = self._inputs[signature]
        return self._served.answer(signature, **{name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()})

    async def _warm_up(self) -> None:
        """Sends a grey image to each signature."""
        try:
            for signature, inputs in warmup_requests(self._served.image_size, list(self._served.signatures)):
                await self._answer(signature, {name: value.numpy() for name, value in inputs.items()}, 0)
            self._unready = ""
        except RestError as error:
            self._unready = f"the model could not be warmed up: {error}"
            _log.error("%s", self._unready)


def _json(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, dict(headers or {}), media_type="application/json")


async def _no_such_verb(request: Request) -> Response:
    raise RestError(f"this model answers :predict alone, received {shortened(request.url.path, 200)}")


async def _page_file(request: Request) -> Response:
    file, kind = _PAGE_FILES[request.url.path]
    return Response((PAGE / file).read_bytes(), media_type=kind)


async def _rest_error(_: Request, error: Exception) -> Response:
    status = getattr(error, "status", 400)
    return _json(to_json({"error": str(error)}), status, {"Retry-After": "1"} if status == 503 else None)


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 400)
    words = {404: "there is no such path", 405: "this path has another method"}.get(status, "malformed request")
    content = {"error": f"{words}: {request.method} {shortened(request.url.path, 200)}"}
    return _json(to_json(content), status, getattr(error, "headers", None))


async def _other_error(_: Request, error: Exception) -> Response:
    return _json(to_json({"error": f"the server failed ({type(error).__name__})"}), 500)
