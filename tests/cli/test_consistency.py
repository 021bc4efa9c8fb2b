"""Two checkpoints of one ledger: the newer continues the older, or the answer is no."""

from __future__ import annotations

from pathlib import Path

import pytest

from govrun.ledger.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from govrun.ledger.merkle import EMPTY_ROOT, ConsistencyProof, verify_consistency
from govrun.signing.keys import format_vkey
from govrun.signing.note import parse_note
from tests.audit import ledgers
from tests.audit.ledgers import LOG, ORIGIN, RECEIPT, STRANGER, Ledger
from tests.e2e.place import Done, Place

KEY = ("--key", format_vkey(LOG.verifier))


@pytest.fixture
def six(bare: Place) -> Place:
    """Six entries as a SQLite file and as published files, and every checkpoint as a file of its size's name."""
    bare.is_whole = False
    ledger = ledgers.six()
    ledgers.write_sqlite(ledger, bare.work / "store")
    ledgers.write_published(ledger, bare.work / "web")
    for size, note in ledger.notes.items():
        (bare.work / str(size)).write_bytes(note)
    return bare


def ask(place: Place, *words: str, ledger: str = "store/ledger.sqlite", key: tuple[str, ...] = KEY) -> Done:
    return place.go("ledger", "consistency", *words, "--ledger", ledger, *key)


def root(file: Path) -> bytes:
    return parse_checkpoint(parse_note(file.read_bytes()).text).root


@pytest.mark.parametrize("form", ["store/ledger.sqlite", "store", "web/published"])
def test_every_older_checkpoint_is_continued_in_every_form(six: Place, form: str) -> None:
    for old, new in ((1, 6), (3, 6), (4, 5), (6, 6)):
        done = ask(six, str(old), str(new), "--json", ledger=form)
        assert (0, "yes", ORIGIN) == (done.code, done.json["verdict"], done.json["origin"]), done.err
        proof = ConsistencyProof(
            done.json["old"]["size"], done.json["new"]["size"], tuple(map(bytes.fromhex, done.json["hashes"]))
        )
        assert (old, new) == (proof.old_size, proof.new_size)
        verify_consistency(proof, root(six.work / str(old)), root(six.work / str(new)))


def test_the_newest_checkpoint_is_the_default(six: Place) -> None:
    done = ask(six, "3")
    assert (0, "") == (done.code, done.err)
    assert done.out.decode().startswith(f"yes: the 6 entries of {ORIGIN} begin with the 3 of the older checkpoint")


def test_the_operator_needs_no_options(place: Place) -> None:
    (place.work / "old").write_bytes(place.go("ledger", "checkpoint").out)
    place.call(argv=("/bin/true",))
    assert 0 == place.go("ledger", "consistency", "old").code
    assert 0 == place.go("ledger", "consistency", "old", "--ledger", str(place.ledger)).code
    none = place.go("ledger", "consistency", "old", "--ledger", str(place.ledger), env={"XDG_CONFIG_HOME": "/proc/x"})
    assert 45 == none.code


def fork(place: Place) -> None:
    """Another history under the same key: its checkpoint of four entries, as a file `fork`."""
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    ledger.invoke(7, 1)
    ledger.add(ledgers.denied(9))
    (place.work / "fork").write_bytes(ledger.notes[4])


def test_a_forked_or_cut_history_is_told(six: Place) -> None:
    fork(six)
    for words in (("fork",), ("fork", "6"), ("fork", "4"), ("3", "fork"), ("6", "4")):
        done = ask(six, *words, "--json")
        assert (44, "history-diverged") == (done.code, done.json["error"]["name"]), words
    cut = ledgers.six()
    short = Ledger(leaves=cut.leaves[:3], notes={3: cut.notes[3]}, nodes=cut.nodes[:4])
    ledgers.write_sqlite(short, six.work / "cut")
    assert (44, True) == ((done := ask(six, "5", ledger="cut")).code, "[consistency.size]" in done.err)
    assert (45, True) == ((done := ask(six, "3", "6", ledger="cut")).code, "[consistency.ledger]" in done.err)


def test_a_changed_hash_of_the_ledger_never_makes_a_proof(six: Place) -> None:
    [tile] = (six.work / "web" / "published" / "tile" / "0").rglob("6")
    data = tile.read_bytes()
    for at in (32 * 2, 32 * 3 + 5, 32 * 5):
        tile.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert ask(six, "3", ledger="web/published").code in (40, 44), at


def test_another_key_and_no_key_give_no_yes(six: Place) -> None:
    other = ("--key", format_vkey(STRANGER.verifier))
    assert 41 == ask(six, "3", key=other).code
    for key in ((), ("--key", format_vkey(RECEIPT.verifier))):
        assert (45, True) == ((done := ask(six, "3", key=key)).code, "[assurance.unauthenticated]" in done.err)
    (six.work / "stranger").write_bytes(sign_checkpoint(Checkpoint(ORIGIN, 3, root(six.work / "3")), STRANGER))
    assert [41, 41] == [ask(six, *words).code for words in (("stranger",), ("3", "stranger"))]
    assert (2, True) == ((done := ask(six, "3", "--trust", "x")).code, "exclude each other" in done.err)


def test_a_checkpoint_that_is_none_or_over_nothing_is_refused(six: Place) -> None:
    (six.work / "empty").write_bytes(sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), LOG))
    assert (45, True) == ((done := ask(six, "empty")).code, "[consistency.empty]" in done.err)
    assert (45, True) == ((done := ask(six, "missing")).code, "[checkpoint.missing]" in done.err)
    data = (six.work / "3").read_bytes()
    for at in range(0, len(data), 11):
        (six.work / "bad").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert ask(six, "bad").code in (40, 41), at


def test_a_ledger_without_a_checkpoint_has_nothing_to_compare(six: Place) -> None:
    ledgers.write_sqlite(Ledger(), six.work / "none")
    assert (45, True) == ((done := ask(six, "3", ledger="none")).code, "[checkpoint.none]" in done.err)
