"""Ed25519 in plain integers (RFC 8032, 5.1), to make signatures that no honest signer makes."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, P - 2, P) % P
_SQRT_M1 = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]  # affine; slow, and only a handful of points are ever computed

IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = _D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, P - 2, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, P - 2, P) % P,
    )


def multiply(scalar: int, point: Point) -> Point:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def _root_of(y: int) -> int | None:
    """An x that stands with y on the curve, None when there is none."""
    square = (y * y - 1) * pow(_D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _SQRT_M1 % P
    return None if (x * x - square) % P else x


def is_on_curve(y: int) -> bool:
    return _root_of(y % P) is not None


def with_y(y: int, sign: int) -> Point:
    x = _root_of(y)
    assert x is not None
    return (x if x & 1 == sign else -x % P, y)


BASE = with_y(4 * pow(5, P - 2, P) % P, 0)


def encode(point: Point) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _torsion() -> Point:
    """A point of order 8."""
    y = 2
    while True:
        if is_on_curve(y):
            point = multiply(ORDER, with_y(y, 0))
            if multiply(4, point) != IDENTITY:
                return point
        y += 1


TORSION = _torsion()


def secret(seed: bytes) -> int:
    """The scalar of a seed."""
    number = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return number & (1 << 254) - 8 | 1 << 254


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % ORDER


def scalar_bytes(scalar: int) -> bytes:
    return scalar.to_bytes(32, "little")
