"""Runs the web application on a port until it is told to stop, and then finishes what it has accepted."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from crl_tf.serving.guard import LOOPBACK
from crl_tf.serving.limits import Limits
from crl_tf.serving.neighbours import Neighbours
from crl_tf.serving.served import Served

try:
    import uvicorn

    from crl_tf.serving.app import make_app
except ModuleNotFoundError as error:
    if (error.name or "").startswith("crl_tf"):
        raise
    raise ImportError(f"a server needs {error.name}: pip install 'crl_tf[serve]'") from error

__all__ = ["Server", "make_app", "run_server", "serve"]

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server on a port, which is taken at once; `run` serves until `stop` or a signal.

    Args:
        app: the web application.
        host: an address of this machine, or a name of one.
        port: 0: any that is free.
        seconds: for accepted requests to be answered once it is told to stop.
        started: is called with the address once requests are taken.
    Raises:
        OSError: the port cannot be had. ValueError: it is none.
    """

    def __init__(
        self,
        app: Any,
        host: str = "127.0.0.1",
        port: int = 8501,
        *,
        seconds: float = 30.0,
        started: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                timeout_graceful_shutdown=max(1, round(seconds)),
            )
        )
        self._socket = _bound(host, port)
        self._told = started
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes requests from now on."""
        await super().startup(sockets)
        if self._told is not None:
            self._told(self.address)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is told to stop."""
        try:
            with _as_interrupt(signal.SIGTERM), contextlib.suppress(KeyboardInterrupt):
                super().run(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Tells it to stop, from any thread."""
        self.should_exit = True


def serve(
    app: Any, host: str = "127.0.0.1", port: int = 8501, *, seconds: float = 30.0, started: Callable[[str], None] | None = None
) -> None:
    """Serves the application until Ctrl-C or SIGTERM, then answers what was accepted and returns; see `Server`."""
    Server(app, host, port, seconds=seconds, started=started).run()


def run_server(
    served: Served,
    *,
    name: str = "model",
    host: str = "127.0.0.1",
    port: int = 8501,
    limits: Limits | None = None,
    neighbours: Neighbours | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serves an export until Ctrl-C or SIGTERM.

    On an address of this machine alone, it answers only requests that name one, so that no other site's page reaches it.

    Args:
        name: of the model in the paths.
        host: an address to listen on; 0.0.0.0 for all of this machine's, which anybody in the network can then ask.
        port: 0: any that is free.
        limits: of requests; None: `Limits()`.
        neighbours: training images that the page may show; None: it shows none.
        started: is called with the address once requests are taken.
    Raises:
        ValueError: the name or the port is none. OSError: the port cannot be had.
    """
    limits = limits or Limits()
    hosts = LOOPBACK if _is_loopback(host) else None
    app = make_app(served, name=name, limits=limits, neighbours=neighbours, hosts=hosts)
    serve(app, host, port, seconds=limits.seconds, started=started)


def _is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


def _bound(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be between 0 and 65535, received {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"port {port} of {host} cannot be had ({reason}); choose another") from error
    return bound


@contextlib.contextmanager
def _as_interrupt(number: int) -> Iterator[None]:
    """A signal interrupts as Ctrl-C does, within this context."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)
