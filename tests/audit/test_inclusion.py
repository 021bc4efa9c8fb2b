"""A proof of one entry is judged alone: what it shows, what it does not, and nothing changed passes."""

from __future__ import annotations

import attrs
import orjson
import pytest
from syrupy.assertion import SnapshotAssertion

from govrun import schemas
from govrun.audit.trust import TrustedKeys
from govrun.errors import ExitCode, GovrunError
from govrun.formats import inclusion_json, inclusion_text
from govrun.inclusion import InclusionReport, origin_of, verify_entry
from govrun.ledger.checkpoint import Checkpoint, sign_checkpoint
from govrun.ledger.merkle import inclusion_proof, leaf_hash
from govrun.ledger.proof import LogProof, format_proof
from govrun.receipt import Position, format_statement
from govrun.signing.keys import signer_from_seed
from govrun.signing.note import sign_note
from tests.audit import ledgers
from tests.audit.ledgers import LOG, ORIGIN, RECEIPT, ROOT, SECOND, STRANGER, TRUSTED, Ledger


def prove(ledger: Ledger, index: int, size: int | None = None) -> LogProof:
    size = size or len(ledger.leaves)
    path = inclusion_proof(index, size, lambda at: [ledger.nodes[n] for n in at])
    return LogProof(ledger.leaves[index], index, path.hashes, ledger.notes[size])


def judged(
    proof: LogProof, trusted: TrustedKeys = TRUSTED, pinned: bytes | None = None, *require: str
) -> InclusionReport:
    return verify_entry(format_proof(proof), trusted, pinned, require)  # type: ignore[arg-type]


def rules(report: InclusionReport) -> dict[str, str]:
    return {finding.check: finding.rule for check in report.checks for finding in check.findings}


def statuses(report: InclusionReport) -> dict[str, str]:
    return {check.id: check.status for check in report.checks}


SIX = ledgers.six()


def test_every_entry_of_every_ledger_is_included() -> None:
    for size in range(1, 7):
        for index in range(size):
            report = judged(prove(SIX, index, size))
            assert ("included", "keyed", ExitCode.SUCCESS) == (report.inclusion, report.assurance, report.exit_code)
            assert {"passed"} == set(statuses(report).values())
            assert (ORIGIN, size, index, SIX.hash_at(index)) == (
                report.origin,
                report.size,
                report.index,
                report.leaf_hash,
            )


@pytest.mark.parametrize("index", [1, 4])
def test_no_flipped_byte_and_no_cut_of_a_proof_file_verifies(index: int) -> None:
    data = format_proof(prove(SIX, index))
    for at in range(len(data)):
        for changed in (data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :], data[:at]):
            assert verdict_on(changed) in (ExitCode.LEDGER_INCONSISTENT, ExitCode.SIGNATURE_UNTRUSTED)


def verdict_on(data: bytes) -> ExitCode:
    """The exit code for a file that must not verify."""
    try:
        report = verify_entry(data, TRUSTED)
    except GovrunError as error:
        return error.code
    assert ("notIncluded", "unauthenticated") == (report.inclusion, report.assurance)
    return report.exit_code


def test_without_a_trusted_log_key_there_is_no_verdict() -> None:
    for trusted in (TrustedKeys(), TrustedKeys(receipt=TRUSTED.receipt, root=TRUSTED.root)):
        report = judged(prove(SIX, 2), trusted, SIX.notes[6])
        assert ("notChecked", "unauthenticated", ExitCode.COULD_NOT_CHECK) == (
            report.inclusion,
            report.assurance,
            report.exit_code,
        )
        assert "notChecked" == statuses(report)["pin"]


def test_under_the_log_key_alone_the_receipts_signature_is_not_checked() -> None:
    report = judged(prove(SIX, 2), TrustedKeys(log=TRUSTED.log))
    assert ("included", ExitCode.SUCCESS, "notChecked") == (
        report.inclusion,
        report.exit_code,
        statuses(report)["signature"],
    )


def test_another_log_key_or_origin_is_untrusted() -> None:
    for trusted in (attrs.evolve(TRUSTED, log=(STRANGER.verifier,)), attrs.evolve(TRUSTED, origin="example.com/other")):
        report = judged(prove(SIX, 2), trusted)
        assert ("notIncluded", ExitCode.SIGNATURE_UNTRUSTED) == (report.inclusion, report.exit_code)


def test_a_receipt_by_an_untrusted_key_is_included_and_untrusted() -> None:
    ledger = ledgers.six()
    index = ledger.add(ledgers.denied(9), SECOND)
    report = judged(prove(ledger, index))
    assert ("included", "unauthenticated", ExitCode.SIGNATURE_UNTRUSTED) == (
        report.inclusion,
        report.assurance,
        report.exit_code,
    )
    assert {"signature": "signature.untrusted"} == rules(report)


def test_key_changes_are_judged_by_the_root_key() -> None:
    ledger = ledgers.six()
    added = ledger.add(ledgers.key_added(SECOND), SECOND, ROOT)
    forged = ledger.add(ledgers.key_added(STRANGER), STRANGER, RECEIPT)
    revoked = ledger.add(ledgers.key_revoked(SECOND, None), ROOT)
    assert [0, 41, 0] == [int(judged(prove(ledger, n)).exit_code) for n in (added, forged, revoked)]
    assert "notChecked" == statuses(judged(prove(ledger, added), attrs.evolve(TRUSTED, root=())))["signature"]


def test_an_entry_that_is_no_receipt_is_included_and_inconsistent() -> None:
    ledger = ledgers.six()
    index = ledger.add_leaf(b"not an envelope")
    report = judged(prove(ledger, index))
    assert ("included", ExitCode.LEDGER_INCONSISTENT, None) == (report.inclusion, report.exit_code, report.statement)
    assert {"envelope", "signature", "receipt"} == set(rules(report))
    assert "notChecked" == statuses(report)["position"]
    assert "not shown" in inclusion_text.render(report)


@pytest.mark.parametrize(
    "position",
    [
        Position(ORIGIN, 6, SIX.hash_at(5)),
        Position(ORIGIN, 8, SIX.hash_at(5)),
        Position("example.com/other", 7, SIX.hash_at(5)),
        Position(ORIGIN, 7, "0" * 64),
    ],
)
def test_a_receipt_that_was_signed_for_another_place_is_found(position: Position) -> None:
    ledger = ledgers.six()
    ledger.add(ledgers.denied(6))
    index = ledger.add_payload(format_statement(ledgers.denied(7), position))
    assert (7, {"position": "position.place"}) == (index, rules(judged(prove(ledger, index))))


def test_what_lies_outside_the_checkpoint_is_no_proof() -> None:
    proof = prove(SIX, 5)
    huge = sign_checkpoint(Checkpoint(ORIGIN, 1 << 53, b"\1" * 32), LOG)
    for bad in (attrs.evolve(proof, checkpoint=SIX.notes[5]), attrs.evolve(proof, checkpoint=huge)):
        with pytest.raises(GovrunError) as caught:
            judged(bad)
        assert (ExitCode.LEDGER_INCONSISTENT, "proof.range") == (caught.value.code, caught.value.rule)


def test_the_pinned_checkpoint_is_compared_where_it_has_the_same_size_and_nowhere_else() -> None:
    proof = prove(SIX, 2, 5)
    assert ("pinned", ExitCode.SUCCESS) == (
        (same := judged(proof, TRUSTED, SIX.notes[5], "keyed", "pinned")).assurance,
        same.exit_code,
    )
    other = judged(proof, TRUSTED, SIX.notes[6])
    assert ("keyed", ExitCode.SUCCESS, "notChecked") == (other.assurance, other.exit_code, statuses(other)["pin"])
    assert any("consistency proof" in line for line in other.not_shown)
    assert ExitCode.EVIDENCE_INCOMPLETE == judged(proof, TRUSTED, SIX.notes[6], "pinned").exit_code
    fork = sign_checkpoint(Checkpoint(ORIGIN, 5, leaf_hash(b"another")), LOG)
    assert ExitCode.HISTORY_DIVERGED == judged(proof, TRUSTED, fork).exit_code
    stranger = sign_note(f"{ORIGIN}\n5\n{'A' * 43}=\n".encode(), [signer_from_seed(ORIGIN, b"x" * 32)])
    assert ExitCode.SIGNATURE_UNTRUSTED == judged(proof, TRUSTED, stranger).exit_code


def test_one_entry_never_shows_that_all_is_there() -> None:
    report = judged(prove(SIX, 2), TRUSTED, None, "complete")
    assert (ExitCode.EVIDENCE_INCOMPLETE, {"assurance": "assurance.complete"}) == (report.exit_code, rules(report))


CASES = {
    "included": lambda: judged(prove(SIX, 2)),
    "intent": lambda: judged(prove(SIX, 1), TRUSTED, SIX.notes[4]),
    "no key": lambda: judged(prove(SIX, 2), TrustedKeys()),
    "not included": lambda: judged(attrs.evolve(prove(SIX, 2), leaf=SIX.leaves[4])),
}


@pytest.mark.parametrize("case", list(CASES))
def test_text_for_people(case: str, snapshot: SnapshotAssertion) -> None:
    assert inclusion_text.render(CASES[case]()) == snapshot


@pytest.mark.parametrize("case", list(CASES))
def test_json_fits_its_schema_and_says_the_exit_code(case: str) -> None:
    report = CASES[case]()
    document = orjson.loads(inclusion_json.render(report))
    schemas.check(document, "inclusion.v1", None, ExitCode.CRASH, "report")
    assert int(report.exit_code) == document["exitCode"]
    assert {0: "yes", 45: "none"}.get(document["exitCode"], "no") == document["verdict"]


def test_the_origin_is_read_before_anything_is_trusted() -> None:
    assert ORIGIN == origin_of(format_proof(prove(SIX, 0)))
