"""Cuts a GIF behind its first frame: decoders hold all frames of a file in memory, and a small file can have very large ones."""

from __future__ import annotations

TRAILER = b";"
EXTENSION, FRAME = 0x21, 0x2C
"""The first bytes of blocks."""


def first_frame(content: bytes) -> tuple[bytes, tuple[int, int]]:
    """The GIF without what follows its first frame, and the frame's own height and width, which its header does not bound.

    Damaged files are cut as well: where no frame is found none is left, of the size (0, 0).
    """
    at, size = 13 + _colours(content, 10), (0, 0)
    while at < len(content):
        if content[at] == EXTENSION:
            at = _behind_blocks(content, at + 2)
        elif content[at] == FRAME and at + 10 <= len(content):
            size = (_number(content, at + 7), _number(content, at + 5))
            # Behind the colours one byte says how the pixels are packed.
            at = _behind_blocks(content, at + 10 + _colours(content, at + 9) + 1)
            break
        else:
            break
    return content[:at] + TRAILER, size


def _behind_blocks(content: bytes, at: int) -> int:
    """The place behind a chain of blocks, each of which begins with its length; one of length 0 ends the chain."""
    while at < len(content) and content[at]:
        at += 1 + content[at]
    return at + 1


def _colours(content: bytes, at: int) -> int:
    """Bytes of the table of colours that a byte of flags announces."""
    flags = content[at] if at < len(content) else 0
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 2], "little")
