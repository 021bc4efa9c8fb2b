"""What is refused before an append: databases of another form, servers that lose, roles that may too much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.postgres import open_store
from govrun.ledger.postgres_form import create_form, role_name, writers_may_sign
from govrun.ledger.postgres_link import _parameters, connect
from govrun.ledger.postgres_sql import FUNCTIONS, TABLES
from govrun.ledger.read import open_ledger
from tests.ledger.ledger_world import REPOSITORY, denied, world
from tests.postgres.cluster import ADMIN, Cluster
from tests.postgres.shared_world import Shared


def refused(rule: str, action: Callable[[], object], code: ExitCode = ExitCode.LEDGER_UNAVAILABLE) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        action()
    assert (code, rule) == (caught.value.code, caught.value.rule), str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("user", "extra", "found"),
    [
        (ADMIN, (), "a superuser"),
        ("{name}_anna", ("GRANT {name}_owner TO {name}_anna",), "a member of the owner"),
        ("{name}_anna", ("GRANT INSERT ON govrun.entry TO {name}_anna",), "may write tables"),
        ("{name}_anna", ("GRANT UPDATE (note) ON govrun.checkpoint TO {name}_writer",), "may write tables"),
        ("{name}_anna", ("GRANT pg_write_all_data TO {name}_anna",), "may write tables"),
    ],
)
def test_a_role_that_could_write_past_the_functions_is_refused(
    shared: Shared, user: str, extra: tuple[str, ...], found: str
) -> None:
    shared.cluster.run(shared.name, *(statement.format(name=shared.name) for statement in extra))
    url = shared.cluster.url(user.format(name=shared.name), shared.name)
    error = refused("ledger.rights", lambda: open_store(url, shared.machine().directory, world()))
    assert (error.found or "").endswith(found)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            "CREATE OR REPLACE FUNCTION govrun.sign(tree_size bigint, note bytea) RETURNS void LANGUAGE plpgsql"
            " SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN END'",
            "function sign",
        ),
        ("ALTER FUNCTION govrun.hold() SECURITY INVOKER", "function hold"),
        ("ALTER FUNCTION govrun.hold() RESET search_path", "function hold"),
        ("ALTER FUNCTION govrun.hold() OWNER TO admin", "function hold"),
        ("CREATE FUNCTION govrun.more() RETURNS void LANGUAGE sql AS ''", "function more"),
        ("ALTER TABLE govrun.entry ADD COLUMN more integer", "table entry"),
        ("CREATE TABLE govrun.more (one integer)", "table more"),
        ("DROP INDEX govrun.entry_request", "index entry_request"),
        ("CREATE VIEW govrun.more AS SELECT 1 AS one", "table more"),
        ("CREATE RULE silent AS ON INSERT TO govrun.entry DO INSTEAD NOTHING", "rule silent"),
        ("ALTER TABLE govrun.entry ENABLE ROW LEVEL SECURITY", "no plain table entry"),
        ("ALTER TABLE govrun.entry SET UNLOGGED", "no plain table entry"),
        (
            "CREATE TRIGGER late BEFORE INSERT ON govrun.entry EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "trigger late",
        ),
    ],
)
def test_a_database_of_another_form_is_refused(shared: Shared, change: str, found: str) -> None:
    shared.cluster.run(shared.name, change)
    error = refused("ledger.form", lambda: open_store(shared.url("anna"), shared.machine().directory, world()))
    assert found in (error.found or "")
    refused("ledger.form", lambda: open_ledger(shared.url("rita")), ExitCode.COULD_NOT_CHECK)


def test_a_ledger_of_another_format_is_refused(shared: Shared) -> None:
    shared.cluster.run(shared.name, "UPDATE govrun.meta SET value = '2' WHERE name = 'format'")
    refused("ledger.newer", lambda: open_store(shared.url("anna"), shared.machine().directory, world()))


def test_a_database_without_a_ledger_is_refused(shared: Shared) -> None:
    shared.cluster.run("postgres", f"GRANT CONNECT ON DATABASE postgres TO {shared.name}_anna")
    url = shared.cluster.url(f"{shared.name}_anna", "postgres")
    refused("ledger.missing", lambda: open_store(url, shared.machine().directory, world()))
    url = shared.cluster.url(f"{shared.name}_anna", "nothing")
    assert "ledger." in refused_any(lambda: open_store(url, shared.machine().directory, world())).rule


def refused_any(action: Callable[[], object]) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        action()
    return caught.value


@pytest.fixture
def restarted(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Start the server with other settings; afterwards it runs with its own."""

    def restart(**settings: str) -> None:
        cluster.stop()
        cluster.start(**settings)

    yield restart
    restart()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_what_it_committed_is_refused(
    shared: Shared, restarted: Callable[..., None], setting: str
) -> None:
    with shared.machine().writer() as writer:
        writer.append([denied()])
        restarted(**{setting: "off"})
        other = shared.machine("ben")
        error = refused("ledger.durable", lambda: open_store(other.url, other.directory, world()))
        assert f"{setting} = off" == error.found
        # One that was open before is refused by the database itself, or when it connects again.
        refused("ledger.durable", lambda: writer.append([denied()]), ExitCode.APPEND_FAILED)


def test_a_weaker_commit_is_made_durable_and_a_stronger_one_kept(shared: Shared) -> None:
    for before, after in (("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")):
        shared.cluster.run("postgres", f"ALTER ROLE {shared.name}_anna SET synchronous_commit = '{before}'")
        with shared.machine().store() as store:
            assert [(after,)] == store._rows("SHOW synchronous_commit")
            with store.hold():
                pass
            store._run("SET synchronous_commit = off")
            with pytest.raises(GovrunError) as caught, store.hold():
                pass
            assert "ledger.durable" == caught.value.rule


def test_a_transaction_never_stands_still_for_ever(shared: Shared) -> None:
    for before, after in (("0", "1min"), ("1h", "1min"), ("7s", "7s")):
        with shared.machine().store() as store:
            store._run(f"SET idle_in_transaction_session_timeout = '{before}'")
            with store.hold():
                assert [(after,)] == store._rows("SHOW idle_in_transaction_session_timeout")


def test_the_database_tells_whether_writers_may_sign(make: Callable[..., Shared]) -> None:
    for writers_sign in (True, False):
        shared = make(writers_sign=writers_sign)
        with shared.cluster.admin(shared.name) as link:
            assert writers_sign == writers_may_sign(link)
    shared.cluster.run(shared.name, f"GRANT {shared.name}_sequencer TO {shared.name}_ben")
    with shared.cluster.admin(shared.name) as link:
        assert writers_may_sign(link)


def test_a_form_is_made_once_and_leaves_nothing_when_it_cannot(shared: Shared, cluster: Cluster) -> None:
    with cluster.admin(shared.name) as link:
        refused("ledger.exists", lambda: create_form(link, writers_sign=True))
    name = "d" * 60
    cluster.run("postgres", f"CREATE DATABASE {name}")
    with cluster.admin(name) as link:
        refused("ledger.database", lambda: create_form(link, writers_sign=True))
        assert (None,) == link.execute("SELECT to_regnamespace('govrun')").fetchone()
    assert f"{'d' * 50}_owner" == role_name("d" * 50, "owner")


def test_whoever_is_no_member_cannot_even_connect(shared: Shared) -> None:
    shared.cluster.run("postgres", f"CREATE ROLE {shared.name}_eve LOGIN")
    error = refused_any(lambda: connect(shared.url("eve"), 2_000, writes=False))
    assert "permission denied" in (error.found or "")


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://u@db.example.com/l", "verify-full"),
        ("postgresql://u@10.0.0.1/l", "verify-full"),
        ("postgresql://u@localhost,db.example.com/l", "verify-full"),
        ("postgresql://u@localhost/l?hostaddr=10.0.0.1", "verify-full"),
        ("postgresql://u@db.example.com/l?sslmode=verify-ca&sslrootcert=/ca.pem", "verify-ca"),
        ("postgresql://u@localhost/l", None),
        ("postgresql://u@[::1]/l", None),
        ("postgresql:///l?host=/run/postgresql", None),
    ],
)
def test_another_machine_is_spoken_to_under_tls(monkeypatch: pytest.MonkeyPatch, url: str, mode: str | None) -> None:
    import psycopg

    for name in ("PGHOST", "PGHOSTADDR", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    assert mode == _parameters(url, psycopg).get("sslmode")
    if mode is not None:
        monkeypatch.setenv("PGSSLMODE", "disable")
        assert mode == _parameters(url, psycopg).get("sslmode")
    monkeypatch.setenv("PGHOST", "db.example.com")
    assert "verify-full" == _parameters("postgresql:///l", psycopg).get("sslmode")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@db.example.com/l?sslmode=require",
        "postgresql://u@db.example.com/l?sslmode=disable",
        "postgresql://u:pw@localhost/l",
        "postgresql://u@localhost/l?password=pw",
        "postgresql://u@localhost/l?pass%77ord=pw",
        "postgresql://u@localhost/l?sslpassword=pw",
        "postgresql://u@localhost/l?service=x",
        "postgresql://u@localhost/l?options=-cfsync%3Doff",
        "postgresql://u@localhost:x y/l?=",
    ],
)
def test_a_url_that_says_too_much_is_refused_and_not_repeated(url: str) -> None:
    error = refused("ledger.url", lambda: connect(url, 500, writes=True))
    assert "pw" not in str(error)


def test_a_server_that_is_not_there_is_said_within_the_deadline(tmp_path: Path) -> None:
    refused("ledger.unreachable", lambda: connect(f"postgresql://u@/l?host={tmp_path}", 2_000, writes=True))


def test_the_tables_are_those_of_the_specification() -> None:
    specification = (REPOSITORY / "SPEC.md").read_text()
    assert "\n".join(f"{statement};" for statement in TABLES) in specification
    assert [] == [name for name in FUNCTIONS if f"| `{name}(" not in specification]
