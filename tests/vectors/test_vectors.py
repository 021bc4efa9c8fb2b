"""Every case of the corpus gets its expected verdict from govrun, and the corpus is what its script makes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from govrun import canonical
from govrun.audit.trust import TrustedKeys
from govrun.audit.verify import Question, verify_ledger
from govrun.disclosure import open_commitment, parse_disclosure
from govrun.errors import ExitCode, GovrunError
from govrun.inclusion import verify_entry
from govrun.ledger.checkpoint import verify_checkpoint
from govrun.ledger.merkle import ConsistencyProof, Frontier, InclusionProof, verify_consistency, verify_inclusion
from govrun.ledger.read import open_ledger
from govrun.ledger.tile import Bundle, parse_bundle, parse_tile_path, tile_from_bundle
from govrun.policy import evaluate, parse_policy
from govrun.receipt import parse_statement
from govrun.signing.dsse import parse_envelope, verify_envelope
from govrun.signing.keys import parse_vkey, verifier_for
from tests.vectors.make.__main__ import cases

HERE = Path(__file__).parent
SPEC = (HERE.parents[1] / "SPEC.md").read_text()
Asked = dict[str, Any]
# What was found beside the verdict; members of `expected` are compared where both have them.
Answer = dict[str, Any]


def manifests() -> dict[str, Asked]:
    return {path.parent.name: json.loads(path.read_bytes()) for path in sorted(HERE.glob("*/case.json"))}


CASES = manifests()


# One judge for each kind: what it answers for a yes; a no is a GovrunError, or an answer with another exit code.


def judge_signature(asked: Asked, _: Path) -> Answer:
    verifier = verifier_for("example.com/key", bytes.fromhex(asked["publicKey"]))
    verifier.verify(bytes.fromhex(asked["message"]), bytes.fromhex(asked["signature"]))
    return {}


def judge_vkey(asked: Asked, _: Path) -> Answer:
    verifier = parse_vkey(asked["vkey"])
    return {"name": verifier.name, "publicKey": verifier.public.hex()}


def judge_json(asked: Asked, place: Path) -> Answer:
    canonical.decode((place / asked["file"]).read_bytes())
    return {}


def judge_envelope(asked: Asked, place: Path) -> Answer:
    keys = [verifier_for(f"example.com/{n}", bytes.fromhex(one)) for n, one in enumerate(asked["keys"])]
    verified = verify_envelope((place / asked["file"]).read_bytes(), keys, asked["signatures"])
    return {"payloadSha256": hashlib.sha256(verified.payload).hexdigest()}


def judge_statement(asked: Asked, place: Path) -> Answer:
    payload = (place / asked["file"]).read_bytes()
    return {
        "statementKind": parse_statement(payload).kind,
        "subjects": [one["name"] for one in json.loads(payload)["subject"]],
    }


def judge_checkpoint(asked: Asked, place: Path) -> Answer:
    keys = [parse_vkey(one) for one in asked["keys"]]
    head = verify_checkpoint((place / asked["file"]).read_bytes(), asked["origin"], keys).checkpoint
    return {"size": head.size, "rootHash": head.root.hex()}


def judge_tile_path(asked: Asked, _: Path) -> Answer:
    tile = parse_tile_path(asked["path"])
    return {"level": "entries" if isinstance(tile, Bundle) else tile.level, "index": tile.index, "width": tile.width}


def judge_bundle(asked: Asked, place: Path) -> Answer:
    entries = parse_bundle((place / asked["bundle"]).read_bytes(), asked["width"])
    tile = tile_from_bundle(entries)
    if tile != (place / asked["tile"]).read_bytes():
        raise GovrunError(ExitCode.LEDGER_INCONSISTENT, "tile.leaf", "the tile is of other entries")
    frontier = Frontier()
    for at in range(0, len(tile), 32):
        frontier.append(tile[at : at + 32])
    return {"rootHash": frontier.root().hex()}


def judge_inclusion(asked: Asked, _: Path) -> Answer:
    proof = InclusionProof(asked["index"], asked["size"], tuple(map(bytes.fromhex, asked["hashes"])))
    verify_inclusion(proof, bytes.fromhex(asked["leafHash"]), bytes.fromhex(asked["rootHash"]))
    return {}


def judge_consistency(asked: Asked, _: Path) -> Answer:
    proof = ConsistencyProof(asked["oldSize"], asked["newSize"], tuple(map(bytes.fromhex, asked["hashes"])))
    verify_consistency(proof, bytes.fromhex(asked["oldRootHash"]), bytes.fromhex(asked["newRootHash"]))
    return {}


def trusted(asked: Asked) -> TrustedKeys:
    trust = asked["trust"]
    return TrustedKeys(
        log=() if trust["log"] is None else (parse_vkey(trust["log"]),),
        receipt=tuple(map(parse_vkey, trust["receipt"])),
        root=() if trust["root"] is None else (parse_vkey(trust["root"]),),
        origin=trust["origin"],
    )


def pinned(asked: Asked, place: Path) -> bytes | None:
    return (place / asked["pinned"]).read_bytes() if "pinned" in asked else None


def judge_proof(asked: Asked, place: Path) -> Answer:
    data = (place / asked["file"]).read_bytes()
    report = verify_entry(data, trusted(asked), pinned(asked, place), asked.get("require", ()))
    places = {(finding.check, None) for check in report.checks for finding in check.findings if finding.code}
    return {"exitCode": report.exit_code, "places": places}


def judge_ledger(asked: Asked, place: Path) -> Answer:
    question = Question(pinned=pinned(asked, place), require=asked.get("require", ()))
    report = verify_ledger(open_ledger(place / asked["directory"]), trusted(asked), question)
    places = {(finding.check, finding.index) for finding in report.findings if finding.code}
    return {
        "exitCode": report.exit_code,
        "size": report.size,
        "places": places | {(check, None) for check, _ in places},
    }


def judge_policy(asked: Asked, place: Path) -> Answer:
    policy = parse_policy((place / asked["policy"]).read_bytes())
    if asked["intent"] is None:
        return {}
    decision = evaluate(policy, json.loads((place / asked["intent"]).read_bytes()))
    objections = [violation.rule for violation in decision.violations]
    return {"exitCode": 0 if decision.is_allowed else ExitCode.POLICY_VIOLATED, "objections": objections}


def judge_disclosure(asked: Asked, place: Path) -> Answer:
    leaf = (place / asked["receipt"]).read_bytes()
    disclosure = parse_disclosure((place / asked["disclosure"]).read_bytes())
    statement = parse_statement(parse_envelope(leaf).payload)
    opened = open_commitment(disclosure, statement, leaf, [(place / asked["content"]).read_bytes()])
    return {"closed": list(opened.closed)}


JUDGES: dict[str, Callable[[Asked, Path], Answer]] = {
    "signature": judge_signature,
    "vkey": judge_vkey,
    "json": judge_json,
    "envelope": judge_envelope,
    "statement": judge_statement,
    "checkpoint": judge_checkpoint,
    "tilePath": judge_tile_path,
    "bundle": judge_bundle,
    "inclusion": judge_inclusion,
    "consistency": judge_consistency,
    "proof": judge_proof,
    "ledger": judge_ledger,
    "policy": judge_policy,
    "disclosure": judge_disclosure,
}


def answer_to(asked: Asked, place: Path) -> Answer:
    try:
        return {"exitCode": 0} | JUDGES[asked["kind"]](asked, place)
    except GovrunError as error:
        return {"exitCode": error.code, "rule": error.rule}


@pytest.mark.parametrize("name", CASES)
def test_every_case_gets_its_verdict(name: str) -> None:
    asked = CASES[name]
    answer = answer_to(asked, HERE / name)
    expected = dict(asked["expected"])
    assert expected.pop("verdict") == ("accept" if answer["exitCode"] == 0 else "reject"), answer
    if "check" in expected and "places" in answer:
        assert (expected.pop("check"), expected.pop("index", None)) in answer["places"], answer
    known = {name: answer[name] for name in expected if name in answer}
    assert {name: expected[name] for name in known} == known
    assert "exitCode" in known


def test_most_cases_must_fail_and_every_kind_has_both() -> None:
    verdicts = {name: asked["expected"]["verdict"] for name, asked in CASES.items()}
    assert {name: "reject" if name.endswith("_fail") else "accept" for name in CASES} == verdicts
    rejected = sum(verdict == "reject" for verdict in verdicts.values())
    assert rejected > len(verdicts) / 2
    assert len(verdicts) >= 100
    both = {(kind, verdict) for kind in JUDGES for verdict in ("accept", "reject")}
    assert both == {(asked["kind"], asked["expected"]["verdict"]) for asked in CASES.values()}


def files_below(place: Path) -> dict[str, bytes]:
    return {str(file.relative_to(place)): file.read_bytes() for file in sorted(place.glob("*/**/*")) if file.is_file()}


def test_the_script_makes_the_same_bytes(tmp_path: Path) -> None:
    for case in cases():
        case.write(tmp_path)
    kept = {name: data for name, data in files_below(HERE).items() if not name.startswith(("make/", "__pycache__/"))}
    assert files_below(tmp_path) == kept


def test_spec_tells_every_kind_and_its_members() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", SPEC.partition("<!-- vectors -->")[2], re.MULTILINE)
    told = {kind: set(re.findall(r"`(\w+)`", members)) for kind, members in rows}
    assert set(told) == set(JUDGES)
    for name, asked in CASES.items():
        members = set(asked) - {"kind", "says", "expected"}
        assert members <= told[asked["kind"]], name
        assert told[asked["kind"]] - members <= {"pinned", "require"}, name


def test_the_example_in_spec_is_a_case() -> None:
    example = SPEC.partition("<!-- example: vector -->\n```json\n")[2].partition("```")[0]
    assert example in {path.read_text() for path in HERE.glob("*/case.json")}


def test_the_corpus_is_small() -> None:
    sizes = [len(data) for data in files_below(HERE).values()]
    assert sum(sizes) < 2_000_000
    assert max(sizes) < 70_000
