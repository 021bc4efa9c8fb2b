"""A second verifier, written from SPEC alone: whole published ledgers, with the rules between entries.

It imports nothing of govrun. It finds a set of (check, index, exit code), by the names of SPEC's "Verification".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.vectors.make.spec import ZEROS, b64, leaf_hash, root, sha256
from tests.vectors.stranger_forms import (
    Finding,
    Json,
    NoError,
    open_checkpoint,
    parse_envelope,
    parse_statement,
    public_of,
    signers,
)

# Of several findings the first of these decides.
SEVERITY = (40, 41, 44, 42, 43, 45)
STATUS = {"failed": 20, "limitExceeded": 21, "unparsable": 22, "interrupted": 23, "incomplete": 1}


class Ledger:
    """One ledger under examination; `findings` says what was wrong."""

    def __init__(self, directory: Path, trust: Json) -> None:
        self.directory, self.trust = directory, trust
        self.findings: list[Finding] = []
        note = (directory / "checkpoint").read_bytes()
        self.origin = note.decode().split("\n")[0]
        self.size = int(note.decode().split("\n")[1])
        self.leaves = self._leaves()
        self.hashes = [leaf_hash(leaf) for leaf in self.leaves]
        self.read = [self._statement(index, leaf) for index, leaf in enumerate(self.leaves)]
        named = self.read[0][1]["keys"] if self.read and self.read[0] and self.read[0][0] == "genesis" else {}
        self.keys = {
            role: [public_of(one) for one in given if one]
            or ([bytes.fromhex(named[role]["publicKey"])] if role in named else [])
            for role, given in (("root", [trust["root"]]), ("log", [trust["log"]]), ("receipt", trust["receipt"]))
        }
        self.named = named

    def no(self, check: str, index: int | None = None, code: int = 40) -> None:
        self.findings.append((check, index, code))

    def guarded(self, index: int | None, ask: Callable[[], Any]) -> Any:
        """The answer, or None and a finding."""
        try:
            return ask()
        except NoError as no:
            self.no(no.finding[0], index, no.finding[2])
            return None

    def _leaves(self) -> list[bytes]:
        file = self.directory / f"tile/entries/000.p/{self.size}"
        data = file.read_bytes() if file.exists() else b""
        leaves = []
        for _ in range(self.size):
            end = 2 + int.from_bytes(data[:2], "big")
            leaves.append(data[2:end])
            if len(data) < max(2, end):
                self.no("readable")
                return []
            data = data[end:]
        if data:
            self.no("readable")
            return []
        return leaves

    def _statement(self, index: int, leaf: bytes) -> tuple[str, Json] | None:
        opened = self.guarded(index, lambda: parse_envelope(leaf))
        return None if opened is None else self.guarded(index, lambda: parse_statement(opened[0]))

    def log_vkeys(self) -> list[str]:
        def vkey(public: bytes) -> str:
            spelled = b"\x01" + public
            return f"{self.origin}+{sha256(self.origin.encode() + bytes([10]) + spelled)[:4].hex()}+{b64(spelled)}"

        return [self.trust["log"]] if self.trust["log"] else [vkey(public) for public in self.keys["log"]]

    def check(self, pinned: bytes | None, require: Sequence[str]) -> int:
        """Judge everything; the exit code."""
        self._head()
        kept = self._pin(pinned) if pinned is not None else None
        file = self.directory / f"tile/0/000.p/{self.size}"
        stored = file.read_bytes() if file.exists() else b""
        if len(stored) != 32 * self.size:
            self.no("tree")
        else:
            cut = [stored[at : at + 32] for at in range(0, len(stored), 32)]
            for index, (one, expected) in enumerate(zip(cut, self.hashes, strict=False)):
                if one != expected:
                    self.no("tree", index)
        self._places()
        self._genesis()
        self._keys(kept or 0)
        Rules(self).check("complete" in require)
        if not (self.trust["log"] or self.trust["receipt"]):
            self.no("assurance", None, 45)
        if "pinned" in require and kept is None:
            self.no("assurance", None, 43)
        codes = {code for _, _, code in self.findings}
        return next((code for code in SEVERITY if code in codes), 0)

    def _head(self) -> None:
        if self.trust["origin"] not in (None, self.origin):
            self.no("checkpoint", None, 41)
        note = (self.directory / "checkpoint").read_bytes()
        head = self.guarded(None, lambda: open_checkpoint(note, self.origin, self.log_vkeys()))
        if head is not None and self.leaves and head != (len(self.leaves), root(self.hashes)):
            self.no("checkpoint")

    def _pin(self, pinned: bytes) -> int | None:
        try:
            size, expected = open_checkpoint(pinned, self.origin, self.log_vkeys())
        except NoError as no:
            self.no("pin", None, no.finding[2])
            return None
        if size == 0:
            self.no("pin", None, 45)
            return None
        if size > len(self.leaves) or root(self.hashes[:size]) != expected:
            self.no("pin", size - 1, 44)
            return None
        return size

    def _places(self) -> None:
        previous = ZEROS
        for index, one in enumerate(self.read):
            if one is not None:
                place = {"origin": self.origin, "index": index, "previous": previous}
                if one[1]["ledger"] != place:
                    self.no("positions", index)
            previous = self.hashes[index].hex()

    def _genesis(self) -> None:
        for index, one in enumerate(self.read):
            if one is not None and (one[0] == "genesis") != (index == 0):
                self.no("genesis", index)
        for role, given in (
            ("root", [self.trust["root"]]),
            ("log", [self.trust["log"]]),
            ("receipt", self.trust["receipt"]),
        ):
            trusted = [public_of(one).hex() for one in given if one]
            if trusted and self.named and self.named[role]["publicKey"] not in trusted:
                self.no("genesis", 0, 41)

    def _keys(self, kept: int) -> None:
        """Signatures, key changes, and what became suspect."""
        roots, receipts = list(self.keys["root"]), list(self.keys["receipt"])
        gone: set[bytes] = set()
        by: dict[int, bytes] = {}
        for index, one in enumerate(self.read):
            opened = None if one is None else parse_envelope(self.leaves[index])
            if one is None or opened is None:
                continue
            kind, predicate = one
            if not kind.startswith("key"):
                signed = self.guarded(index, lambda o=opened, k=receipts: signers(*o, k, 1))
                by |= {} if signed is None else {index: signed[0]}
                continue
            key = bytes.fromhex(predicate["key"]["publicKey"])
            try:
                if kind == "keyAdded" and signers(*opened, [key, *roots], 2)[0] != key:
                    raise NoError("keyChanges", 41)
                if kind == "keyRevoked":
                    signers(*opened, roots, 1)
            except NoError:
                self.no("keyChanges", index, 41)
                continue
            changed = roots if predicate["role"] == "root" else receipts
            if kind == "keyRevoked" and ((predicate["suspectFromIndex"] or 0) > index or roots == [key]):
                self.no("keyChanges", index, 40)
                continue
            if kind == "keyAdded":
                changed += [key] if key not in gone and key not in changed else []
                continue
            changed[:] = [other for other in changed if other != key]
            if predicate["role"] == "receipt":
                gone.add(key)
                first = predicate["suspectFromIndex"]
                for at in range(index if first is None else max(first, kept), index):
                    if by.get(at) == key:
                        self.no("suspects", at, 43)


class Rules:
    """What must hold between entries."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.ended: dict[int, set[str]] = {}
        self.intents: dict[int, Json] = {}
        self.claimed: set[str] = set()

    def check(self, complete: bool) -> None:
        for index, one in enumerate(self.ledger.read):
            if one is None:
                continue
            kind, predicate = one
            for link in predicate.get("links", ()):
                if not self.is_earlier(link, index):
                    self.ledger.no("links", index)
            if kind == "intent":
                self.announced(index, predicate)
            elif kind in ("outcome", "gap") and predicate["intent"] is not None:
                self.answered(index, kind, predicate)
        for index, ends in self.ended.items():
            if complete and "outcome" not in ends:
                self.ledger.no("intents", index, 43)

    def is_earlier(self, ref: Json, index: int) -> bool:
        return ref["index"] < index and self.ledger.hashes[ref["index"]].hex() == ref["leafHash"]

    def announced(self, index: int, predicate: Json) -> None:
        request = predicate["request"]["id"]
        is_open = (self.intents[at] for at, ends in self.ended.items() if not ends)
        if request in self.claimed or predicate["invocationId"] in [one["invocationId"] for one in is_open]:
            self.ledger.no("requests", index)
        self.claimed |= {request} - {None}
        self.intents[index], self.ended[index] = predicate, set()

    def answered(self, index: int, kind: str, predicate: Json) -> None:
        target = predicate["intent"]["index"]
        if target not in self.intents or not self.is_earlier(predicate["intent"], index):
            self.ledger.no("outcomes", index)
            return
        ends = self.ended[target]
        if "outcome" in ends or kind in ends:
            self.ledger.no("outcomes", index)
            return
        ends.add(kind)
        if kind == "outcome" and not all(self.kept(self.intents[target], predicate)):
            self.ledger.no("outcomes", index)

    def kept(self, intent: Json, end: Json) -> Iterator[bool]:
        """Whether an outcome keeps to its intent, and does not contradict itself."""
        succeeded, changes = end["status"] == "succeeded", end["dependenciesAfter"]
        yield end["invocationId"] == intent["invocationId"]
        yield None in (end["exit"]["code"], end["exit"]["signal"])
        yield (
            end["exit"]["code"] in intent["okExit"] if succeeded else end["error"]["exitCode"] == STATUS[end["status"]]
        )
        if isinstance(intent["outputs"], list) and isinstance(end["outputs"], list):
            names = [one["name"] for one in end["outputs"]]
            yield names == intent["outputs"] if succeeded else set(names) <= set(intent["outputs"])
        if intent["isolation"] == {"level": "pidNamespace", "required": True}:
            yield end["containment"] is None or end["containment"]["level"] == "pidNamespace"
        yield (changes["changed"] != []) == (changes["status"] == "changed")


def judge_ledger(place: Path, asked: Json) -> tuple[int, set[tuple[str, int | None]]]:
    """The exit code, and which checks failed at which entries, and anywhere (None)."""
    ledger = Ledger(place / asked["directory"], asked["trust"])
    pinned = (place / asked["pinned"]).read_bytes() if "pinned" in asked else None
    code = ledger.check(pinned, asked.get("require", ()))
    failed = {(check, index) for check, index, _ in ledger.findings}
    return code, failed | {(check, None) for check, _ in failed}
