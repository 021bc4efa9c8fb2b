"""The command line on a shared ledger, from an empty database to a verdict; real programs, two machines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.place import Place, a_place, until
from tests.postgres.cluster import ADMIN, Cluster

_names = iter(range(1, 1000))


class Site:
    """A database that an operator made ready, and the machines of two writers."""

    def __init__(self, cluster: Cluster, root: Path) -> None:
        self.cluster = cluster
        self.name = f"site{next(_names)}"
        self.root = root
        cluster.run("postgres", f"CREATE DATABASE {self.name}")

    def url(self, user: str) -> str:
        return self.cluster.url(user if user == ADMIN else f"{self.name}_{user}", self.name)

    def grant(self, user: str, role: str) -> None:
        self.cluster.run(self.name, f"CREATE ROLE {self.name}_{user} LOGIN IN ROLE {self.name}_{role}")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "here").mkdir()
    with a_place(tmp_path / "here") as place:
        yield place


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "there").mkdir()
    with a_place(tmp_path / "there") as place:
        yield place


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(cluster, tmp_path)


@pytest.fixture
def begun(site: Site, here: Place) -> Site:
    """A ledger that `init` began here; its writers hold the log key."""
    done = here.go("ledger", "prepare", site.url(ADMIN))
    assert 0 == done.code, done.err
    site.grant("anna", "writer")
    site.grant("ben", "writer")
    done = here.go("init", "--origin", "example.com/shared", "--allow", "process", "--ledger", site.url("anna"))
    assert 0 == done.code, done.err
    return site


def join(here: Place, there: Place, site: Site, user: str, *without: str) -> None:
    """Make the other machine a writer of the same ledger: home and trust copied, another role of the database."""
    shutil.copytree(here.home, there.home)
    for name in (*without, "keys/root.key"):
        (there.home / name).unlink()
    config = (there.home / "config.toml").read_text()
    (there.home / "config.toml").write_text(config.replace(f"{site.name}_anna@", f"{site.name}_{user}@"))
    (there.home / "config.toml").chmod(0o600)
    trust = Path("govrun/trust")
    shutil.copytree(Path(here.environ["XDG_CONFIG_HOME"]) / trust, Path(there.environ["XDG_CONFIG_HOME"]) / trust)
    there.extra["GOVRUN_HOME"] = str(there.home)


def test_from_an_empty_database_to_a_verdict(begun: Site, here: Place, there: Place) -> None:
    join(here, there, begun, "ben")
    assert not (here.home / "ledger.sqlite").exists()
    for place in (here, there):
        done = place.go("run", "--backend", "process", "--", "/bin/echo", "shared")
        assert (0, b"shared\n") == (done.code, done.out), done.err
    listed = there.go("ledger", "list", "--json").json
    assert ["genesis", "intent", "outcome", "intent", "outcome"] == [row["kind"] for row in listed]
    done = here.go("verify")
    assert 0 == done.code, done.out
    assert b"writers-hold-log-key: the database takes checkpoints from whoever appends" in done.out
    for words in (("audit",), ("ledger", "show", "1"), ("ledger", "checkpoint"), ("ledger", "prove", "2")):
        assert 0 == here.go(*words).code, words
    shown = here.go("config", "show", "--json").json
    assert {"value": begun.url("anna"), "origin": "config"} == shown["ledger"]
    published = here.root / "published"
    assert 0 == here.go("ledger", "publish", str(published)).code
    assert 0 == here.go("verify", str(published)).code
    # A reader needs the URL and the keys, and no home.
    begun.grant("rita", "reader")
    done = there.go("verify", begun.url("rita"))
    assert 0 == done.code, done.err
    assert 0 == here.go("ledger", "disclose", "2", "stdout").code


def test_a_running_invocation_is_seen_from_another_machine_and_its_death_told_once(
    begun: Site, here: Place, there: Place
) -> None:
    join(here, there, begun, "ben")
    running = here.start("run", "--backend", "process", "--", "/bin/sh", "-c", "echo $$ >pid; exec sleep 600")
    until((here.work / "pid").exists, "the command runs")
    report = there.go("verify", "--json").json
    assert (1, 0) == (report["counts"]["running"], report["counts"]["orphaned"])
    running.kill()
    running.communicate(timeout=30)
    until(lambda: not there.go("verify", "--json").json["counts"]["running"], "the server lets go of the lock")
    assert 0 == there.go("run", "--backend", "process", "--", "/bin/true").code
    assert 0 == here.go("run", "--backend", "process", "--", "/bin/true").code
    kinds = [row["kind"] for row in here.go("ledger", "list", "--json").json]
    assert ["genesis", "intent", "gap", "intent", "outcome", "intent", "outcome"] == kinds


def test_a_server_that_is_away_refuses_before_anything_runs(begun: Site, here: Place, cluster: Cluster) -> None:
    cluster.stop()
    try:
        done = here.go("run", "--backend", "process", "--", *here.mark)
        assert 15 == done.code
        assert "ledger.unreachable" in done.err
        assert 0 == here.runs
        assert 45 == here.go("verify").code
    finally:
        cluster.start()


@pytest.mark.parametrize("where", ["option", "environment", "config", "init"])
def test_a_password_in_the_url_is_refused_and_not_shown(begun: Site, here: Place, where: str) -> None:
    url = "postgresql://anna:hunter22@localhost/ledger"
    words = ["run", "--backend", "process", "--", "/bin/true"]
    if where == "option":
        words[1:1] = ["--ledger", url]
    elif where == "environment":
        here.extra["GOVRUN_LEDGER"] = url
    elif where == "config":
        (here.home / "config.toml").write_text(f'format = 1\nledger = "{url}"\n')
    else:
        words = ["init", "--home", str(here.root / "other"), "--ledger", url]
    done = here.go(*words)
    assert 10 == done.code
    assert "hunter22" not in done.err + done.out.decode()
    assert not (here.root / "other").exists()


def test_a_second_ledger_does_not_begin_in_the_same_database(begun: Site, there: Place) -> None:
    done = there.go("init", "--ledger", begun.url("ben"))
    assert (15, True) == (done.code, "ledger.exists" in done.err)
    assert not there.home.exists()
    done = there.go("ledger", "prepare", begun.url(ADMIN))
    assert (15, True) == (done.code, "ledger.exists" in done.err)


def test_prepare_tells_what_it_made(site: Site, here: Place) -> None:
    done = here.go("ledger", "prepare", site.url(ADMIN), "--sequencer", "--json")
    roles = {role: f"{site.name}_{role}" for role in ("owner", "writer", "sequencer", "reader")}
    assert {"database": site.name, "roles": roles, "writersSign": False} == json.loads(done.out)


def test_the_keys_of_a_ledger_that_has_begun_are_kept_when_its_home_cannot_be_made(site: Site, here: Place) -> None:
    assert 0 == here.go("ledger", "prepare", site.url(ADMIN)).code
    site.grant("anna", "writer")
    # The trust file has no place.
    (Path(here.environ["XDG_CONFIG_HOME"]) / "govrun").write_bytes(b"")
    done = here.go("init", "--origin", "example.com/shared", "--allow", "process", "--ledger", site.url("anna"))
    assert (15, False) == (done.code, here.home.exists())
    [kept] = here.home.parent.glob(".govrun.new-*")
    assert f"its keys are in {kept.name}, to be renamed .govrun" in done.err
    (Path(here.environ["XDG_CONFIG_HOME"]) / "govrun").unlink()
    kept.rename(here.home)
    here.extra["GOVRUN_HOME"] = str(here.home)
    assert 0 == here.run("--", "/bin/true").code
