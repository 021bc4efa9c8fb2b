"""A sequencer alone holds the log key: it signs for what it has judged, and nothing counts before it has."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.place import Place, a_place, until
from tests.ledger.ledger_world import REPOSITORY, Home, denied
from tests.postgres.cluster import ADMIN, Cluster
from tests.postgres.test_postgres_cli import Site, join
from tests.postgres.test_postgres_store import append_raw


@pytest.fixture
def sue(tmp_path: Path) -> Iterator[Place]:
    """Where the log key is."""
    (tmp_path / "sue").mkdir()
    with a_place(tmp_path / "sue") as place:
        yield place


@pytest.fixture
def anna(tmp_path: Path) -> Iterator[Place]:
    """A writer without it."""
    (tmp_path / "anna").mkdir()
    with a_place(tmp_path / "anna") as place:
        yield place


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path, sue: Place, anna: Place) -> Site:
    made = Site(cluster, tmp_path)
    assert 0 == sue.go("ledger", "prepare", made.url(ADMIN), "--sequencer").code
    made.grant("sue", "sequencer")
    made.grant("anna", "writer")
    words = ("init", "--origin", "example.com/sequenced", "--allow", "process", "--ledger", made.url("sue"))
    done = sue.go(*words)
    assert 0 == done.code, done.err
    join(sue, anna, made, "anna", "keys/log.key")
    config = anna.home / "config.toml"
    config.write_text(config.read_text().replace(f"{made.name}_sue@", f"{made.name}_anna@"))
    return made


@contextmanager
def sequencing(sue: Place) -> Iterator[subprocess.Popen[bytes]]:
    running = sue.start("ledger", "sequence")
    try:
        yield running
    finally:
        running.kill()
        running.communicate(timeout=30)


def wait_ms(place: Place, milliseconds: int) -> None:
    config = place.home / "config.toml"
    config.write_text(config.read_text().replace("format = 1\n", f"format = 1\nledgerTimeoutMs = {milliseconds}\n"))


def test_a_run_counts_once_the_sequencer_has_signed(site: Site, sue: Place, anna: Place) -> None:
    with sequencing(sue):
        done = anna.run("--", "/bin/echo", "judged")
        assert (0, b"judged\n") == (done.code, done.out), done.err
    done = anna.go("verify")
    assert 0 == done.code, done.out
    assert b"sequencer-holds-log-key" in done.out
    assert b"writers-hold-log-key" not in done.out
    kinds = [row["kind"] for row in anna.go("ledger", "list", "--json").json]
    assert ["genesis", "intent", "outcome"] == kinds


def test_without_a_sequencer_nothing_runs_and_the_intent_is_told(site: Site, sue: Place, anna: Place) -> None:
    wait_ms(anna, 300)
    done = anna.go("run", "--backend", "bitnet", "--prompt", "x")
    assert "the refusal is appended as entry 1, which no checkpoint covers yet" in done.err, done.err
    done = anna.run("--", *anna.mark)
    assert 15 == done.code, done.err
    assert "[checkpoint.awaited]" in done.err
    assert "nothing was executed; appended as entry 2, which no checkpoint covers yet" in done.err
    assert 0 == anna.runs
    assert 0 == sue.go("ledger", "sequence", "--once").code
    with sequencing(sue):
        assert 0 == anna.run("--", *anna.mark).code
    kinds = [row["kind"] for row in anna.go("ledger", "list", "--json").json]
    assert ["genesis", "denied", "intent", "gap", "intent", "outcome"] == kinds
    assert 0 == anna.go("verify").code


def test_an_outcome_without_a_checkpoint_is_kept_too_and_not_appended_twice(
    site: Site, sue: Place, anna: Place
) -> None:
    wait_ms(anna, 1500)
    with sequencing(sue) as running:
        child = anna.start(
            "run", "--backend", "process", "--", "/bin/sh", "-c", "echo >began; while [ ! -e go ]; do :; done"
        )
        until((anna.work / "began").exists, "the command runs")
        running.kill()
        running.wait(30)
        (anna.work / "go").touch()
        _, err = child.communicate(timeout=60)
    assert (33, True) == (child.returncode, b"its outcome is appended as entry 2" in err), err
    with sequencing(sue):
        assert 0 == anna.run("--", "/bin/true").code
    kinds = [row["kind"] for row in anna.go("ledger", "list", "--json").json]
    assert ["genesis", "intent", "outcome", "intent", "outcome"] == kinds
    assert not list((anna.home / "pending").iterdir())


def test_a_sequencer_that_is_killed_again_and_again_signs_one_history(site: Site, sue: Place, anna: Place) -> None:
    wait_ms(anna, 20_000)
    children = [anna.start("run", "--backend", "process", "--", "/bin/echo", str(n)) for n in range(6)]
    deadline = time.monotonic() + 60
    while any(child.poll() is None for child in children):
        assert time.monotonic() < deadline
        # Killed somewhere in the middle: it takes as long to start as to sign a few times.
        with sequencing(sue) as running, pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.8)
    for child in children:
        child.communicate(timeout=10)
        assert 0 == child.returncode
    assert 0 == sue.go("ledger", "sequence", "--once").code
    assert 0 == anna.go("verify", "--require", "complete").code


def test_nothing_is_signed_for_an_entry_of_a_stranger(site: Site, sue: Place, anna: Place, tmp_path: Path) -> None:
    home = Home(tmp_path / "twin")
    home.create()
    with home.writer() as writer:
        writer.append([denied()])
        leaf = writer.store.leaf(1) or b""
    # What a writer that was broken into would do.
    assert append_raw(site, leaf) is None
    done = sue.go("ledger", "sequence", "--once")
    assert 41 == done.code, done.err
    assert ["genesis"] == [row["kind"] for row in anna.go("ledger", "list", "--json").json]


def take_out(site: Site) -> None:
    """What docs/postgresql.md tells the owner of the database to do about entries that nobody will sign for."""
    text = (REPOSITORY / "docs/postgresql.md").read_text()
    script = text.split("<!-- sql: uncovered -->\n```sql\n")[1].split("```")[0]
    with site.cluster.admin(site.name) as link:
        # Keeping a copy in a file is psql's part.
        link.execute("\n".join(line for line in script.splitlines() if line[:1] != "\\").encode())


def test_what_nobody_signs_for_is_taken_out_as_documented_and_work_goes_on(
    site: Site, sue: Place, anna: Place, tmp_path: Path
) -> None:
    wait_ms(anna, 1500)
    with sequencing(sue) as running:
        child = anna.start("run", "--backend", "process", "--", "/bin/sh", "-c", "while [ ! -e go ]; do :; done")
        until(lambda: len(anna.go("ledger", "list", "--json").json) == 2, "the intent is signed for")
        running.kill()
        running.wait(30)
    home = Home(tmp_path / "twin")
    home.create()
    with home.writer() as writer:
        writer.append([denied()])
        leaf = writer.store.leaf(1) or b""
    assert append_raw(site, leaf) is None
    (anna.work / "go").touch()
    child.communicate(timeout=60)
    assert 33 == child.returncode
    assert 41 == sue.go("ledger", "sequence", "--once").code
    take_out(site)
    with sequencing(sue):
        assert 0 == anna.run("--", "/bin/true").code
    kinds = [row["kind"] for row in anna.go("ledger", "list", "--json").json]
    assert ["genesis", "intent", "outcome", "intent", "outcome"] == kinds
    assert 0 == anna.go("verify", "--require", "complete").code
