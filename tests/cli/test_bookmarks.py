"""`verify --bookmark FILE`: only what is new is read, the file is kept with care, and the report says what was read."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from tests.e2e.place import Done, Place


def verify(place: Place, *words: str) -> Done:
    return place.go("verify", "--bookmark", "kept", *words)


def read_from(done: Done) -> int:
    found: int = done.json["read"]["fromIndex"]
    return found


def test_the_second_verification_reads_what_is_new(place: Place) -> None:
    place.call(argv=("/bin/true",))
    first = verify(place, "--json")
    assert (0, 0, "keyed") == (first.code, read_from(first), first.json["assurance"]["level"])
    kept = place.work / "kept"
    assert 0o600 == stat.S_IMODE(kept.stat().st_mode)
    place.call(argv=("/bin/true",))
    second = verify(place, "--json", "--require", "pinned", "--require", "complete")
    assert (0, 3, "pinned", 3) == (
        second.code,
        read_from(second),
        second.json["assurance"]["level"],
        second.json["assurance"]["pinnedSize"],
    )
    assert {"genesis": 1, "intent": 2, "outcome": 2} == second.json["counts"]["kinds"]
    text = verify(place)
    assert "read        0 entries, from 5 on; the bookmark vouches for the 5 before" in text.out.decode()
    full = verify(place, "--full", "--json")
    assert (0, 0, "as was asked for") == (full.code, read_from(full), full.json["read"]["bookmarkUnused"])
    assert [kept] == sorted(place.work.glob("kept*"))


def test_no_bookmark_is_kept_of_a_no(place: Place) -> None:
    place.call(argv=("/bin/true",))
    assert 43 == verify(place, "--require", "pinned").code
    assert not (place.work / "kept").exists()
    assert 0 == verify(place).code
    before = (place.work / "kept").read_bytes()
    place.call(argv=("/bin/true",))
    assert 45 == place.go("verify", str(place.ledger), "--bookmark", "kept", env={"XDG_CONFIG_HOME": "/proc/x"}).code
    assert before == (place.work / "kept").read_bytes()


def test_an_older_copy_of_the_home_has_diverged_from_the_bookmark(place: Place) -> None:
    place.call(argv=("/bin/true",))
    shutil.copytree(place.home, place.root / "backup")
    place.call(argv=("/bin/true",))
    assert 0 == verify(place).code
    shutil.rmtree(place.home)
    shutil.copytree(place.root / "backup", place.home)
    # Without the guard's memory, as on another machine.
    shutil.rmtree(place.root / "state")
    assert 0 == place.go("verify").code
    done = verify(place)
    assert 44 == done.code
    assert "the ledger ends before the pinned checkpoint does" in done.out.decode()


def test_an_audit_resumes_too(place: Place) -> None:
    place.call(argv=("/bin/true",))
    assert 0 == place.go("audit", "--bookmark", "kept").code
    place.call(argv=("/bin/true",))
    done = place.go("audit", "--bookmark", "kept", "--format", "json")
    assert (0, 3, 2) == (done.code, read_from(done), done.json["policy"]["judged"])
    place.policy("[backends.bitnet]\n")
    done = place.go("audit", "--bookmark", "kept", "--format", "json")
    assert (42, 0) == (done.code, read_from(done))


@pytest.mark.parametrize("change", ["cut", "mode", "directory", "fifo"])
def test_a_bookmark_that_is_no_use_is_refused(place: Place, change: str) -> None:
    place.call(argv=("/bin/true",))
    assert 0 == verify(place).code
    kept = place.work / "kept"
    if change == "cut":
        kept.write_bytes(kept.read_bytes()[:-1])
    elif change == "mode":
        kept.chmod(0o666)
    else:
        kept.unlink()
        kept.mkdir() if change == "directory" else os.mkfifo(kept)
    done = verify(place)
    assert (45, b"") == (done.code, done.out)
    assert "bookmark" in done.err


def test_a_bookmark_that_cannot_be_kept_gives_no_verdict(place: Place) -> None:
    place.call(argv=("/bin/true",))
    done = place.go("verify", "--bookmark", "nosuch/kept")
    assert (45, b"") == (done.code, done.out)
    assert "[bookmark.write]" in done.err


def test_a_bookmark_goes_with_a_ledger(place: Place) -> None:
    place.call(argv=("/bin/true",))
    assert 0 == place.go("ledger", "prove", "1", "--out", "proof").code
    assert 2 == place.go("verify", "proof", "--bookmark", "kept").code
    assert 2 == place.go("verify", "--full").code
    words = ("--disclosure", "a", "--content", "b")
    assert 2 == place.go("verify", "--bookmark", "kept", *words).code
