"""Cases about Ed25519 signatures and the spelling of keys."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.vectors.make import curve
from tests.vectors.make.case import Case, accepted, rejected
from tests.vectors.make.curve import BASE, ORDER, TORSION, P, add, challenge, encode, multiply, scalar_bytes
from tests.vectors.make.spec import LOG, RECEIPT, Json, b64, key, sha256

MESSAGE = b"what was signed"
_A = curve.secret(RECEIPT.seed)
_NONCE = int.from_bytes(sha256(b"a nonce that everybody knows"), "little") % ORDER

# RFC 8032, 7.1, TEST 3.
_RFC_PUBLIC = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
_RFC_SIGNATURE = (
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)

# The eight points of small order by their y, and the encodings that do not reduce y modulo p.
_SMALL = {
    "identity": (1).to_bytes(32, "little"),
    "order-two": (P - 1).to_bytes(32, "little"),
    "order-four": bytes(32),
    "order-eight": encode(TORSION),
    "identity-with-sign": (1 | 1 << 255).to_bytes(32, "little"),
    "identity-not-reduced": (P + 1).to_bytes(32, "little"),
    "zero-not-reduced": P.to_bytes(32, "little"),
}


def cases() -> Iterator[Case]:
    yield from signatures()
    yield from vkeys()


def _signature(name: str, says: str, public: bytes, message: bytes, sig: bytes, expected: Json) -> Case:
    asks = {"publicKey": public.hex(), "message": message.hex(), "signature": sig.hex()}
    return Case(f"signature-{name}", "signature", says, asks, {}, expected)


def signatures() -> Iterator[Case]:
    public, sig = RECEIPT.public, RECEIPT.sign(MESSAGE)
    no = rejected(41, rule="signature.wrong")
    yield _signature(
        "rfc8032",
        "RFC 8032, 7.1, test 3",
        bytes.fromhex(_RFC_PUBLIC),
        b"\xaf\x82",
        bytes.fromhex(_RFC_SIGNATURE),
        accepted(),
    )
    yield _signature("plain", "an ordinary signature", public, MESSAGE, sig, accepted())
    yield _signature("empty-message", "a signature over nothing", public, b"", RECEIPT.sign(b""), accepted())
    yield _signature("other-message", "one bit of the message is another", public, b"What was signed", sig, no)
    flipped = bytes([sig[0] ^ 1]) + sig[1:]
    yield _signature("flipped-r", "one bit of R is another", public, MESSAGE, flipped, no)
    flipped = sig[:32] + bytes([sig[32] ^ 1]) + sig[33:]
    yield _signature("flipped-s", "one bit of S is another", public, MESSAGE, flipped, no)
    yield _signature("other-key", "another key signed", LOG.public, MESSAGE, sig, no)
    yield _signature("short", "a signature of 63 bytes", public, MESSAGE, sig[:-1], no)
    yield _signature("long", "a signature of 65 bytes", public, MESSAGE, sig + b"\0", no)
    high = int.from_bytes(sig[32:], "little") + ORDER
    yield _signature(
        "scalar-not-reduced", "S plus the order of the group", public, MESSAGE, sig[:32] + scalar_bytes(high), no
    )
    yield from _odd_points()
    commitment = encode(multiply(_NONCE, BASE))
    for name, small in _SMALL.items():
        message = next(m for m in _messages() if challenge(commitment, small, m) % 8 == 0)
        yield _signature(
            f"small-order-key-{name}",
            "a key of small order: the challenge cancels it, so that nobody's secret was needed",
            small,
            message,
            commitment + scalar_bytes(_NONCE),
            rejected(45, rule="vkey.encoding" if name.endswith("not-reduced") else "vkey.weak"),
        )


def _messages() -> Iterator[bytes]:
    return (b"message %d" % count for count in itertools.count())


def _points(key_torsion: int, nonce: int, nonce_torsion: int) -> tuple[bytes, bytes]:
    """A = aB + xT and R = rB + yT, T of order 8."""
    return (
        encode(add(multiply(_A, BASE), multiply(key_torsion, TORSION))),
        encode(add(multiply(nonce, BASE), multiply(nonce_torsion, TORSION))),
    )


def _answer(commitment: bytes, public: bytes, message: bytes, nonce: int) -> bytes:
    """The signature whose S makes the equation hold but for the parts of small order."""
    return commitment + scalar_bytes((nonce + challenge(commitment, public, message) * _A) % ORDER)


def _odd_points() -> Iterator[Case]:
    """Points with a part of small order, which verification with and without the cofactor tell apart."""
    no = rejected(41, rule="signature.wrong")

    def case(
        name: str, says: str, public: bytes, commitment: bytes, nonce: int, message: bytes, expected: Json
    ) -> Case:
        return _signature(name, says, public, message, _answer(commitment, public, message, nonce), expected)

    public, identity = _points(0, 0, 0)
    yield case("r-identity", "R is the identity, and the equation holds", public, identity, 0, MESSAGE, accepted())
    unreduced = (P + 1).to_bytes(32, "little")
    yield case("r-not-reduced", "R is the identity, not reduced modulo p", public, unreduced, 0, MESSAGE, no)
    public, mixed = _points(0, _NONCE, 1)
    yield case(
        "r-with-residue",
        "R has a part of order 8: the equation holds only when multiplied by the cofactor",
        public,
        mixed,
        _NONCE,
        MESSAGE,
        no,
    )
    public, plain = _points(1, _NONCE, 0)
    left = next(m for m in _messages() if challenge(plain, public, m) % 8)
    yield case(
        "key-with-residue",
        "the key has a part of order 8 that the challenge does not cancel",
        public,
        plain,
        _NONCE,
        left,
        no,
    )
    gone = next(m for m in _messages() if challenge(plain, public, m) % 8 == 0)
    yield case(
        "key-with-cancelled-torsion",
        "the key has a part of order 8 that the challenge cancels: the equation holds as it is",
        public,
        plain,
        _NONCE,
        gone,
        accepted(),
    )


def _vkey(name: str, says: str, vkey: str, expected: Json) -> Case:
    return Case(f"vkey-{name}", "vkey", says, {"vkey": vkey}, {}, expected)


def _spelled(name: str, public: bytes, kind: bytes = b"\x01") -> str:
    return f"{name}+{sha256(name.encode() + bytes([10]) + kind + public)[:4].hex()}+{b64(kind + public)}"


def _other_alphabet() -> str:
    """A vkey that both alphabets can spell, in the one that is not standard."""
    name, hash_, text = next(vkey for vkey in (key(LOG.name, n).vkey for n in range(256)) if vkey.count("+") > 2).split(
        "+", 2
    )
    return f"{name}+{hash_}+{text.replace('+', '-')}"


def vkeys() -> Iterator[Case]:
    name, hash_, text = LOG.vkey.split("+", 2)
    yield _vkey("plain", "an ordinary key", LOG.vkey, accepted(name=LOG.name, publicKey=LOG.public.hex()))
    yield _vkey("other-hash", "the hash of another key", f"{name}+00000000+{text}", rejected(45, rule="vkey.hash"))
    yield _vkey("upper-case", "a hash in capitals", f"{name}+{hash_.upper()}+{text}", rejected(45, rule="vkey.form"))
    yield _vkey("line-break", "a line break behind it", LOG.vkey + "\n", rejected(45, rule="vkey.form"))
    yield _vkey("two-parts", "no key material", f"{name}+{hash_}", rejected(45, rule="vkey.form"))
    yield _vkey(
        "other-type",
        "an algorithm that is not Ed25519",
        _spelled(name, LOG.public, b"\x04"),
        rejected(45, rule="vkey.type"),
    )
    yield _vkey("short", "a key of 31 bytes", _spelled(name, LOG.public[:31]), rejected(45, rule="vkey.length"))
    yield _vkey("space-in-name", "a name with a space", _spelled("a b", LOG.public), rejected(45, rule="vkey.name"))
    yield _vkey(
        "other-alphabet",
        "base64 of the URL alphabet",
        _other_alphabet(),
        rejected(45, rule="vkey.form"),
    )
    y = next(y for y in range(2, 19) if curve.is_on_curve(y))
    yield _vkey(
        "not-reduced",
        "a point of large order whose y is not reduced modulo p",
        _spelled(name, (P + y).to_bytes(32, "little")),
        rejected(45, rule="vkey.encoding"),
    )
    yield _vkey("small-order", "a key of order 8", _spelled(name, encode(TORSION)), rejected(45, rule="vkey.weak"))
