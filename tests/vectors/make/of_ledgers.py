"""Cases about whole published ledgers, most of them made by somebody who holds some of the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.vectors.make import drafts
from tests.vectors.make.case import TRUST, Case, accepted, rejected
from tests.vectors.make.drafts import (
    Ledger,
    begun,
    denied,
    failure,
    four,
    gap,
    intent,
    key_added,
    key_revoked,
    outcome,
    place,
)
from tests.vectors.make.spec import (
    LOG,
    ORIGIN,
    RECEIPT,
    ROOT,
    SECOND,
    STRANGER,
    WITNESS,
    Json,
    Key,
    b64,
    canonical,
    head,
    key,
    note,
    published,
    root,
    statement,
)

NOBODY: Json = {"origin": None, "root": None, "log": None, "receipt": []}


def _case(
    name: str,
    says: str,
    ledger: Ledger | dict[str, bytes],
    expected: Json,
    pinned: bytes | None = None,
    trust: Json | None = None,
    **asks: Any,
) -> Case:
    files = published(ledger.leaves) if isinstance(ledger, Ledger) else ledger
    files = {f"ledger/{path}": data for path, data in files.items()}
    asked: Json = {"directory": "ledger", "trust": TRUST if trust is None else trust, **asks}
    if pinned is not None:
        files["pinned"] = pinned
        asked["pinned"] = "pinned"
    return Case(f"ledger-{name}", "ledger", says, asked, files, expected)


def cases() -> Iterator[Case]:
    yield from _good()
    yield from _damaged()
    yield from _rewritten()
    yield from _kept()
    yield from _trusted()
    yield from _placed()
    yield from _answered()
    yield from _keyed()


def _no(check: str, index: int | None = None) -> Json:
    return rejected(40, check=check, index=index)


def _everything() -> Ledger:
    """Every kind of entry, each with a reason to be there."""
    ledger = begun()
    first = ledger.invoke(1, 1)
    ledger.add("keyAdded", key_added(SECOND, second=3), SECOND, ROOT)
    ledger.add("denied", denied(4), SECOND)
    ledger.add("policyAdopted", drafts.policy_adopted("8" * 64, 5))
    lost = ledger.add(
        "intent", intent(2, 6, policy={"sha256": "8" * 64}, links=[ledger.ref(first) | {"relation": "replayOf"}])
    )
    ledger.add("gap", gap(ledger.ref(lost), 7))
    ledger.add("keyRevoked", key_revoked(SECOND, None, second=8), ROOT)
    return ledger


def _good() -> Iterator[Case]:
    yield _case("genesis-only", "a ledger of one entry", begun(), accepted(size=1))
    yield _case("four", "genesis, intent, outcome, refusal", four(), accepted(size=4))
    yield _case("every-kind", "every kind of entry", _everything(), accepted(size=9))
    ledger = begun()
    files = [{"name": "out.txt", "size": 3, "sha256": "2" * 64}]
    ledger.invoke(1, 1, {"outputs": ["out.txt"]}, {"outputs": files})
    ledger.invoke(2, 3, ended=failure())
    yield _case("outputs-and-failure", "a success with an output, and a failure", ledger, accepted(size=5))
    ledger = begun()
    index = ledger.add("intent", intent(1))
    ledger.add("gap", gap(ledger.ref(index)))
    ledger.add("outcome", outcome(1, index, ledger.hash_at(index), 5))
    yield _case("found-after-gap", "an outcome that was found after its gap", ledger, accepted(size=4))
    ledger = begun()
    ledger.add("intent", intent(1))
    yield _case("open-intent", "an intent without an end is told, and breaks nothing", ledger, accepted(size=2))
    ledger = begun()
    ledger.add("denied", denied(9))
    ledger.add("denied", denied(2))
    yield _case("clock-backwards", "a clock that went back is told, and breaks nothing", ledger, accepted(size=3))
    ledger = four()
    checkpoint = note(head(4, root(ledger.hashes)), WITNESS, LOG)
    yield _case(
        "witness", "an unknown key signed the checkpoint too", published(ledger.leaves, checkpoint), accepted(size=4)
    )


def _damaged() -> Iterator[Case]:
    """Files that were changed by somebody without a key."""
    whole = four()
    files = published(whole.leaves)
    tile, entries = "tile/0/000.p/4", "tile/entries/000.p/4"

    def changed(path: str, change: Callable[[bytes], bytes | None]) -> dict[str, bytes]:
        data = change(files[path])
        return {name: old for name, old in files.items() if name != path} | ({} if data is None else {path: data})

    def flip(at: int) -> Callable[[bytes], bytes]:
        return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    in_last = len(files[entries]) - 300
    yield _case("flipped-leaf", "one bit of the last entry is another", changed(entries, flip(in_last)), _no("tree", 3))
    yield _case("flipped-hash", "one bit of a tile is another", changed(tile, flip(40)), _no("tree", 1))
    yield _case("cut-tile", "a tile that lacks a hash", changed(tile, lambda data: data[:-32]), _no("tree"))
    yield _case("no-tile", "a tile is missing", changed(tile, lambda data: None), _no("tree"))
    yield _case("no-bundle", "the entries are missing", changed(entries, lambda data: None), _no("readable"))
    yield _case("cut-bundle", "the last entry lacks a byte", changed(entries, lambda data: data[:-1]), _no("readable"))
    yield _case(
        "long-bundle", "a byte behind the last entry", changed(entries, lambda data: data + b"\0"), _no("readable")
    )
    other = changed("checkpoint", lambda data: data.replace(b"\n4\n", b"\n3\n", 1))
    other |= {
        "tile/0/000.p/3": files[tile][:96],
        "tile/entries/000.p/3": published(whole.leaves[:3])["tile/entries/000.p/3"],
    }
    yield _case("size-changed", "a size that nobody signed", other, rejected(41, check="checkpoint"))
    yield _case(
        "root-changed",
        "a root that nobody signed",
        files | {"checkpoint": files["checkpoint"].replace(b64(root(whole.hashes)).encode(), b64(bytes(32)).encode())},
        rejected(41, check="checkpoint"),
    )
    old = published(whole.leaves, whole.checkpoint(3))
    old |= {
        "tile/0/000.p/3": old[tile][:96],
        "tile/entries/000.p/3": published(whole.leaves[:3])["tile/entries/000.p/3"],
    }
    yield _case("older-checkpoint", "an older checkpoint: what lies beyond it is not read", old, accepted(size=3))


def _of(leaves: Sequence[bytes]) -> Ledger:
    ledger = Ledger()
    ledger.leaves = list(leaves)
    return ledger


def _rewritten() -> Iterator[Case]:
    """Entries that were moved, under a tree and a checkpoint that fit them: somebody has the log key."""
    g, i, o, d = four().leaves
    moved = {
        "swapped": ((g, o, i, d), "two entries in another order", 1),
        "duplicated": ((g, i, o, o, d), "an entry twice", 3),
        "removed": ((g, i, d), "an entry is missing in the middle", 2),
        "headless": ((i, o, d), "the genesis is missing", 0),
    }
    for name, (leaves, says, index) in moved.items():
        yield _case(f"{name}-resigned", says, _of(leaves), _no("positions", index))
    forged = begun()
    forged.invoke(9)
    forged.add("denied", denied(3))
    yield _case(
        "rechained",
        "history written again with a real receipt key, under the old checkpoint",
        published(forged.leaves, four().checkpoint()),
        _no("checkpoint"),
    )
    yield _case("rewritten", "history written again with every key: nothing shows it alone", forged, accepted(size=4))
    yield _case(
        "rewritten-kept",
        "history written again with every key, against a kept checkpoint",
        forged,
        rejected(44, check="pin", index=2),
        four().checkpoint(3),
    )
    for name, says, checkpoint in (
        ("longer-checkpoint", "a checkpoint over an entry that is not there", four().checkpoint()),
        ("fork-checkpoint", "the checkpoint of a fork", forged.checkpoint(3)),
    ):
        files = published(four().leaves[:3], checkpoint)
        if name == "longer-checkpoint":
            files = {path.replace(".p/3", ".p/4"): data for path, data in files.items()}
        yield _case(name, says, files, rejected(40))


def _kept() -> Iterator[Case]:
    whole = four()
    cut = _of(whole.leaves[:3])
    yield _case(
        "kept-older", "it extends an older checkpoint that was kept", whole, accepted(size=4), whole.checkpoint(2)
    )
    yield _case("kept-same", "it has the very checkpoint that was kept", whole, accepted(size=4), whole.checkpoint())
    yield _case("cut", "cut at a signed checkpoint: nothing shows it alone", cut, accepted(size=3))
    yield _case("cut-kept", "cut below a kept checkpoint", cut, rejected(44, check="pin"), whole.checkpoint())
    stranger = note(head(2, root(whole.hashes[:2])), STRANGER)
    yield _case(
        "kept-by-stranger", "a kept checkpoint that another key signed", whole, rejected(41, check="pin"), stranger
    )
    yield _case("kept-garbage", "a kept checkpoint that is no note", whole, _no("pin"), b"no note\n")
    empty = note(head(0, root([])), LOG)
    yield _case("kept-empty", "a kept checkpoint over nothing shows nothing", whole, rejected(45, check="pin"), empty)
    yield _case(
        "kept-demanded",
        "a kept checkpoint is demanded and there is none",
        whole,
        rejected(43, check="assurance"),
        require=["pinned"],
    )


def _trusted() -> Iterator[Case]:
    whole = four()
    yield _case("no-key", "nobody is trusted", whole, rejected(45, check="assurance"), trust=NOBODY)
    log_only = TRUST | {"receipt": [], "root": None}
    yield _case(
        "log-key-only", "the log key vouches for the keys of the genesis", whole, accepted(size=4), trust=log_only
    )
    receipt_only = TRUST | {"log": None, "root": None}
    yield _case(
        "receipt-key-only",
        "the receipt key vouches for the log key of the genesis",
        whole,
        accepted(size=4),
        trust=receipt_only,
    )
    for name, says, changes in (
        ("other-log-key", "another log key is trusted", {"log": key(ORIGIN, 9).vkey}),
        ("other-receipt-key", "another receipt key is trusted", {"receipt": [SECOND.vkey]}),
        ("other-root-key", "another root key is trusted", {"root": key(f"{ORIGIN}/root", 9).vkey}),
        ("other-origin", "another log is trusted", {"origin": "example.com/other"}),
    ):
        check = {"other-log-key": "checkpoint", "other-origin": "checkpoint", "other-receipt-key": "signatures"}.get(
            name
        )
        yield _case(name, says, whole, rejected(41, check=check or "genesis"), trust=TRUST | changes)


def _placed() -> Iterator[Case]:
    """Receipts that were signed for another place, and entries that are no receipts."""

    def last(name: str, says: str, expected: Json, add: Callable[[Ledger], object]) -> Case:
        ledger = four()
        add(ledger)
        return _case(name, says, ledger, expected)

    def at(**changes: Any) -> Callable[[Ledger], object]:
        def add(ledger: Ledger) -> None:
            position = place(4, ledger.hash_at(3))["ledger"] | changes
            ledger.add("denied", denied(5), at={"ledger": position})

        return add

    def payload(change: Callable[[bytes], bytes]) -> Callable[[Ledger], object]:
        def add(ledger: Ledger) -> None:
            made = statement("denied", denied(5) | place(4, ledger.hash_at(3)))
            ledger.add_payload(change(canonical(made)))

        return add

    yield last("other-index", "a receipt for another index", _no("positions", 4), at(index=5))
    yield last("other-previous", "a receipt behind another entry", _no("positions", 4), at(previous="1" * 64))
    yield last("receipt-of-other-log", "a receipt for another log", _no("positions", 4), at(origin="example.com/other"))
    spaced = payload(lambda data: data.replace(b":", b": ", 1))
    yield last("not-canonical", "a payload with a space", _no("receipts", 4), spaced)
    kind = payload(lambda data: data.replace(b":denied:", b":refused:"))
    yield last("unknown-kind", "a kind that does not exist", _no("receipts", 4), kind)
    subject = payload(lambda data: data.replace(b'"count":1', b'"count":2'))
    yield last("other-subject", "a subject that is not the predicate's", _no("receipts", 4), subject)
    yield last("no-envelope", "an entry that is no envelope", _no("envelopes", 4), lambda one: one.leaves.append(b"{}"))
    yield last(
        "foreign-receipt",
        "a receipt by a key that does not count",
        rejected(41, check="signatures", index=4),
        lambda one: one.add("denied", denied(5), STRANGER),
    )
    yield last(
        "two-signatures",
        "a refusal with two signatures",
        rejected(41, check="signatures", index=4),
        lambda one: one.add("denied", denied(5), RECEIPT, ROOT),
    )
    yield last(
        "second-genesis", "a second genesis", _no("genesis", 4), lambda one: one.add("genesis", drafts.genesis())
    )
    ledger = Ledger()
    ledger.add("denied", denied(1))
    yield _case("no-genesis", "a ledger that begins with a refusal", ledger, _no("genesis", 0))


def _answered() -> Iterator[Case]:
    """Entries that contradict each other, by a writer who has every key."""

    def ended(name: str, says: str, intended: Json | None = None, ends: Json | None = None) -> Case:
        ledger = begun()
        ledger.invoke(1, 1, intended, ends)
        return _case(name, says, ledger, _no("outcomes", 2))

    yield ended("success-with-exit-1", "a success whose exit code is none", None, {"exit": {"code": 1, "signal": None}})
    yield ended("code-and-signal", "an exit code and a signal", None, failure(exit={"code": 1, "signal": 9}))
    files = [{"name": "other.txt", "size": 3, "sha256": "2" * 64}]
    yield ended("other-outputs", "outputs that were not announced", {"outputs": ["out.txt"]}, {"outputs": files})
    yield ended("missing-output", "a success without its output", {"outputs": ["out.txt"]}, {"outputs": []})
    yield ended(
        "weaker-containment",
        "a weaker containment than was demanded",
        {"isolation": {"level": "pidNamespace", "required": True}},
    )
    wrong = {"code": "limit.wall", "exitCode": 21, "found": None, "expected": None}
    yield ended("status-and-error", "a failure with the exit code of a limit", None, failure(error=wrong))
    changed = {"status": "changed", "changed": []}
    yield ended("changed-nothing", "files that changed, and none of them", None, failure(dependenciesAfter=changed))
    yield ended("other-invocation", "the invocation id of another intent", None, {"invocationId": "9" * 32})

    ledger = begun()
    index = ledger.invoke(1)
    ledger.add("outcome", outcome(1, index, ledger.hash_at(index), 3))
    yield _case("second-outcome", "two outcomes of one intent", ledger, _no("outcomes", 3))
    ledger = begun()
    ledger.add("outcome", outcome(1, 0, ledger.hash_at(0)))
    yield _case("outcome-of-genesis", "an outcome of no intent", ledger, _no("outcomes", 1))
    ledger = begun()
    ledger.add("outcome", outcome(1, 2, "1" * 64))
    ledger.add("intent", intent(1))
    yield _case("outcome-first", "an outcome before its intent", ledger, _no("outcomes", 1))
    ledger = begun()
    index = ledger.add("intent", intent(1))
    ledger.add("outcome", outcome(1, index, "1" * 64))
    yield _case("outcome-of-other-hash", "an outcome of another intent at that place", ledger, _no("outcomes", 2))
    ledger = begun()
    ledger.add("gap", gap(ledger.ref(0)))
    yield _case("gap-about-genesis", "a gap about no intent", ledger, _no("outcomes", 1))
    ledger = four()
    ledger.add("gap", gap(ledger.ref(1)))
    yield _case("gap-after-outcome", "a gap about an intent that has its end", ledger, _no("outcomes", 4))
    ledger = begun()
    index = ledger.add("intent", intent(1))
    ledger.add("gap", gap(ledger.ref(index)))
    ledger.add("gap", gap(ledger.ref(index)))
    yield _case("second-gap", "two gaps about one intent", ledger, _no("outcomes", 3))
    ledger = begun()
    claimed = {"request": {"id": "once", "commitment": drafts.commitment(10)}}
    ledger.invoke(1, 1, claimed)
    ledger.invoke(2, 3, claimed)
    yield _case("request-twice", "one request id in two intents", ledger, _no("requests", 3))
    ledger = begun()
    ledger.add("intent", intent(1))
    ledger.add("intent", intent(1))
    yield _case("invocation-twice", "two open intents of one invocation", ledger, _no("requests", 2))
    ledger = four()
    ledger.add("intent", intent(2, 5, links=[{"relation": "replayOf", "index": 1, "leafHash": "1" * 64}]))
    yield _case("link-elsewhere", "a link to another entry than the one there", ledger, _no("links", 4))
    ledger = four()
    ledger.add("intent", intent(2, 5, links=[{"relation": "replayOf", "index": 9, "leafHash": "1" * 64}]))
    yield _case("link-ahead", "a link to an entry that is not there yet", ledger, _no("links", 4))
    ledger = begun()
    ledger.add("intent", intent(1))
    yield _case(
        "incomplete",
        "an end is demanded and there is none",
        ledger,
        rejected(43, check="intents", index=1),
        require=["complete"],
    )


def _keyed() -> Iterator[Case]:
    """Key changes, and receipts by keys that do not count at their place."""
    untrusted = rejected(41, check="keyChanges", index=1)

    def change(name: str, says: str, kind: str, predicate: Json, signers: Sequence[Key], expected: Json) -> Case:
        ledger = begun()
        ledger.add(kind, predicate, *signers)
        return _case(name, says, ledger, expected)

    added = key_added(SECOND)
    yield change(
        "key-added-by-receipt-key", "the receipt key adds a key", "keyAdded", added, (SECOND, RECEIPT), untrusted
    )
    yield change("key-added-in-other-order", "the root key signs first", "keyAdded", added, (ROOT, SECOND), untrusted)
    yield change("key-added-without-proof", "the new key did not sign", "keyAdded", added, (ROOT,), untrusted)
    yield change("key-added-by-itself", "no root key signed", "keyAdded", added, (SECOND,), untrusted)
    revoked = key_revoked(RECEIPT, None)
    yield change("key-revoked-by-itself", "a receipt key revokes itself", "keyRevoked", revoked, (RECEIPT,), untrusted)
    yield change("key-revoked-by-stranger", "a stranger revokes", "keyRevoked", revoked, (STRANGER,), untrusted)

    ledger = begun()
    ledger.add("denied", denied(1), SECOND)
    ledger.add("keyAdded", added, SECOND, ROOT)
    yield _case(
        "key-before-added", "a key signs before it was added", ledger, rejected(41, check="signatures", index=1)
    )
    broken = rejected(40, check="keyChanges", index=1)
    last = key_revoked(ROOT, None, "root")
    yield change("root-last-revoked", "the last root key is revoked", "keyRevoked", last, (ROOT,), broken)
    ahead = key_revoked(RECEIPT, 2)
    yield change("suspect-ahead", "suspect from behind the entry that says so", "keyRevoked", ahead, (ROOT,), broken)
    ledger = begun()
    ledger.add("keyRevoked", revoked, ROOT)
    ledger.add("denied", denied(6))
    yield _case(
        "key-after-revoked", "a key signs after it was revoked", ledger, rejected(41, check="signatures", index=2)
    )
    ledger = begun()
    ledger.add("keyRevoked", revoked, ROOT)
    ledger.add("keyAdded", key_added(RECEIPT, second=6), RECEIPT, ROOT)
    ledger.add("denied", denied(7))
    yield _case(
        "key-comes-back", "a revoked receipt key never counts again", ledger, rejected(41, check="signatures", index=3)
    )
    ledger = begun()
    new_root = key(f"{ORIGIN}/root", 7)
    ledger.add("keyAdded", key_added(new_root, "root"), new_root, ROOT)
    ledger.add("keyRevoked", key_revoked(ROOT, None, "root"), ROOT)
    ledger.add("keyAdded", key_added(SECOND, second=6), SECOND, new_root)
    ledger.add("denied", denied(7), SECOND)
    yield _case("root-rotated", "a new root key adds a receipt key", ledger, accepted(size=5))
    ledger = _of(ledger.leaves)
    ledger.add("keyRevoked", key_revoked(RECEIPT, None, second=8), ROOT)
    yield _case("old-root", "a root key that was revoked revokes", ledger, rejected(41, check="keyChanges", index=5))
    ledger = begun()
    ledger.add("keyAdded", added, SECOND, ROOT)
    ledger.add("denied", denied(5), SECOND)
    ledger.add("denied", denied(6), SECOND)
    ledger.add("keyRevoked", key_revoked(SECOND, 3, second=7), ROOT)
    suspect = rejected(43, check="suspects", index=3)
    yield _case("suspect", "a receipt of a key that was compromised then", ledger, suspect)
    yield _case(
        "suspect-kept",
        "the suspect receipt lies below a kept checkpoint",
        ledger,
        accepted(size=5),
        ledger.checkpoint(4),
    )
    yield _case(
        "suspect-kept-too-low",
        "the suspect receipt lies above the kept checkpoint",
        ledger,
        suspect,
        ledger.checkpoint(3),
    )
