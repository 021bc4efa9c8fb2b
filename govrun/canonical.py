"""One value, one spelling: the restricted JSON profile that govrun signs.

UTF-8, RFC 8785 order and spelling, restricted so that every sane serialiser agrees: ASCII keys, strings,
booleans, null, arrays, objects, and integers within +-(2^53 - 1). No floats.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import orjson

from govrun.errors import ExitCode, GovrunError

JsonObject = dict[str, Any]

MAX_BYTES: Final = 1 << 20
_PLAIN: Final = frozenset({str, int, bool, type(None)})

# Without its digits, a number with a fraction or exponent leaves `.` or `e` where a value starts: behind a member's
# name, a bracket or a comma. With `e` told as `.` and `[` as `,`, two searches find all six. Strings can contain this
# too, so a hit is only a reason to look closer. Letters go as well, which halves what is searched, except those that
# `true`, `false` and `null` begin with.
_NO_DIGITS: Final = b"0123456789-abcdghijklmopqrsuvwxyzABCDFGHIJKLMNOPQRSTUVWXYZ"
_ALIKE: Final = bytes.maketrans(b"Ee[", b"..,")
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


def encode(value: Any) -> bytes:
    """Write a value of the profile as its one byte string.

    Raises GovrunError (receipt-invalid) for anything outside the profile: floats, NaN included, integers beyond
    2^53 - 1, lone surrogates, member names outside ASCII, and whatever JSON has no word for, such as a date.
    """
    data = encode_again(value)
    if (stranger := _stranger(value)) is not None:
        raise GovrunError(
            ExitCode.RECEIPT_INVALID,
            f"canonical.{stranger}",
            "a value is not part of the signed profile",
            found=stranger,
            expected="objects with ASCII names, arrays, strings, integers, booleans and null",
        )
    return data


def encode_fitting(value: Any) -> bytes:
    """`encode` for a value that fits a schema whose numbers are all integers of the profile.

    A float fits such a schema only if it is whole and no larger, and is then written with `.0` behind its digits, which
    three searches find at a tenth of what looking for any float costs. Strings can end like this too, so a hit is only
    a reason to look closer.
    """
    data = encode_again(value)
    is_plain = data.isascii() and b".0," not in data and b".0}" not in data and b".0]" not in data
    return data if is_plain else encode(value)


def encode_again(value: Any) -> bytes:
    """Write a value that `decode` returned, or that `encode` will be given too: a float is not noticed here."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise GovrunError(
            ExitCode.RECEIPT_INVALID,
            "canonical.encode",
            "a value cannot be written canonically",
            found=str(error),
            expected="a value of the signed profile",
        ) from error


def decode(data: bytes, what: str = "document") -> JsonObject:
    """Read an object from its canonical bytes; `encode(decode(b)) == b` or GovrunError (ledger-inconsistent).

    That one comparison refuses white space, other key orders, duplicate members, other escapes and numbers
    that do not survive.
    """
    value = _loads(data, what)
    try:
        canonical = orjson.dumps(value, option=_OPTIONS)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise _not_canonical(what, str(error)) from error
    if canonical != data:
        raise _not_canonical(what, _first_difference(canonical, data))
    # Most documents show at a glance that they hold neither a float nor a name outside ASCII.
    if not (data.isascii() and not _may_hold_float(data)) and (stranger := _stranger(value)) is not None:
        raise _not_canonical(what, f"a {stranger}")
    return value


def _loads(data: bytes, what: str) -> JsonObject:
    if len(data) > MAX_BYTES:
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "canonical.size",
            f"{what} is too large",
            found=f"{len(data)} bytes",
            expected=f"at most {MAX_BYTES} bytes",
        )
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "canonical.json",
            f"{what} is not JSON",
            found=str(error),
            expected="one JSON object in UTF-8",
        ) from error
    if not isinstance(value, dict):
        raise GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "canonical.object",
            f"{what} is not an object",
            found=type(value).__name__,
            expected="one JSON object",
        )
    return value


def _not_canonical(what: str, found: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_INCONSISTENT,
        "canonical.bytes",
        f"{what} is not in canonical form",
        found=found,
        expected="the RFC 8785 spelling of the same value",
    )


def _first_difference(a: bytes, b: bytes) -> str:
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"another spelling from byte {at} on"


def _may_hold_float(data: bytes) -> bool:
    bare = data.translate(_ALIKE, _NO_DIGITS)
    return b'":.' in bare or b",." in bare


def _stranger(value: Any) -> Literal["float", "name", "type"] | None:
    """What a value holds that the profile does not have; its nesting is bounded, since orjson has written it."""
    kind = type(value)
    if kind is dict:
        for name, item in value.items():
            if not name.isascii():
                return "name"
            if type(item) not in _PLAIN and (found := _stranger(item)) is not None:
                return found
        return None
    if kind is list or kind is tuple:
        for item in value:
            if type(item) not in _PLAIN and (found := _stranger(item)) is not None:
                return found
        return None
    if isinstance(value, str | int | None):
        return None
    return "float" if isinstance(value, float) else "type"
