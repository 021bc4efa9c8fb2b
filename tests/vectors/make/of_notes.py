"""Cases about signed notes and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.vectors.make.case import Case, accepted, rejected
from tests.vectors.make.spec import (
    LOG,
    ORIGIN,
    STRANGER,
    WITNESS,
    Json,
    Key,
    b64,
    head,
    key,
    note,
    note_line,
    root,
    sha256,
)

_ROOT = sha256(b"some tree")
_TEXT = head(7, _ROOT)
_GOOD = note(_TEXT, LOG)
_YES = accepted(size=7, rootHash=_ROOT.hex())


def _case(
    name: str, says: str, data: bytes, expected: Json, keys: Sequence[Key] = (LOG,), origin: str = ORIGIN
) -> Case:
    asks = {"file": "checkpoint", "origin": origin, "keys": [one.vkey for one in keys]}
    return Case(f"checkpoint-{name}", "checkpoint", says, asks, {"checkpoint": data}, expected)


def _signed(text: bytes) -> bytes:
    return note(text, LOG)


def _sized(size: str) -> bytes:
    return _signed(f"{ORIGIN}\n{size}\n{b64(_ROOT)}\n".encode())


def cases() -> Iterator[Case]:
    yield _case("plain", "a checkpoint", _GOOD, _YES)
    yield _case("with-witness", "a witness signed too", note(_TEXT, LOG, WITNESS), _YES, (LOG, WITNESS))
    yield _case("unknown-witness", "a key that nobody knows signed too", note(_TEXT, WITNESS, LOG), _YES)
    forged = note_line(b"something else\n", WITNESS)
    yield _case("unknown-wrong", "a wrong signature by a key that nobody knows", _GOOD + forged, _YES)
    yield _case("extensions", "two lines of other logs", _signed(_TEXT + b"one more line\nand another\n"), _YES)
    empty = accepted(size=0, rootHash=root([]).hex())
    yield _case("empty-tree", "a tree without entries", _signed(head(0, root([]))), empty)
    greatest = accepted(size=2**63 - 1, rootHash=_ROOT.hex())
    yield _case("greatest-size", "a tree of 2^63 - 1 entries", _sized(str(2**63 - 1)), greatest)
    others = b"".join(note_line(_TEXT, key(f"w{n}.example", n)) for n in range(10, 25))
    yield _case("sixteen-signatures", "sixteen signatures", _GOOD + others, _YES)
    yield from _texts()
    yield from _forms()
    yield from _signers()


def _texts() -> Iterator[Case]:
    """Texts that the log's key signed and that are no checkpoint."""
    sizes = {
        "plus": "+7",
        "leading-zero": "07",
        "minus": "-7",
        "fraction": "7.0",
        "exponent": "7e0",
        "hexadecimal": "0x7",
        "space-before": " 7",
        "separator": "1,000",
        "no-digits": "",
        "other-digits": "\u0667",
        "too-great": str(2**63),
    }
    for name, size in sizes.items():
        yield _case(f"size-{name}", f"a tree size spelled {size!a}", _sized(size), rejected(40))
    hashes = {
        "short": ("a root hash of 31 bytes", b64(_ROOT[:31])),
        "no-padding": ("a root hash without padding", b64(_ROOT).rstrip("=")),
        "hex": ("a root hash in hex", _ROOT.hex()),
        "missing": ("no root hash", None),
    }
    for name, (says, spelled) in hashes.items():
        text = f"{ORIGIN}\n7\n" + ("" if spelled is None else f"{spelled}\n")
        yield _case(f"root-{name}", says, _signed(text.encode()), rejected(40))
    yield _case("root-of-nothing", "size 0 with the root of something", _signed(head(0, _ROOT)), rejected(40))
    yield _case("empty-extension", "an extension line without text", _signed(_TEXT + b"\nmore\n"), rejected(40))
    other = key("example.com/other", 2)
    yield _case(
        "other-origin", "the checkpoint of another log, by this key", _signed(head(7, _ROOT, other.name)), rejected(40)
    )
    yield _case(
        "space-in-origin",
        "an origin with a space",
        _signed(head(7, _ROOT, "example.com/a b")),
        rejected(40),
        origin="example.com/a b",
    )


def _forms() -> Iterator[Case]:
    """Bytes that are no signed note."""
    no = rejected(40)
    yield _case("no-signature", "a text alone", _TEXT, no)
    yield _case("no-blank-line", "no empty line before the signature", _GOOD.replace(b"\n\n", b"\n"), no)
    yield _case("no-last-line-break", "no line break at the end", _GOOD[:-1], no)
    yield _case("line-behind", "an empty line at the end", _GOOD + b"\n", no)
    yield _case("carriage-returns", "lines that end as in other systems", _GOOD.replace(b"\n", b"\r\n"), no)
    yield _case("hyphen", "a hyphen where the dash is", _GOOD.replace("\u2014".encode(), b"-"), no)
    yield _case("two-spaces", "two spaces behind the dash", _GOOD.replace("\u2014 ".encode(), "\u2014  ".encode()), no)
    yield _case("no-padding", "a signature without padding", _GOOD.rstrip(b"=\n") + b"\n", no)
    yield _case("tab", "a tab in an extension line", _signed(_TEXT + b"a\tb\n"), no)
    yield _case("not-utf8", "a byte that is not UTF-8", _signed(_TEXT + b"\xff\n"), no)
    seventeen = b"".join(note_line(_TEXT, key(f"w{n}.example", n)) for n in range(10, 26))
    yield _case("seventeen-signatures", "seventeen signatures", _GOOD + seventeen, no)
    plus = _GOOD.replace(f" {ORIGIN} ".encode(), f" {ORIGIN}+ ".encode())
    yield _case("plus-in-name", "a key name with a plus", plus, no)
    name_only = f"\u2014 {ORIGIN}\n".encode()
    yield _case("no-material", "a signature line without signature", _TEXT + b"\n" + name_only, no)
    hash_only = f"\u2014 {ORIGIN} {b64(LOG.key_hash)}\n".encode()
    yield _case("hash-only", "a signature line with the key hash alone", _TEXT + b"\n" + hash_only, no)
    yield _case("empty-file", "no bytes", b"", no)


def _signers() -> Iterator[Case]:
    no = rejected(41)
    line = note_line(_TEXT, LOG)
    yield _case("other-text", "a text that was not signed", head(8, _ROOT) + b"\n" + line, no)
    yield _case(
        "signed-blank-line", "a signature over the empty line too", _TEXT + b"\n" + note_line(_TEXT + b"\n", LOG), no
    )
    yield _case("signature-twice", "the log's line twice", _GOOD + line, no)
    wrong = note_line(b"something else\n", LOG)
    yield _case("second-line-wrong", "a second line of the log that does not verify", _GOOD + wrong, no)
    yield _case(
        "witness-wrong",
        "a known witness's line does not verify",
        _GOOD + note_line(b"x\n", WITNESS),
        no,
        (LOG, WITNESS),
    )
    yield _case("witness-only", "a known witness signed, the log did not", note(_TEXT, WITNESS), no, (LOG, WITNESS))
    yield _case("unknown-only", "nobody known signed", note(_TEXT, STRANGER), no)
    other = key(ORIGIN, 9)
    yield _case("same-name", "another key of the log's name signed", note(_TEXT, other), no)
    hashed = f"\u2014 {ORIGIN} {b64(LOG.key_hash + other.sign(_TEXT))}\n".encode()
    yield _case("claimed-hash", "another key's signature under the log's key hash", _TEXT + b"\n" + hashed, no)
    long = f"\u2014 {ORIGIN} {b64(LOG.key_hash + LOG.sign(_TEXT) + b'0')}\n".encode()
    yield _case("long-signature", "a byte behind the signature", _TEXT + b"\n" + long, no)
