"""A verification that resumes from a bookmark says what a full one says, of all that lies above the bookmark."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from govrun.audit.bookmark import (
    CLAIM_BYTES,
    Bookmark,
    claim_of,
    format_bookmark,
    holds_claim,
    merge_claims,
    parse_bookmark,
)
from govrun.audit.report import Report
from govrun.audit.trust import TrustedKeys
from govrun.audit.verify import Question, audit_ledger, verify_ledger
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve
from govrun.ledger.merkle import leaf_hash
from govrun.ledger.read import Reader, open_ledger
from govrun.policy import parse_policy
from tests.audit import ledgers
from tests.audit.ledgers import LOG, RECEIPT, ROOT, SECOND, STRANGER, TRUSTED, InMemory, Ledger

ANYTHING = b"format = 1\n[backends.bitnet]\n[tasks.route]\nbackend = 'bitnet'\n"
NOTHING_OF_IT = b"format = 1\n[backends.process]\n[tasks.route]\nbackend = 'process'\n"


def cut(ledger: Ledger, size: int) -> Ledger:
    """The ledger as it was when it had so many entries."""
    shorter = Ledger()
    for leaf in ledger.leaves[:size]:
        shorter.add_leaf(leaf, checkpoint=False)
    shorter.notes = {at: note for at, note in ledger.notes.items() if at <= size}
    return shorter


def bookmark_of(ledger: Ledger, trusted: TrustedKeys = TRUSTED, policy: bytes | None = None) -> Bookmark | None:
    """What a full verification of the ledger leaves, read back from its bytes; None if the verdict is no."""
    question = Question(keep=True)
    if policy is None:
        report = verify_ledger(InMemory(ledger), trusted, question)
    else:
        report = audit_ledger(InMemory(ledger), trusted, parse_policy(policy, "policy"), question)
    assert (report.bookmark is not None) == (report.exit_code is ExitCode.SUCCESS)
    return None if report.bookmark is None else parse_bookmark(format_bookmark(report.bookmark))


def resumed(reader: Reader, bookmark: Bookmark | None, trusted: TrustedKeys = TRUSTED) -> Report:
    return verify_ledger(reader, trusted, Question(bookmark=bookmark, keep=True))


def same_verdict(reader: Reader, bookmark: Bookmark) -> Report:
    """The resumed report, held against that of a full verification with the same checkpoint pinned."""
    now = resumed(reader, bookmark)
    full = verify_ledger(reader, TRUSTED, Question(pinned=bookmark.checkpoint, keep=True))
    assert verdict(now) == verdict(full)
    assert findings(now, now.checked_from) == findings(full, now.checked_from)
    assert now.bookmark == full.bookmark
    return now


def verdict(report: Report) -> tuple[object, ...]:
    return (
        report.exit_code,
        report.integrity,
        report.assurance,
        report.pinned_size,
        report.size,
        report.root,
        report.counts,
        report.policy,
        sorted(check.id for check in report.checks if check.status in ("failed", "warned")),
    )


def findings(report: Report, start: int) -> list[tuple[object, ...]]:
    """Every finding with its place, what was found and expected; what was only told of entries before start is not."""
    told = ("intent.policy", "clock.backwards")
    found = [
        (f.check, f.rule, f.level, f.index, f.found, f.expected)
        for f in report.findings
        if f.rule not in told or (f.index is not None and f.index >= start)
    ]
    return sorted(found, key=repr)


def errors(report: Report) -> list[tuple[str, int | None]]:
    return [(f.rule, f.index) for f in report.findings if f.level == "error"]


# Any ledger, cut anywhere


@st.composite
def stories(draw: st.DrawFn) -> Ledger:
    """A ledger whose writer holds every key and may write anything that has the form of a receipt."""
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    intents: list[tuple[int, int]] = []
    keys = [RECEIPT]
    for number in range(1, draw(st.integers(4, 14))):
        second = draw(st.integers(1, 40)) if draw(st.integers(0, 9)) == 0 else number
        signer = draw(st.sampled_from(keys))
        match draw(st.sampled_from("iiiiioooooggdplkr")):
            case "i":
                request = draw(st.sampled_from([None, None, "job-1", "job-2", f"job-{number}"]))
                policy = draw(st.sampled_from([{}, {}, {}, {"policy": {"sha256": "9" * 64}}]))
                twin = draw(st.integers(0, 9)) == 0 and intents
                invocation = draw(st.sampled_from(intents))[0] if twin else number
                index = ledger.add(ledgers.intent(invocation, second, request, **policy), signer)
                intents.append((invocation, index))
            case "o" | "g" as kind if intents:
                invocation, index = draw(st.sampled_from(intents))
                about = draw(st.sampled_from([index, index, index, index, index - 1]))
                end = (
                    ledgers.outcome(invocation, about, ledger.hash_at(about), second)
                    if kind == "o"
                    else ledgers.gap(about, ledger.hash_at(about), second)
                )
                ledger.add(end, signer)
            case "p":
                ledger.add(ledgers.policy_adopted(draw(st.sampled_from(["9" * 64, "b" * 64])), second), signer)
            case "l":
                target = draw(st.integers(0, len(ledger.leaves) - 1))
                claimed = draw(st.sampled_from([ledger.hash_at(target), ledger.hash_at(target), "0" * 64]))
                link = {"relation": "verdictOn", "index": target, "leafHash": claimed}
                intents.append((number, ledger.add(ledgers.intent(number, second, links=[link]), signer)))
            case "k":
                ledger.add(ledgers.key_added(SECOND, second=second), SECOND, ROOT)
                keys = [RECEIPT, SECOND]
            case "r":
                suspect = draw(st.sampled_from([None, 1, len(ledger.leaves)]))
                ledger.add(ledgers.key_revoked(SECOND, suspect, second=second), ROOT)
            case _:
                ledger.add(ledgers.denied(second), signer)
    return ledger


@settings(max_examples=120, deadline=None)
@given(stories(), st.data())
def test_any_ledger_gives_the_same_verdict_resumed_anywhere(ledger: Ledger, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(ledger.leaves)))
    bookmark = bookmark_of(cut(ledger, size))
    if bookmark is None:
        return
    report = same_verdict(InMemory(ledger), bookmark)
    assert (report.checked_from, report.unused) == (size, None)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_above_the_bookmark_is_found(data: st.DataObject) -> None:
    ledger = ledgers.many(9)
    size = data.draw(st.integers(1, 7))
    bookmark = bookmark_of(cut(ledger, size))
    assert bookmark is not None
    reader = InMemory(ledger)
    index = data.draw(st.integers(size, 8))
    match data.draw(st.sampled_from(["leaf", "node", "note", "swap", "repeat"])):
        case "leaf":
            leaf = bytearray(ledger.leaves[index])
            leaf[data.draw(st.integers(0, len(leaf) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            reader.all_leaves[index] = bytes(leaf)
        case "node":
            position = data.draw(st.integers(2 * size - size.bit_count(), len(reader.nodes) - 1))
            reader.nodes[position] = bytes(32)
        case "note":
            reader.notes[index + 1] = reader.notes[index]
        case "swap":
            other = 8 if index < 8 else size
            reader.all_leaves[index], reader.all_leaves[other] = reader.all_leaves[other], reader.all_leaves[index]
        case "repeat":
            reader.all_leaves[index] = reader.all_leaves[index - 1]
    report = same_verdict(reader, bookmark)
    assert (report.integrity, report.bookmark) == ("broken", None)


# Other histories


def test_a_ledger_cut_below_the_bookmark_has_diverged() -> None:
    bookmark = bookmark_of(ledgers.many(9))
    assert bookmark is not None
    report = same_verdict(InMemory(cut(ledgers.many(9), 5)), bookmark)
    assert (report.exit_code, report.checked_from) == (ExitCode.HISTORY_DIVERGED, 0)
    assert [f.rule for f in report.findings] == ["pin.longer"]


def test_a_fork_below_the_bookmark_has_diverged() -> None:
    bookmark = bookmark_of(ledgers.many(9))
    assert bookmark is not None
    fork = cut(ledgers.many(9), 5)
    fork.add(ledgers.denied(50))
    for number in range(20, 24):
        fork.invoke(number, number)
    report = same_verdict(InMemory(fork), bookmark)
    assert (report.exit_code, report.checked_from) == (ExitCode.HISTORY_DIVERGED, 0)
    assert errors(report) == [("pin.root", 8)]


def test_an_emptied_ledger_has_diverged_or_shows_nothing() -> None:
    bookmark = bookmark_of(ledgers.six())
    report = resumed(InMemory(Ledger()), bookmark)
    assert report.exit_code is ExitCode.HISTORY_DIVERGED
    assert report.bookmark is None


def test_nothing_new_is_a_yes_too() -> None:
    bookmark = bookmark_of(ledgers.six())
    assert bookmark is not None
    report = same_verdict(InMemory(ledgers.six()), bookmark)
    assert (report.exit_code, report.checked_from, report.pinned_size) == (ExitCode.SUCCESS, 6, 6)


def test_what_was_changed_below_the_bookmark_is_not_seen_and_the_report_says_so() -> None:
    ledger = ledgers.many(9)
    bookmark = bookmark_of(cut(ledger, 5))
    reader = InMemory(ledger)
    reader.all_leaves[2] = reader.all_leaves[2][:-1] + b"?"
    report = resumed(reader, bookmark)
    assert (report.exit_code, report.checked_from) == (ExitCode.SUCCESS, 5)
    assert any("before 5" in line and "not read again" in line for line in report.not_shown)
    everything = Question(bookmark=bookmark, read_all=True)
    full = verify_ledger(reader, TRUSTED, everything)
    assert (full.exit_code, full.checked_from) == (ExitCode.LEDGER_INCONSISTENT, 0)


def test_an_intent_that_waits_is_read_again_and_must_be_the_one_that_was_kept() -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    index = ledger.add(ledgers.intent(1))
    bookmark = bookmark_of(copy.deepcopy(ledger))
    ledger.add(ledgers.outcome(1, index, ledger.hash_at(index)))
    reader = InMemory(ledger)
    reader.all_leaves[index] = ledger.leaves[0]
    report = resumed(reader, bookmark)
    assert report.exit_code is ExitCode.LEDGER_INCONSISTENT
    assert [(f.rule, f.index) for f in report.findings] == [("tree.leaf", index)]


def test_an_outcome_is_held_against_the_terms_of_an_intent_below_the_bookmark() -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    index = ledger.add(ledgers.intent(1, okExit=[0]))
    bookmark = bookmark_of(copy.deepcopy(ledger))
    assert bookmark is not None
    ledger.add(ledgers.outcome(1, index, ledger.hash_at(index), exit={"code": 3, "signal": None}))
    report = same_verdict(InMemory(ledger), bookmark)
    assert [f.rule for f in report.findings] == ["outcome.okExit"]


def test_a_request_id_that_was_claimed_below_the_bookmark_stays_claimed() -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    for number in range(1, 20):
        ledger.invoke(number, number, request_id=f"job-{number}")
    bookmark = bookmark_of(copy.deepcopy(ledger))
    assert bookmark is not None
    again = len(ledger.leaves)
    ledger.invoke(30, 30, request_id="job-7")
    report = same_verdict(InMemory(ledger), bookmark)
    assert [(f.rule, f.index) for f in report.findings] == [("intent.requestId", again)]


def test_a_stored_hash_below_the_bookmark_proves_no_link() -> None:
    ledger = ledgers.many(5)
    bookmark = bookmark_of(copy.deepcopy(ledger))
    link = {"relation": "verdictOn", "index": 2, "leafHash": "0" * 64}
    index = ledger.add(ledgers.intent(9, 9, links=[link]))
    reader = InMemory(ledger)
    # Position 3 of the list is the hash of entry 2.
    assert reader.nodes[3] == leaf_hash(ledger.leaves[2])
    reader.nodes[3] = bytes(32)
    report = resumed(reader, bookmark)
    assert ("link.target", index) in {(f.rule, f.index) for f in report.findings}


# Every reader


@pytest.mark.parametrize("form", ["sqlite", "published"])
def test_every_form_can_be_resumed(form: str, tmp_path: Path) -> None:
    write = ledgers.write_sqlite if form == "sqlite" else ledgers.write_published
    ledger = ledgers.many(301)
    before = open_ledger(write(cut(ledger, 260), tmp_path / "before"))
    bookmark = resumed(before, None).bookmark
    assert bookmark is not None
    report = resumed(open_ledger(write(ledger, tmp_path / "after")), bookmark)
    assert (report.exit_code, report.checked_from, report.size) == (ExitCode.SUCCESS, 260, 301)


# When a bookmark does not answer the question


def fit(report: Report) -> tuple[ExitCode, int, str | None]:
    return (report.exit_code, report.checked_from, report.unused)


def test_a_bookmark_made_with_other_keys_makes_every_entry_be_read() -> None:
    bookmark = bookmark_of(ledgers.six(), trusted=TrustedKeys(log=(LOG.verifier,)))
    assert bookmark is not None
    assert fit(resumed(InMemory(ledgers.six()), bookmark)) == (
        ExitCode.SUCCESS,
        0,
        "the bookmark was made with other trusted keys",
    )
    again = resumed(InMemory(ledgers.six()), bookmark, TrustedKeys(log=(LOG.verifier,)))
    assert fit(again) == (ExitCode.SUCCESS, 6, None)


def test_without_a_trusted_key_a_bookmark_vouches_for_nothing() -> None:
    report = verify_ledger(InMemory(ledgers.six()), None, Question(bookmark=bookmark_of(ledgers.six()), keep=True))
    assert (report.exit_code, report.checked_from, report.bookmark) == (ExitCode.COULD_NOT_CHECK, 0, None)


def test_a_bookmark_of_another_program_makes_every_entry_be_read() -> None:
    bookmark = bookmark_of(ledgers.six())
    assert bookmark is not None
    report = resumed(InMemory(ledgers.six()), evolve(bookmark, verifier="other 1.0"))
    assert fit(report) == (ExitCode.SUCCESS, 0, "the bookmark was made by other 1.0")


def test_a_bookmark_signed_by_a_stranger_is_refused() -> None:
    bookmark = bookmark_of(ledgers.six())
    assert bookmark is not None
    other = Ledger(log=STRANGER)
    for leaf in ledgers.six().leaves:
        other.add_leaf(leaf)
    report = resumed(InMemory(ledgers.six()), evolve(bookmark, checkpoint=other.notes[6]))
    assert (report.exit_code, report.checked_from) == (ExitCode.SIGNATURE_UNTRUSTED, 0)


def test_an_older_pinned_checkpoint_is_held_against_the_bookmark() -> None:
    ledger = ledgers.many(9)
    bookmark = bookmark_of(cut(ledger, 7))
    reader = InMemory(ledger)
    for pinned in (ledger.notes[3], ledger.notes[7], ledger.notes[8]):
        report = verify_ledger(reader, TRUSTED, Question(pinned=pinned, bookmark=bookmark))
        assert (report.exit_code, report.checked_from) == (ExitCode.SUCCESS, 7)
    fork = cut(ledger, 2)
    fork.add(ledgers.denied(50))
    for pinned in fork.notes[3], ledgers.many(11).notes[11]:
        report = verify_ledger(reader, TRUSTED, Question(pinned=pinned, bookmark=bookmark))
        assert report.exit_code is ExitCode.HISTORY_DIVERGED


# Audits


def audited(ledger: Ledger, bookmark: Bookmark | None, policy: bytes, known: Sequence[bytes] = ()) -> Report:
    policies = tuple(parse_policy(data, "known") for data in known)
    question = Question(bookmark=bookmark, keep=True)
    return audit_ledger(InMemory(ledger), TRUSTED, parse_policy(policy, "policy"), question, policies)


def test_an_audit_resumes_with_the_policy_that_it_judged_by() -> None:
    ledger = ledgers.many(9)
    bookmark = bookmark_of(cut(ledger, 5), policy=ANYTHING)
    report = audited(ledger, bookmark, ANYTHING)
    full = audited(ledger, None, ANYTHING)
    assert fit(report) == (ExitCode.SUCCESS, 5, None)
    assert (report.policy, report.bookmark) == (full.policy, full.bookmark)
    assert report.policy is not None
    assert (report.policy.judged, report.policy.unavailable) == (4, 4)


def test_an_audit_by_another_policy_judges_every_entry() -> None:
    ledger = ledgers.many(9)
    bookmark = bookmark_of(cut(ledger, 5), policy=ANYTHING)
    report = audited(ledger, bookmark, NOTHING_OF_IT)
    assert fit(report) == (ExitCode.POLICY_VIOLATED, 0, "the bookmark was not made with this policy")
    assert report.bookmark is None
    assert audited(ledger, bookmark_of(cut(ledger, 5)), ANYTHING).checked_from == 0


def test_a_policy_that_has_come_to_hand_since_judges_every_entry() -> None:
    named = parse_policy(NOTHING_OF_IT, "policy").digest
    ledger = Ledger()
    ledger.add(ledgers.genesis(policy={"sha256": named}))
    ledger.invoke(1, 1, policy={"sha256": named})
    bookmark = audited(ledger, None, ANYTHING).bookmark
    assert bookmark is not None
    assert bookmark.judged_by is not None
    assert bookmark.judged_by.unavailable == ((named, 1),)
    assert audited(ledger, bookmark, ANYTHING).checked_from == 3
    report = audited(ledger, bookmark, ANYTHING, [NOTHING_OF_IT])
    assert (report.exit_code, report.checked_from) == (ExitCode.POLICY_VIOLATED, 0)


# The file


def test_a_bookmark_with_any_byte_changed_or_cut_is_refused() -> None:
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    ledger.invoke(1, 1, request_id="job-1")
    ledger.add(ledgers.intent(2, 2, "job-2"))
    bookmark = bookmark_of(ledger)
    assert bookmark is not None
    data = format_bookmark(bookmark)
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1 << (at % 8)]) + data[at + 1 :]
        assert refused(flipped) == refused(data[:at]) == (ExitCode.COULD_NOT_CHECK, "bookmark.form"), at
    assert refused(data + bytes(CLAIM_BYTES)) == (ExitCode.COULD_NOT_CHECK, "bookmark.form")


def refused(data: bytes) -> tuple[ExitCode, str]:
    with pytest.raises(GovrunError) as refusal:
        parse_bookmark(data)
    return refusal.value.code, refusal.value.rule


@given(st.lists(st.text(max_size=8), unique=True), st.lists(st.text(max_size=8), unique=True))
def test_claims_are_kept_in_order_and_found_again(old: list[str], new: list[str]) -> None:
    claims = merge_claims(b"", {claim_of(one) for one in old})
    merged = merge_claims(claims, {claim_of(one) for one in new if one not in old})
    assert merged == b"".join(sorted({claim_of(one) for one in [*old, *new]}))
    assert all(holds_claim(merged, claim_of(one)) for one in [*old, *new])
    assert not holds_claim(merged, claim_of("something else"))


def test_what_a_bookmark_holds_grows_with_what_waits_and_what_was_claimed_alone() -> None:
    sizes = []
    for entries in (3, 41):
        bookmark = bookmark_of(ledgers.many(entries))
        assert bookmark is not None
        sizes.append(len(format_bookmark(bookmark)))
    assert sizes[1] - sizes[0] < 20
