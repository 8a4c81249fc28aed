"""Refuses requests of other sites' pages, and gives every answer the headers that keep browsers safe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from crl_tf.serving.rest import to_json
from crl_tf.text import shortened

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names under which a server of this machine alone is asked."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Scope]]
_Send = Callable[[_Scope], Awaitable[None]]


class Guard:
    """An ASGI middleware.

    Args:
        app: what answers.
        hosts: the names under which the server may be asked; None: any. A page of another site whose name is made to lead to this
            machine sends its own name, and is refused.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: Sequence[str] | None = None) -> None:
        self._app = app
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: _Scope) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                added = [header for header in self._headers if header[0] not in given]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        if complaint := self._complaint(scope):
            body = to_json({"error": complaint})
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send_with_headers({"type": "http.response.start", "status": 403, "headers": headers})
            await send_with_headers({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send_with_headers)

    def _complaint(self, scope: _Scope) -> str | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return f"the header Host must name one of {', '.join(sorted(self._hosts))}; received {shortened(host, 80)!r}"
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return f"a page of another site may not ask this server; received the Origin {shortened(origin, 80)!r}"
        return None


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
