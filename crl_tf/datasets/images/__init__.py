"""Encoded images: headers, decoding, checking."""
