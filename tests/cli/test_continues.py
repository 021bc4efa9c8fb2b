"""A restored backup never goes on under its origin: a new ledger continues it, and the old one is closed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from govrun.home import load_trust
from govrun.ledger.checkpoint import Checkpoint, sign_checkpoint
from govrun.signing.keys import generate_signer, load_signer
from govrun.world import real_world
from tests.e2e.place import Done, Place


def refused(done: Done, code: int, rule: str) -> str:
    assert (code, True) == (done.code, f"[{rule}]" in done.err), done.err
    return done.err


@pytest.fixture
def restored(place: Place) -> Place:
    """A home of three entries whose ledger had five: the backup is at `.govrun`, its checkpoint in `last.note`."""
    place.is_whole = False  # what lies there in the end is another ledger
    place.call(argv=("/bin/true",))
    shutil.copytree(place.home, place.root / "backup")
    place.call(argv=("/bin/true",))
    shutil.rmtree(place.home)
    shutil.copytree(place.root / "backup", place.home)
    (place.root / "last.note").write_bytes(place.go("ledger", "checkpoint").out)
    return place


def note(place: Place) -> str:
    return str(place.root / "last.note")


def aside(place: Place) -> Path:
    place.home.rename(place.root / "old")
    return place.root / "old"


def test_a_restored_backup_is_refused_and_the_refusal_names_the_way_on(restored: Place) -> None:
    said = refused(restored.run("--", *restored.mark), 16, "ledger.rolledBack")
    assert "govrun init --continues CHECKPOINT" in said
    assert 0 == restored.runs


def test_a_new_ledger_continues_the_restored_one_and_closes_it(restored: Place) -> None:
    origin = restored.verify().origin
    old = aside(restored)
    done = restored.go("init", "--allow", "process", "--continues", note(restored), "--lost", "2", "--json")
    assert 0 == done.code, done.err
    claim = restored.entries()[0].predicate["continues"]
    assert {"origin": origin, "size": 3, "loss": "known", "lostEntries": 2}.items() <= claim.items()
    assert claim == done.json["continues"]
    assert 0 == restored.run("--", *restored.mark).code
    verified = restored.go("verify")
    assert 0 == verified.code
    said = f"continues {origin} after its 3 entries, root {claim['rootHash'][:16]}...; lost behind them"
    assert f"{said}, as its genesis claims: 2" in verified.words
    assert '"lostEntries": 2' in restored.go("ledger", "show", "0").out.decode()
    # The old one: no writer goes on with it, and whoever wants to verify it can.
    said = refused(restored.run("--", *restored.mark, env={"GOVRUN_HOME": str(old)}), 16, "ledger.continued")
    assert done.json["origin"] in said
    assert 1 == restored.runs
    verified = restored.go("verify", str(old / "ledger.sqlite"))
    assert (0, True) == (verified.code, b"assurance   pinned" in verified.out), verified.out
    trust = {t.origin: t for t in map(load_trust, (restored.root / "config" / "govrun" / "trust").glob("*.toml"))}
    assert (restored.root / "last.note").read_text() == trust[origin].checkpoint
    assert (None, restored.home) == (trust[origin].home, trust[done.json["origin"]].home)


def test_the_loss_may_be_unknown_and_what_was_seen_is_told(restored: Place) -> None:
    aside(restored)
    done = restored.go("init", "--continues", note(restored))
    assert (0, True) == (done.code, "at least 2 are lost: a head of 5 entries was seen here" in done.err)
    claim = restored.entries()[0].predicate["continues"]
    assert ("unknown", None) == (claim["loss"], claim["lostEntries"])
    assert "how many is not known" in restored.go("verify").words


def test_a_ledger_that_lost_nothing_may_end_too(place: Place) -> None:
    """A disclosed log key: nothing is lost, and the log ends all the same."""
    place.is_whole = False
    place.call(argv=("/bin/true",))
    (place.root / "last.note").write_bytes(place.go("ledger", "checkpoint").out)
    old = aside(place)
    assert 0 == place.go("init", "--allow", "process", "--continues", note(place), "--lost", "none").code
    claim = place.entries()[0].predicate["continues"]
    assert ("none", 0) == (claim["loss"], claim["lostEntries"])
    refused(place.run("--", *place.mark, env={"GOVRUN_HOME": str(old)}), 16, "ledger.continued")


@pytest.mark.parametrize(
    ("words", "code", "rule"),
    [
        (("--lost", "none"), 2, "continues.loss"),
        (("--lost", "1"), 2, "continues.loss"),
        (("--lost", "-1"), 2, "continues.lost"),
        (("--lost", "some"), 2, "continues.lost"),
        (("--origin", "{origin}"), 2, "continues.origin"),
        (("--continues-key", "nonsense"), 45, "vkey.form"),
    ],
)
def test_a_succession_that_cannot_be_makes_nothing(
    restored: Place, words: tuple[str, ...], code: int, rule: str
) -> None:
    origin = restored.verify().origin
    aside(restored)
    before = {p: p.read_bytes() for p in (restored.root / "state").rglob("*") if p.is_file()}
    said = [word.format(origin=origin) for word in words]
    assert "nothing was made" in refused(restored.go("init", "--continues", note(restored), *said), code, rule)
    assert not restored.home.exists()
    assert before == {p: p.read_bytes() for p in (restored.root / "state").rglob("*") if p.is_file()}


def test_a_checkpoint_that_the_old_log_key_did_not_sign_is_refused(restored: Place) -> None:
    origin = restored.verify().origin
    root = restored.root
    last = (root / "last.note").read_bytes()
    log = load_signer(restored.home / "keys" / "log.key")
    aside(restored)
    forged = sign_checkpoint(Checkpoint(origin, 9, bytes(32)), generate_signer(origin, real_world()))
    (root / "last.note").write_bytes(forged)
    assert 41 == restored.go("init", "--continues", note(restored)).code
    (root / "last.note").write_bytes(last[:-9] + b"AAAAAAA=\n")
    assert 41 == restored.go("init", "--continues", note(restored)).code
    (root / "last.note").write_bytes(b"no note")
    assert 40 == restored.go("init", "--continues", note(restored)).code
    (root / "last.note").unlink()
    refused(restored.go("init", "--continues", note(restored)), 45, "checkpoint.missing")
    # The real key, over another history than the one that was seen at that size.
    (root / "last.note").write_bytes(sign_checkpoint(Checkpoint(origin, 5, bytes(32)), log))
    refused(restored.go("init", "--continues", note(restored)), 16, "continues.fork")
    assert not restored.home.exists()


def test_on_another_machine_the_old_log_key_is_brought_along(restored: Place) -> None:
    from govrun.signing.keys import format_vkey

    vkey = format_vkey(load_signer(restored.home / "keys" / "log.key").verifier)
    old = aside(restored)
    restored.extra.update({"XDG_CONFIG_HOME": str(restored.root / "c2"), "XDG_STATE_HOME": str(restored.root / "s2")})
    said = refused(restored.go("init", "--continues", note(restored)), 45, "continues.key")
    assert "--continues-key VKEY" in said
    assert 0 == restored.go("init", "--continues", note(restored), "--continues-key", vkey).code
    # No head of the old one was ever seen here; it is closed here all the same.
    refused(restored.run("--", *restored.mark, env={"GOVRUN_HOME": str(old)}), 16, "ledger.continued")


def test_a_ledger_is_continued_once(restored: Place) -> None:
    aside(restored)
    assert 0 == restored.go("init", "--continues", note(restored)).code
    refused(restored.go("init", "--home", "again", "--continues", note(restored)), 16, "ledger.continued")
    assert not (restored.work / "again").exists()


def test_options_about_a_ledger_that_ended_need_one(bare: Place) -> None:
    for words in (("--lost", "none"), ("--continues-key", "x")):
        assert 2 == bare.go("init", *words).code
    assert not bare.home.exists()
