"""One entry leaves its ledger in a file, and whoever has the file and a key can check it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from govrun.home import load_trust
from govrun.ledger.proof import parse_proof
from govrun.signing.keys import format_vkey
from tests.e2e.place import Place


@pytest.fixture
def ran(place: Place) -> Place:
    """A ledger of a genesis and two invocations, published too."""
    place.call(argv=("/bin/echo", "hello"))
    place.call(argv=("/bin/true",))
    assert 0 == place.go("ledger", "publish", "public").code
    return place


def keys(place: Place) -> tuple[str, ...]:
    [trust] = (place.root / "config" / "govrun" / "trust").glob("*.toml")
    found = load_trust(trust)
    return tuple(word for key in (found.log, *found.receipt) for word in ("--key", format_vkey(key)))


def forms(place: Place) -> tuple[str, ...]:
    return str(place.ledger), str(place.home), str(place.work / "public")


def test_every_entry_is_proved_alike_from_every_form_of_the_ledger(ran: Place) -> None:
    for index in range(ran.size):
        proofs = {ran.go("ledger", "prove", str(index), "--ledger", form).out for form in forms(ran)}
        assert 1 == len(proofs)
        (ran.work / "proof").write_bytes(proofs.pop())
        done = ran.go("verify", "proof", "--json")
        assert (0, "included", index) == (done.code, done.json["inclusion"], done.json["entry"]["index"])


def test_a_proof_is_checked_where_there_is_no_ledger(ran: Place) -> None:
    done = ran.go("ledger", "prove", "2", "--out", "proof")
    assert (0, b"") == (done.code, done.out)
    assert "proof of entry 2" in done.err
    elsewhere = ran.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "proof").write_bytes((ran.work / "proof").read_bytes())
    env = {"XDG_CONFIG_HOME": str(elsewhere), "XDG_STATE_HOME": str(elsewhere)}
    verified = ran.go("verify", "proof", *keys(ran), cwd=elsewhere, env=env)
    assert (0, "") == (verified.code, verified.err)
    for said in (b"included at index 2 of the log", b"assurance   keyed", b"did not fork", b"verdict     yes"):
        assert said in verified.out
    none = ran.go("verify", "proof", cwd=elsewhere, env=env)
    assert (45, True) == (none.code, b"verdict     none (45 could-not-check)" in none.out)
    assert ["proof"] == [path.name for path in elsewhere.iterdir()]


def test_a_proof_under_another_key_or_of_another_origin_is_refused(ran: Place) -> None:
    assert 0 == ran.go("ledger", "prove", "2", "--out", "proof").code
    other = Place(ran.root / "other")
    for directory in ("work", "user", "config", "state"):
        (other.root / directory).mkdir(parents=True, mode=0o700)
    assert 0 == other.go("init", "--origin", ran.verify().origin).code
    proof = str(ran.work / "proof")
    untrusted = other.go("verify", proof, "--json")
    assert (41, "notIncluded") == (untrusted.code, untrusted.json["inclusion"])
    third = Place(ran.root / "third")
    for directory in ("work", "user", "config", "state"):
        (third.root / directory).mkdir(parents=True, mode=0o700)
    assert 0 == third.go("init", "--origin", "example.com/third").code
    [trust] = (third.root / "config" / "govrun" / "trust").glob("*.toml")
    assert 41 == third.go("verify", proof, "--trust", str(trust)).code
    assert 45 == third.go("verify", proof).code
    assert (45, True) == ((done := third.go("verify", proof, *keys(third))).code, "[trust.name]" in done.err)


def test_a_changed_proof_is_refused(ran: Place) -> None:
    data = ran.go("ledger", "prove", "2").out
    file = ran.work / "proof"
    for at in (3, 21, 30, 400, data.index(b"index ") + 6, len(data) // 2, len(data) - 300, len(data) - 3):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert ran.go("verify", "proof").code in (40, 41, 45), at
    for other in (data[:-1], data[: len(data) // 2], data + b"x", data[:23], b"c2sp.org/tlog-proof@v2" + data[22:]):
        file.write_bytes(other)
        done = ran.go("verify", "proof", "--json")
        assert (40, 40) == (done.code, done.json["error"]["code"])
    file.write_bytes(data + bytes(300_000))
    assert (40, True) == ((done := ran.go("verify", "proof")).code, "too large" in done.err)


def test_a_proof_of_a_ledger_that_was_cut_is_under_its_older_checkpoint(ran: Place) -> None:
    kept = ran.go("ledger", "checkpoint").out
    (ran.work / "kept").write_bytes(kept)
    ran.call(argv=("/bin/true",))
    assert 0 == ran.go("ledger", "prove", "2", "--ledger", "public", "--out", "old").code
    assert kept == parse_proof((ran.work / "old").read_bytes()).checkpoint
    same = ran.go("verify", "old", "--checkpoint", "kept", "--require", "pinned", "--json")
    assert (0, "pinned") == (same.code, same.json["assurance"])
    (ran.work / "newer").write_bytes(ran.go("ledger", "checkpoint").out)
    newer = ran.go("verify", "old", "--checkpoint", "newer")
    assert (0, True) == (newer.code, b"not compared: it has 7 entries and this one 5" in newer.out)
    assert 43 == ran.go("verify", "old", "--checkpoint", "newer", "--require", "pinned").code
    assert 43 == ran.go("verify", "old", "--require", "complete").code
    missing = ran.go("verify", "old", "--checkpoint", "missing")
    assert (45, True) == (missing.code, "[checkpoint.missing]" in missing.err)


def test_a_proof_is_never_written_over_a_file_or_from_what_contradicts_itself(ran: Place) -> None:
    (ran.work / "there").write_text("mine")
    done = ran.go("ledger", "prove", "0", "--out", "there")
    assert (2, "mine", True) == (done.code, (ran.work / "there").read_text(), "[prove.exists]" in done.err)
    assert (2, True) == ((done := ran.go("ledger", "prove", "0", "--out", "no/such")).code, "[prove.out]" in done.err)
    none = ran.go("ledger", "prove", "5", "--out", "new")
    assert (45, True) == (none.code, "expected: 0 to 4" in none.err)
    [tile] = (ran.work / "public" / "tile" / "0").rglob("5")
    tile.write_bytes(bytes([tile.read_bytes()[0] ^ 1]) + tile.read_bytes()[1:])
    broken = ran.go("ledger", "prove", "1", "--ledger", "public", "--out", "new")
    assert (40, False) == (broken.code, (ran.work / "new").exists())


def test_what_is_asked_of_a_ledger_only_is_not_asked_of_a_proof(ran: Place) -> None:
    assert 0 == ran.go("ledger", "prove", "0", "--out", "proof").code
    for words in (("--at", "2026-11-22T12:00:00.000Z"), ("--home", ".govrun")):
        assert (2, True) == ((done := ran.go("verify", "proof", *words)).code, "go with a ledger" in done.err)


def test_what_is_no_regular_file_is_not_waited_for(ran: Place) -> None:
    os.mkfifo(ran.work / "pipe")
    assert ran.go("verify", "pipe").code in (40, 45)


def test_reading_a_proof_leaves_nothing_beside_it(ran: Place) -> None:
    alone = ran.root / "alone"
    alone.mkdir()
    (alone / "proof").write_bytes(ran.go("ledger", "prove", "1").out)
    assert 0 == ran.go("verify", str(Path(alone, "proof"))).code
    assert ["proof"] == [path.name for path in alone.iterdir()]
