"""What one request, and all of them together, may take of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from crl_tf.datasets.images.decode import read_header
from crl_tf.serving.rest import RestError

_MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits of a server; a request beyond one is answered with the status in brackets.

    body_bytes: of one request [413]. held_bytes: of the bodies of all requests that are not answered yet [503]. images: of one
    request [413]. pixels: of one request's images together before they are resized, by their headers [413]; also of the
    requests that are joined to one call of the model. batch: images of one call. queue: images that wait for the model [503].
    seconds: for a body to arrive [408], and for a server that is stopped to answer what it has accepted.
    """

    body_bytes: int = 32 * _MIB
    held_bytes: int = 256 * _MIB
    images: int = 64
    pixels: int = 50_000_000
    batch: int = 64
    queue: int = 256
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name} must be > 0, received {value}")


class Bodies:
    """Reads the bodies of requests within the limits, and counts what is held of all of them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0

    async def read(self, chunks: AsyncIterator[bytes], stated: str | None) -> bytes:
        """Reads one body. Whoever reads one calls `release` with its length once the request is answered.

        Args:
            chunks: its parts.
            stated: the header Content-Length, if there is one.
        Raises:
            RestError: the body is too large or too slow, or too much is held. Nothing is held of it then.
        """
        most, parts, length = self._limits.body_bytes, [], 0
        if stated is not None and stated.isdecimal() and int(stated) > most:
            raise _too_large(most, f"{stated}")
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for chunk in chunks:
                    length += len(chunk)
                    self._held += len(chunk)
                    if length > most:
                        raise _too_large(most, f"{length} or more")
                    if self._held > self._limits.held_bytes:
                        raise RestError("other requests hold all the memory for bodies; try again in a moment", 503)
                    parts.append(chunk)
        except BaseException as error:
            self.release(length)
            if isinstance(error, TimeoutError):
                raise RestError(f"a body must arrive within {self._limits.seconds:g} s, received {length} bytes", 408) from None
            raise
        return b"".join(parts)

    def release(self, length: int) -> None:
        """Lets go of a body."""
        self._held -= length

    @property
    def held(self) -> int:
        """Bytes of the bodies that are held."""
        return self._held


def _too_large(most: int, received: str) -> RestError:
    return RestError(f"the body must have at most {most} bytes, received {received}", 413)


def pixels_of(inputs: Mapping[str, np.ndarray], limits: Limits) -> int:
    """Pixels of a request's images before they are resized: of arrays by their shape, of encoded images by their headers.

    An image whose header cannot be read counts as none: the model does not decode it either.

    Raises:
        RestError: they are too many.
    """
    total = sum(_of_encoded(array.ravel().tolist()) if array.dtype == object else _of_array(array) for array in inputs.values())
    if total > limits.pixels:
        raise RestError(f"the images of a request must have at most {limits.pixels} pixels together, received {total}", 413)
    return total


def _of_array(array: np.ndarray) -> int:
    return int(np.prod(array.shape[:3], dtype=np.int64)) if array.ndim == 4 else 0


def _of_encoded(contents: Iterable[bytes]) -> int:
    total = 0
    for content in contents:
        try:
            header = read_header(content)
        except ValueError:
            continue
        total += header.height * header.width if header else 0
    return total
