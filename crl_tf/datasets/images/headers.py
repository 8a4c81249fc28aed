"""What an encoded image says of itself before anything is decoded: its form, size, channels and which way up it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

UPRIGHT = 1
ORIENTATIONS = range(1, 9)
"""EXIF's: 1 is upright; 2 mirrored, 3 upside down, 4 both; 5 to 8 lie on a side, so that height and width change places."""

_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Header:
    """What is known of an image from its header.

    form: "JPEG", "PNG", "GIF", "BMP" or "WebP". height, width: of the stored pixels, before they are turned upright.
    channels: 1 grey, 2 grey and alpha, 3 colours, 4 colours and alpha, or CMYK in a JPEG. bits: of each channel, in a BMP of
    each pixel. orientation: EXIF's, of a JPEG; 1 for all else.
    """

    form: str
    height: int
    width: int
    channels: int = 3
    bits: int = 8
    orientation: int = UPRIGHT
    palette: bool = False
    compressed: bool = False
    progressive: bool = False
    animated: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width as they are seen."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)

    @property
    def traits(self) -> list[str]:
        """What is uncommon about it, in words."""
        cmyk, alpha = self.form == "JPEG" and self.channels == 4, self.channels in (2, 4)
        found = {
            "greyscale": self.channels < 3,
            "alpha": alpha and not cmyk,
            "CMYK": cmyk,
            "palette": self.palette,
            "16 bits": self.form == "PNG" and self.bits == 16,
            "progressive": self.progressive,
            "turned by EXIF": self.orientation != UPRIGHT,
        }
        return [name for name, there in found.items() if there]


def form_of(content: bytes) -> str | None:
    """The form that the first bytes tell, or None where they are of no image that is known here.

    >>> form_of(b"GIF89a..."), form_of(b"hello")
    ('GIF', None)
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    begins = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
    return next((form for start, form in begins.items() if content.startswith(start)), None)


def read_header(content: bytes) -> Header | None:
    """The header of an encoded image, or None where it is of no form that is known here.

    Raises:
        ValueError: if the header is cut off, or makes no sense.
    """
    form = form_of(content)
    if form is None:
        return None
    try:
        header = _READERS[form](content)
    except (struct.error, IndexError) as error:
        raise ValueError("cut off within its header") from error
    if header.height < 1 or header.width < 1:
        raise ValueError(f"with a header that says {header.height} x {header.width} pixels")
    return header


def _jpeg(content: bytes) -> Header:
    at, frame, orientation = 2, None, None
    while True:
        # As decoders do: what stands between two segments is skipped, any number of 0xFF may stand before a marker.
        at = content.find(b"\xff", at)
        if at < 0:
            raise IndexError
        while content[at] == 0xFF:
            at += 1
        marker = content[at]
        if marker in (0xDA, 0xD9):  # pixels, or the end
            break
        if marker < 0x02 or 0xD0 <= marker <= 0xD8:  # these have no length
            continue
        (length,) = struct.unpack_from(">H", content, at + 1)
        if marker in _FRAMES and frame is None:
            frame = (*struct.unpack_from(">BHHB", content, at + 3), marker in (0xC2, 0xC6, 0xCA, 0xCE))
        elif marker == 0xE1 and orientation is None and content[at + 3 : at + 9] == b"Exif\0\0":
            orientation = _orientation(content[at + 9 : at + 1 + length])
        at += 1 + length
    if frame is None:
        raise IndexError
    bits, height, width, channels, progressive = frame
    return Header("JPEG", height, width, channels, bits, orientation or UPRIGHT, progressive=progressive)


def _orientation(tiff: bytes) -> int:
    """Of the first directory of an EXIF block; upright where it says nothing or nonsense, as viewers take it."""
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", tiff, entry)
            if tag == _ORIENTATION_TAG and count == 1 and kind in (3, 4):
                (value,) = struct.unpack_from(order + {3: "H", 4: "I"}[kind], tiff, entry + 8)
                return value if value in ORIENTATIONS else UPRIGHT
    except (KeyError, struct.error):
        pass
    return UPRIGHT


def _png(content: bytes) -> Header:
    width, height, bits, colours = struct.unpack_from(">IIBB", content, 16)
    return Header("PNG", height, width, _PNG_CHANNELS.get(colours, 3), bits, palette=colours == 3)


def _gif(content: bytes) -> Header:
    width, height = struct.unpack_from("<HH", content, 6)
    return Header("GIF", height, width, palette=True)


def _bmp(content: bytes) -> Header:
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", content, 18)
    # A negative height is of rows that run from top to bottom. Pixels of 32 bits may be "compressed" by stating their masks.
    return Header(
        "BMP", abs(height), width, 3, bits, palette=bits <= 8, compressed=compression not in ((0, 3) if bits == 32 else (0,))
    )


def bmp_palette(content: bytes) -> np.ndarray:
    """The colours of a BMP of 8 bits, uint8 [256, 3], red, green, blue; black where it has fewer."""
    (pixels, begin), (used,) = struct.unpack_from("<II", content, 10), struct.unpack_from("<I", content, 46)
    entries = np.frombuffer(content[14 + begin : pixels][: 4 * min(used or 256, 256)], np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    known = entries[: len(entries) // 4 * 4].reshape(-1, 4)
    colours[: len(known)] = known[:, 2::-1]
    return colours


def _webp(content: bytes) -> Header:
    kind = content[12:16]
    if kind == b"VP8X":
        flags = content[20]
        width, height = (1 + int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
        if len(content) < 30:
            raise IndexError
        return Header("WebP", height, width, 4 if flags & 0x10 else 3, animated=bool(flags & 0x02))
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", content, 21)
        return Header("WebP", 1 + (packed >> 14 & 0x3FFF), 1 + (packed & 0x3FFF), 4 if packed >> 28 & 1 else 3)
    width, height = struct.unpack_from("<HH", content, 26)
    return Header("WebP", height & 0x3FFF, width & 0x3FFF)


_READERS = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "BMP": _bmp, "WebP": _webp}
