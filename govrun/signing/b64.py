"""Standard base64 with exactly one spelling per value (RFC 4648 section 4, padded)."""

from __future__ import annotations

import binascii


def encode(data: bytes) -> bytes:
    """The one spelling of data: padded, standard alphabet, no line break."""
    return binascii.b2a_base64(data, newline=False)


def decode(text: bytes) -> bytes:
    """Read what `encode` writes; ValueError on every other spelling.

    Writing the value again and comparing refuses missing padding, line breaks, the URL alphabet and stray
    bits behind the last byte alike. The error never repeats the text: it may be a key.
    """
    try:
        data = binascii.a2b_base64(text)
    except binascii.Error:
        raise ValueError("not base64") from None
    if binascii.b2a_base64(data, newline=False) != text:
        raise ValueError("not the canonical base64 of its value")
    return data
