"""A connection to a ledger in PostgreSQL: where it may lead, how it is encrypted, how long anything may take.

    postgresql://writer@db.example.com/ledger?sslrootcert=/etc/ssl/db-ca.pem

A host that is not this machine is spoken to under TLS, and its certificate must bear its name (`sslmode=verify-full`,
which is also the default here). A password stands in the password file of PostgreSQL or in PGPASSWORD, never in the
URL: a URL is shown. Every wait ends at a deadline, on the server where it can and here in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.postgres_sql import MALFORMED, NOT_DURABLE, OTHER_HEAD

if TYPE_CHECKING:
    from psycopg import Connection

SCHEME: Final = "postgresql://"

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ENCRYPTED: Final = ("verify-full", "verify-ca")
# What would lead elsewhere than the URL says, or put a secret into what is shown.
_REFUSED: Final = ("password", "sslpassword", "service", "options")
# The server ends its own waits first, and says why.
_GRACE_S: Final = 2.0


def connect(url: str, wait_ms: int, *, writes: bool) -> Connection[tuple[Any, ...]]:
    """A connection in autocommit mode whose every statement ends within wait_ms, or a little later if the server hangs.

    GovrunError (ledger-unavailable): psycopg is not installed, the URL is refused, or there is no such server.
    """
    psycopg = driver()
    # The lock's deadline first, so that it is the one that is told. A commit that waits for a standby has none on the
    # server: it is given up here, and its result is unknown.
    waits = {
        "statement_timeout": wait_ms + 1_000,
        "lock_timeout": wait_ms,
        "idle_in_transaction_session_timeout": wait_ms,
        "client_min_messages": "warning",
    }
    settings = _parameters(url, psycopg) | {
        "options": " ".join(f"-c {name}={value}" for name, value in waits.items()),
        "connect_timeout": str(max(2, wait_ms // 1000)),
        "tcp_user_timeout": str(wait_ms),
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "3",
        "gssencmode": "disable",
        "client_encoding": "UTF8",
    }
    if writes:
        settings.setdefault("target_session_attrs", "read-write")
    try:
        link: Connection[tuple[Any, ...]] = _bounded(psycopg, wait_ms / 1000 + _GRACE_S).connect(
            **settings, autocommit=True
        )
    except psycopg.Error as error:
        raise refusal(error, connecting=True) from error
    if link.info.server_version < _OLDEST:
        found = link.info.server_version
        close(link)
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.server",
            "the PostgreSQL server is too old",
            found=f"version {found // 10000}",
            expected=f"version {_OLDEST // 10000} or newer",
        )
    return link


_OLDEST: Final = 140_000


def driver() -> Any:
    """The psycopg package; GovrunError (ledger-unavailable) if it is not installed."""
    try:
        import psycopg
    except ImportError as error:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.driver",
            "a ledger in PostgreSQL needs the package psycopg",
            found=f"no usable psycopg ({type(error).__name__})",
            expected="psycopg 3.3 or newer",
            fix="install govrun[postgres]",
        ) from error
    return psycopg


def _bounded(psycopg: Any, limit_s: float) -> Any:
    """A connection class that waits no longer than limit_s, whatever the server does or does not do."""

    class Bounded(psycopg.Connection):  # type: ignore[misc] # psycopg is imported when it is needed
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, limit_s if timeout is None else timeout)
            except psycopg.OperationalError as error:
                if self.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
                    raise
                # In the middle of an exchange: nothing can be said over this connection any more.
                self.pgconn.finish()
                raise psycopg.OperationalError("the server did not answer before the deadline") from error

    return Bounded


def close(link: Connection[tuple[Any, ...]] | None) -> None:
    """Close a connection without waiting for the server; harmless when it is broken."""
    if link is not None:
        link.pgconn.finish()


def _parameters(url: str, psycopg: Any) -> dict[str, str]:
    """The connection parameters of a URL, with TLS demanded wherever the server is another machine."""
    try:
        found = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error as error:
        # What it says repeats the URL, in which somebody may have put a password after all.
        raise _bad_url("no such URL", "postgresql://user@host/database") from error
    for name in _REFUSED:
        if name in found:
            raise _bad_url(f"{name} in the URL", "the password file of PostgreSQL, or PGPASSWORD")
    parameters = {name: str(value) for name, value in found.items()}
    inherited = {
        one.keyword.decode(): one.val.decode()
        for one in psycopg.pq.Conninfo.get_defaults()
        if one.val is not None and one.keyword in (b"host", b"hostaddr", b"sslrootcert")
    }
    if not _is_local(parameters, inherited):
        mode = parameters.setdefault("sslmode", "verify-full")
        if mode not in _ENCRYPTED:
            raise _bad_url(f"sslmode={mode}", "sslmode=verify-full for a server on another machine")
        if "sslrootcert" not in parameters and "sslrootcert" not in inherited and mode == "verify-full":
            parameters["sslrootcert"] = "system"
    return parameters


def _is_local(parameters: dict[str, str], inherited: dict[str, str]) -> bool:
    """Whether every server that the parameters can lead to is a socket or the loopback of this machine."""
    given = [parameters.get(name, inherited.get(name, "")) for name in ("host", "hostaddr")]
    places = [place for one in given for place in one.split(",") if place]
    return all(place in _LOOPBACK or place.startswith(("/", "@")) for place in places)


def _bad_url(found: str, expected: str) -> GovrunError:
    return GovrunError(
        ExitCode.LEDGER_UNAVAILABLE,
        "ledger.url",
        "the URL of the ledger is refused",
        found=found,
        expected=expected,
        fix="docs/postgresql.md has examples",
    )


# What the conditions of PostgreSQL mean to a user, by SQLSTATE: rule, what, expected, fix.
_MEANING: Final[dict[str, tuple[str, str, str, str | None]]] = {
    NOT_DURABLE: (
        "ledger.durable",
        "this PostgreSQL does not make entries durable before they are acknowledged",
        "fsync, full_page_writes and synchronous_commit on",
        "change the server's settings, or those of the role",
    ),
    OTHER_HEAD: (
        "ledger.otherHead",
        "the ledger has another head than the one this was made for",
        "the head that was read before",
        "try again; if it stays, verify the ledger",
    ),
    MALFORMED: (
        "ledger.refused",
        "the database refuses what it was given",
        "leaves, hashes and columns that belong together",
        "report this as a defect, with the words of the database",
    ),
    "42501": (
        "ledger.rights",
        "the database role may not do this",
        "a role that is a member of the ledger's writers, or of those who sign",
        "see docs/postgresql.md",
    ),
    "55P03": (
        "ledger.locked",
        "another writer keeps the ledger locked",
        "a lock that is released within the deadline",
        "the server ends a transaction that stands still; see who holds it in pg_stat_activity",
    ),
    "57014": ("ledger.deadline", "the database took too long", "an answer within the deadline", None),
    "25P03": (
        "ledger.heldTooLong",
        "the database ended a transaction that stood still",
        "a writer that goes on within the deadline",
        None,
    ),
    "53100": (
        "ledger.full",
        "there is no room for the entry",
        "free space where the database lies",
        "free some space; nothing that was acknowledged is lost",
    ),
    "28P01": (
        "ledger.login",
        "the database does not let this user in",
        "a role that may connect",
        "see docs/postgresql.md",
    ),
    "28000": (
        "ledger.login",
        "the database does not let this user in",
        "a role that may connect",
        "see docs/postgresql.md",
    ),
    "3D000": ("ledger.missing", "there is no such database", "a database that holds a ledger", None),
    "25006": ("ledger.readOnly", "the server takes no writes", "the primary server", "name the primary"),
    "XX001": ("ledger.corrupt", "the database is damaged", "an intact database", "keep it as it is"),
    "XX002": ("ledger.corrupt", "an index of the database is damaged", "an intact database", "keep it as it is"),
    "58030": ("ledger.io", "the server's disk refused to read or write", "a disk without errors", None),
}


def refusal(error: Any, *, connecting: bool = False) -> GovrunError:
    """What an error of psycopg means, as GovrunError (ledger-unavailable) with a rule for each cause."""
    state = getattr(error, "sqlstate", None) or ""
    # The first line only: further ones quote statements and rows.
    said = (getattr(getattr(error, "diag", None), "message_primary", None) or str(error)).strip().split("\n")[0][:200]
    lost = connecting or state[:2] in ("08", "57") or not state
    rule, what, expected, fix = _MEANING.get(
        state,
        (
            "ledger.unreachable" if lost else "ledger.store",
            "the database cannot be reached" if lost else "PostgreSQL refused",
            "a PostgreSQL server that answers" if lost else "no error",
            "look whether the server runs" if lost else "report this as a defect, with the words of the database",
        ),
    )
    found = f"{state}: {said}" if state else said
    return GovrunError(ExitCode.LEDGER_UNAVAILABLE, rule, what, found=found, expected=expected, fix=fix)
