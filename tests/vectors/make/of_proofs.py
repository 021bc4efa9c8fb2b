"""Cases about the proof of one entry: a file that is judged without its ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.vectors.make import drafts
from tests.vectors.make.case import TRUST, Case, accepted, rejected
from tests.vectors.make.drafts import Ledger, four
from tests.vectors.make.spec import (
    RECEIPT,
    ROOT,
    SECOND,
    STRANGER,
    Json,
    b64,
    canonical,
    envelope,
    head,
    inclusion,
    key,
    log_proof,
    note,
    root,
    statement,
)


def _prove(ledger: Ledger, index: int, checkpoint: bytes | None = None) -> bytes:
    return log_proof(ledger.leaves[index], index, inclusion(index, ledger.hashes), checkpoint or ledger.checkpoint())


def _case(
    name: str,
    says: str,
    data: bytes,
    expected: Json,
    pinned: bytes | None = None,
    trust: Json | None = None,
    **asks: Any,
) -> Case:
    files = {"entry.tlog-proof": data} | ({} if pinned is None else {"pinned": pinned})
    asked = {"file": "entry.tlog-proof", "trust": TRUST if trust is None else trust, **asks}
    return Case(
        f"proof-{name}", "proof", says, asked | ({} if pinned is None else {"pinned": "pinned"}), files, expected
    )


def cases() -> Iterator[Case]:
    ledger = four()
    for index, kind in enumerate(("genesis", "intent", "outcome", "denied")):
        yield _case(f"entry-{index}", f"the {kind} of a ledger of four", _prove(ledger, index), accepted())
    pinned = ledger.checkpoint()
    yield _case("pinned", "under the very checkpoint that was kept", _prove(ledger, 1), accepted(), pinned)
    older = ledger.checkpoint(2)
    yield _case(
        "other-size-kept", "a kept checkpoint of another size is not compared", _prove(ledger, 1), accepted(), older
    )
    yield from _forms(ledger)
    yield from _contents(ledger)
    yield from _receipts()
    yield from _trust(ledger)


def _forms(ledger: Ledger) -> Iterator[Case]:
    data = _prove(ledger, 3)
    first = b64(inclusion(3, ledger.hashes)[0]).encode() + b"\n"
    no = rejected(40)
    yield _case("next-version", "a version that does not exist", data.replace(b"@v1", b"@v2", 1), no)
    yield _case(
        "no-entry",
        "no entry's bytes",
        data.replace(data.split(b"\n")[1] + b"\n", b"", 1),
        no,
    )
    yield _case("no-index", "no index", data.replace(b"index 3\n", b""), no)
    yield _case("index-with-zero", "an index with a leading zero", data.replace(b"index 3", b"index 03"), no)
    yield _case("index-with-plus", "an index with a plus", data.replace(b"index 3", b"index +3"), no)
    yield _case("no-blank-line", "no empty line before the checkpoint", data.replace(b"\n\n", b"\n", 1), no)
    yield _case("hash-without-padding", "a hash without padding", data.replace(first, first.replace(b"=", b"")), no)
    yield _case("no-checkpoint", "no checkpoint", data[: data.index(b"\n\n") + 2], no)
    many = log_proof(ledger.leaves[3], 3, [bytes(32)] * 64, ledger.checkpoint())
    yield _case("sixty-four-hashes", "more hashes than any tree needs", many, no)
    yield _case("empty-file", "no bytes", b"", no)


def _contents(ledger: Ledger) -> Iterator[Case]:
    no = rejected(40, check="inclusion")
    path, leaf, checkpoint = inclusion(3, ledger.hashes), ledger.leaves[3], ledger.checkpoint()
    yield _case("other-index", "the place beside", log_proof(leaf, 2, path, checkpoint), no)
    yield _case("other-entry", "another entry of the same ledger", log_proof(ledger.leaves[2], 3, path, checkpoint), no)
    yield _case("other-hash", "another sibling", log_proof(leaf, 3, [path[0], bytes(32)], checkpoint), no)
    yield _case("too-short", "a sibling is missing", log_proof(leaf, 3, path[:1], checkpoint), no)
    yield _case("too-long", "a sibling too many", log_proof(leaf, 3, [*path, bytes(32)], checkpoint), no)
    yield _case("outside", "an index that is the size", log_proof(leaf, 4, path, checkpoint), rejected(40))
    forged = note(head(4, root(ledger.hashes)), STRANGER)
    yield _case(
        "other-log",
        "a checkpoint that another key signed",
        log_proof(leaf, 3, path, forged),
        rejected(41, check="checkpoint"),
    )
    changed = checkpoint.replace(b"\n4\n", b"\n5\n", 1)
    yield _case(
        "other-size",
        "a checkpoint whose size was changed",
        log_proof(leaf, 3, path, changed),
        rejected(40, check="checkpoint"),
    )


def _receipts() -> Iterator[Case]:
    """Entries that are in the log and are no good receipts."""

    def after_four(add: Any) -> bytes:
        ledger = four()
        add(ledger)
        return _prove(ledger, 4)

    def foreign(ledger: Ledger) -> None:
        ledger.add("denied", drafts.denied(), STRANGER)

    def elsewhere(ledger: Ledger) -> None:
        ledger.add("denied", drafts.denied(), at=drafts.place(9, "1" * 64))

    def other_origin(ledger: Ledger) -> None:
        ledger.add("denied", drafts.denied(), at=drafts.place(4, ledger.hash_at(3), "example.com/other"))

    def no_envelope(ledger: Ledger) -> None:
        ledger.leaves.append(b"not an envelope")

    def spaced(ledger: Ledger) -> None:
        payload = canonical(statement("denied", drafts.denied() | drafts.place(4, ledger.hash_at(3))))
        ledger.add_payload(payload.replace(b":", b": ", 1))

    def revoked(*signers: Any) -> Any:
        return lambda ledger: ledger.add("keyRevoked", drafts.key_revoked(SECOND, None), *signers)

    yield _case("key-change", "a key change that the root key signed", after_four(revoked(ROOT)), accepted())
    yield _case(
        "key-change-by-receipt-key",
        "a key change that the receipt key signed",
        after_four(revoked(RECEIPT)),
        rejected(41, check="signature"),
    )
    yield _case(
        "foreign-receipt",
        "a receipt by a key that is not trusted",
        after_four(foreign),
        rejected(41, check="signature"),
    )
    yield _case(
        "other-place",
        "a receipt that was signed for another place",
        after_four(elsewhere),
        rejected(40, check="position"),
    )
    yield _case(
        "other-origin",
        "a receipt that was signed for another ledger",
        after_four(other_origin),
        rejected(40, check="position"),
    )
    yield _case("no-envelope", "an entry that is no envelope", after_four(no_envelope), rejected(40, check="envelope"))
    yield _case("no-receipt", "a payload that is not canonical", after_four(spaced), rejected(40, check="receipt"))
    yield _case(
        "previous-is-sibling",
        "at an odd index, `previous` is not the first hash of the proof",
        _prove(_with_other_genesis(), 1),
        rejected(40, check="position"),
    )


def _with_other_genesis() -> Ledger:
    """A ledger whose entry 1 was signed behind another entry 0."""
    ledger = four()
    ledger.leaves[0] = envelope(
        canonical(statement("genesis", drafts.genesis(createdOn=drafts.instant(59)) | drafts.place(0))), RECEIPT
    )
    return ledger


def _trust(ledger: Ledger) -> Iterator[Case]:
    data = _prove(ledger, 3)
    nobody: Json = {"origin": None, "root": None, "log": None, "receipt": []}
    yield _case("no-key", "nobody is trusted", data, rejected(45, check="assurance"), trust=nobody)
    yield _case(
        "log-key-only",
        "without a trusted receipt key its signature is not checked",
        data,
        accepted(),
        trust=TRUST | {"receipt": []},
    )
    other = TRUST | {"log": key(TRUST["origin"], 9).vkey}
    yield _case("other-log-key", "another log key is trusted", data, rejected(41, check="checkpoint"), trust=other)
    fork = four()
    fork.leaves[2] = b"another entry"
    yield _case(
        "kept-fork",
        "the kept checkpoint has the same size and another root",
        data,
        rejected(44, check="pin"),
        pinned=fork.checkpoint(),
    )
    yield _case(
        "pin-demanded",
        "a kept checkpoint is demanded and there is none",
        data,
        rejected(43, check="assurance"),
        require=["pinned"],
    )
    yield _case(
        "complete-demanded",
        "one entry never shows that all is there",
        data,
        rejected(43, check="assurance"),
        require=["complete"],
    )
