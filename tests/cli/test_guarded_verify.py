"""`verify` asks the rollback guard what this user saw last, and says what the answer is worth."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.place import Done, Place


def rules(done: Done) -> set[tuple[str, str]]:
    return {(f["rule"], f["level"]) for check in done.json["checks"] for f in check["findings"]}


def guard(place: Place) -> Path:
    (file,) = (place.root / "state" / "govrun" / "heads").iterdir()
    return file


def roll_back(place: Place) -> None:
    """Put an older copy of the home in its place."""
    place.call(argv=("/bin/true",))
    shutil.copytree(place.home, place.root / "backup")
    place.call(argv=("/bin/true",))
    shutil.rmtree(place.home)
    shutil.copytree(place.root / "backup", place.home)


def test_a_ledger_that_continues_what_was_seen_is_a_yes_and_not_pinned(place: Place) -> None:
    place.call(argv=("/bin/true",))
    done = place.go("verify", "--json")
    assert (0, "keyed", "notChecked") == (
        done.code,
        done.json["assurance"]["level"],
        done.json["assurance"]["truncation"],
    )
    assert any(line.startswith("guard: continues") for line in done.json["assurance"]["grounds"])
    assert 43 == place.go("verify", "--require", "pinned").code


def test_what_a_run_refuses_a_verification_refuses(place: Place) -> None:
    roll_back(place)
    for words in ((), (str(place.home),), (str(place.ledger),)):
        done = place.go("verify", "--json", *words)
        assert (44, "broken", {("guard.longer", "error")}) == (done.code, done.json["integrity"]["status"], rules(done))
    assert 16 == place.run("--", "/bin/true").code
    assert "the ledger ends before the head that was seen from here does" in place.go("verify").out.decode()
    shutil.rmtree(place.root / "state")
    assert 0 == place.go("verify").code


def test_a_fork_of_what_was_seen_has_diverged(place: Place) -> None:
    roll_back(place)
    remembered = guard(place).read_bytes()
    guard(place).unlink()
    place.call(argv=("/bin/sh", "-c", "exit 0"))
    guard(place).write_bytes(remembered)
    done = place.go("verify", "--json")
    assert (44, {("guard.root", "error")}) == (done.code, rules(done))


def test_a_published_copy_may_lag_and_it_is_told(place: Place) -> None:
    place.call(argv=("/bin/true",))
    assert 0 == place.go("ledger", "publish", "web").code
    assert set() == rules(place.go("verify", "web", "--json"))
    place.call(argv=("/bin/true",))
    done = place.go("verify", "web", "--json")
    assert (0, {("guard.longer", "warning")}) == (done.code, rules(done))
    assert not any(line.startswith("guard:") for line in done.json["assurance"]["grounds"])


@pytest.mark.parametrize("what", ["foreign", "unreadable", "empty", "gone"])
def test_a_guard_that_is_no_use_is_told_and_demands_nothing(place: Place, what: str) -> None:
    place.call(argv=("/bin/true",))
    file = guard(place)
    if what == "foreign":
        file.write_bytes(b"example.com/other\n1\n")
    elif what == "empty":
        file.write_bytes(bytes(8192))
    else:
        file.unlink()
        if what == "unreadable":
            file.mkdir()
    done = place.go("verify", "--json")
    told = {"foreign": {("guard.foreign", "warning")}, "unreadable": {("guard.unusable", "warning")}}
    assert (0, told.get(what, set())) == (done.code, rules(done))
    assert not any(line.startswith("guard:") for line in done.json["assurance"]["grounds"])


def test_without_a_trusted_key_the_guard_is_not_asked(place: Place) -> None:
    place.call(argv=("/bin/true",))
    done = place.go("verify", str(place.ledger), "--json", env={"XDG_CONFIG_HOME": "/proc/x"})
    [check] = [c for c in done.json["checks"] if c["id"] == "guard"]
    assert (45, "notChecked", "needs a trusted key") == (done.code, check["status"], check["note"])


def test_a_resumed_verification_asks_the_guard_too(place: Place) -> None:
    place.call(argv=("/bin/true",))
    assert 0 == place.go("verify", "--bookmark", "kept").code
    older = guard(place).read_bytes()
    place.call(argv=("/bin/true",))
    for remembered in (guard(place).read_bytes(), older):
        guard(place).write_bytes(remembered)
        done = place.go("verify", "--bookmark", "kept", "--json")
        assert (0, set()) == (done.code, rules(done))
        assert any(line.startswith("guard: continues") for line in done.json["assurance"]["grounds"])
