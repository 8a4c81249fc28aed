"""Image files of every form that people have, readable and not, made by Pillow or by hand."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 32, 48


def picture(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """Smooth colours without any symmetry, so that neither a turn nor a mistaken channel goes unseen."""
    small = np.random.default_rng(7).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def as_seen(content: bytes) -> np.ndarray:
    """By Pillow: int [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def with_alpha(image: Image.Image) -> Image.Image:
    alpha = np.zeros((image.height, image.width), np.uint8)
    alpha[:, image.width // 3 :] = 128
    alpha[:, image.width // 2 :] = 255
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(alpha))
    return image


def with_segment(jpeg: bytes, marker: int, body: bytes, at: int = 2) -> bytes:
    """A JPEG with one more segment, right behind its first marker where `at` says nothing else."""
    return jpeg[:at] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[at:]


def exif(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF body of two entries, of which the second is the orientation."""
    value = struct.pack(order + {3: "H2x", 4: "I"}[kind], orientation)
    entries = struct.pack(order + "HHI", 0x0100, 3, 1) + struct.pack(order + "H2x", 9)
    entries += struct.pack(order + "HHI", 0x0112, kind, 1) + value
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + start + struct.pack(order + "H", 2) + entries + struct.pack(order + "I", 0)


def chunks(webp: bytes) -> list[bytes]:
    """The parts of a WebP, each with its name and size in front."""
    found, at = [], 12
    while at < len(webp):
        end = at + 8 + struct.unpack("<I", webp[at + 4 : at + 8])[0]
        end += end % 2
        found.append(webp[at:end])
        at = end
    return found


def film_of_one(webp: bytes) -> bytes:
    """An animated WebP with its first frame alone. TensorFlow 2.21 damages the memory of its process by it."""
    parts = chunks(webp)
    frames = [part for part in parts if part.startswith(b"ANMF")]
    body = b"WEBP" + b"".join(part for part in parts if part not in frames[1:])
    return b"RIFF" + struct.pack("<I", len(body)) + body


def one_colour_png(side: int) -> bytes:
    """A PNG of one bit per pixel, all black, row by row: a few kB for 400 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer, row = zlib.compressobj(1), bytes(1 + -(-side // 8))
    body = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.compress(row * (side % 100)) + packer.flush()
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def readable() -> dict[str, bytes]:
    """By name; the suffix tells the form."""
    image = picture()
    grey, alpha = image.convert("L"), with_alpha(image)
    deep = (np.asarray(grey).astype(np.uint16) << 8) + 77
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    film = {"save_all": True, "append_images": [palette.transpose(Image.Transpose.ROTATE_180)]}
    return {
        "colours.jpg": encoded(image, "JPEG", quality=95),
        "grey.jpg": encoded(grey, "JPEG", quality=95),
        "progressive.jpg": encoded(image, "JPEG", quality=95, progressive=True),
        "cmyk, inverted as by Adobe.jpg": encoded(image.convert("CMYK"), "JPEG", quality=95),
        "colours.png": encoded(image, "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "grey and alpha.png": encoded(alpha.convert("LA"), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "one of the palette is transparent.png": encoded(palette, "PNG", transparency=0),
        "one bit.png": encoded(image.convert("1"), "PNG"),
        "16 bits.png": encoded(Image.fromarray(deep), "PNG"),
        "still.gif": encoded(palette, "GIF"),
        "film.gif": encoded(palette, "GIF", **film),
        "colours.bmp": encoded(image, "BMP"),
        "grey.bmp": encoded(grey, "BMP"),
        "palette.bmp": encoded(palette, "BMP"),
        "alpha.bmp": encoded(alpha, "BMP"),
        "one bit.bmp": encoded(image.convert("1"), "BMP"),
        "lossy.webp": encoded(image, "WEBP", quality=95),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "alpha.webp": encoded(alpha, "WEBP", lossless=True, exact=True),
        "film.webp": encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)], lossless=True),
        "film of one.webp": film_of_one(encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)], lossless=True)),
        "lossy alpha.webp": encoded(alpha, "WEBP", quality=95, exact=True),
        "1x1.jpg": encoded(image.resize((1, 1)), "JPEG"),
        "1x1.png": encoded(image.resize((1, 1)), "PNG"),
        "ümläut and space.png": encoded(image, "PNG"),
    }


def unreadable() -> dict[str, tuple[bytes, str]]:
    """By name: the content, and what is to be said of it."""
    image = picture()
    jpeg, png, gif, bmp, webp = (encoded(image, form) for form in ("JPEG", "PNG", "GIF", "BMP", "WEBP"))
    progressive = encoded(image, "JPEG", progressive=True)
    size = f"{HEIGHT} x {WIDTH} pixels that is truncated or damaged"
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0x55
    header = "that is truncated or damaged in its header ("
    large = "of which more than 100 million would be decoded at once: make it smaller, or a JPEG"
    return {
        "cut.jpg": (jpeg[:-100], f"a JPEG of {size}"),
        "end is missing.jpg": (jpeg[:-2], f"a JPEG of {size}"),
        "cut in header.jpg": (jpeg[:100], f"a JPEG {header}"),
        "begun.jpg": (jpeg[:3], f"a JPEG {header}"),
        "cut progressive.jpg": (progressive[:-100], f"a progressive JPEG of {size}"),
        "cut.png": (png[:-300], f"a PNG of {size}"),
        "cut in header.png": (png[:20], f"a PNG {header}"),
        "damaged.png": (bytes(damaged), f"a PNG of {size}"),
        "no height.png": (png[:20] + bytes(4) + png[24:], f"a PNG {header}"),
        "no pixels.png": (png[:33] + png[-12:], "a PNG that has no pixels"),
        "large.png": (one_colour_png(20000), f"a PNG of 20000 x 20000 pixels, {large}"),
        "cut.gif": (gif[:-200], f"a GIF of {size}"),
        "large.gif": (gif[:6] + struct.pack("<HH", 20000, 20000) + gif[10:], f"a GIF of 20000 x 20000 pixels, {large}"),
        "cut.bmp": (bmp[:-200], f"a BMP of {size}"),
        "cut.webp": (webp[:-60], f"a WebP {header}"),
        "cut in header.webp": (webp[:16], f"a WebP {header}"),
        "tiff.jpg": (
            encoded(image, "TIFF"),
            "not an image (JPEG, PNG, GIF, BMP and WebP are read); it begins with the bytes 49 49 2a 00",
        ),
        "text.jpg": (b"hello", "not an image (JPEG, PNG, GIF, BMP and WebP are read); it begins with the bytes 68 65 6c 6c"),
        "empty.jpg": (b"", "an empty file"),
    }
