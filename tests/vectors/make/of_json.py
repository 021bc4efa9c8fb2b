"""Cases about the signed JSON profile."""

from __future__ import annotations

from collections.abc import Iterator

from tests.vectors.make.case import Case, accepted, rejected

_GOOD: dict[str, tuple[str, bytes]] = {
    "empty": ("an object without members", b"{}"),
    "every-type": ("every type of value", b'{"a":[1,null,true,false],"b":"text","c":{"d":-1}}'),
    "greatest-integers": ("the greatest and the least integer", b'{"a":9007199254740991,"b":-9007199254740991}'),
    "short-escapes": ("the escapes that have a short form", rb'{"a":"\b\t\n\f\r\"\\"}'),
    "long-escapes": ("control characters without a short form", rb'{"a":"\u0000\u001f"}'),
    "plain-characters": ("DEL, a solidus, and characters outside ASCII stand as they are", '{"a":"\x7f/€😀"}'.encode()),
    "order-of-bytes": ("capitals before small letters, a prefix before what it begins", b'{"A":1,"a":2,"a1":3,"b":4}'),
}

_BAD: dict[str, tuple[str, bytes]] = {
    "fraction": ("a fraction", b'{"a":0.5}'),
    "fraction-of-zero": ("a whole number with a fraction", b'{"a":1.0}'),
    "exponent": ("an exponent", b'{"a":1e2}'),
    "minus-zero": ("minus zero", b'{"a":-0}'),
    "leading-zero": ("a leading zero", b'{"a":01}'),
    "plus": ("a plus sign", b'{"a":+1}'),
    "too-great": ("2^53", b'{"a":9007199254740992}'),
    "too-small": ("-2^53", b'{"a":-9007199254740992}'),
    "beyond-64-bits": ("an integer of 30 digits", b'{"a":100000000000000000000000000000}'),
    "not-a-number": ("NaN", b'{"a":NaN}'),
    "lone-surrogate": ("an escaped surrogate without its pair", rb'{"a":"\ud800"}'),
    "surrogate-bytes": ("a surrogate in UTF-8", b'{"a":"\xed\xa0\x80"}'),
    "not-utf8": ("a byte that is not UTF-8", b'{"a":"\xff"}'),
    "byte-order-mark": ("a byte order mark", b'\xef\xbb\xbf{"a":1}'),
    "duplicate-same": ("a member twice, with one value", b'{"a":1,"a":1}'),
    "duplicate-other": ("a member twice, with two values", b'{"a":1,"a":2}'),
    "order": ("members in another order", b'{"b":1,"a":2}'),
    "space": ("a space between tokens", b'{"a": 1}'),
    "line-break-at-the-end": ("a line break behind the document", b'{"a":1}\n'),
    "escaped-solidus": ("a solidus with an escape", rb'{"a":"\/"}'),
    "escaped-letter": ("a letter with an escape", rb'{"a":"\u0041"}'),
    "capital-hex": ("an escape in capitals", rb'{"a":"\u001F"}'),
    "long-form-of-a-line-break": ("the long escape where there is a short one", rb'{"a":"\u000a"}'),
    "raw-control": ("a control character without an escape", b'{"a":"\x01"}'),
    "name-outside-ascii": ("a member name outside ASCII", '{"ä":1}'.encode()),
    "array": ("an array at the top", b"[1]"),
    "trailing": ("a second document", b'{"a":1}{}'),
    "cut": ("a document that ends early", b'{"a":1'),
    "trailing-comma": ("a comma behind the last member", b'{"a":1,}'),
    "empty-file": ("no bytes", b""),
}


def cases() -> Iterator[Case]:
    for name, (says, data) in _GOOD.items():
        yield Case(f"json-{name}", "json", says, {"file": "document.json"}, {"document.json": data}, accepted())
    for name, (says, data) in _BAD.items():
        yield Case(f"json-{name}", "json", says, {"file": "document.json"}, {"document.json": data}, rejected(40))
