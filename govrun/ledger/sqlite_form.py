"""The form of a ledger in SQLite: its tables, how a file is known to be one, and what SQLite's errors mean.

    entry        idx -> leaf, the exact bytes of an envelope
    node         position -> hash, the list that `merkle` describes; two rows for each entry
    checkpoint   size -> signed note, one for each commit
    entry_index  idx -> query columns, rebuildable from the leaf
    open_intent  idx -> invocation id of each intent without outcome or gap, rebuildable
    meta         origin

entry, node and checkpoint only grow. Whoever can write the file can change any of it: what protects the entries are
the signed checkpoints, not the tables.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from govrun.errors import ExitCode, GovrunError

APPLICATION_ID: Final = 0x676F7672  # "govr"
FORMAT_VERSION: Final = 1

# A receipt lies on a few pages of its own and shares one with its neighbours; what its last page leaves empty is a
# fraction of a page. At 1,024 bytes that is 100 to 220 bytes for each entry, at 2,048 it was 500, at 4,096 it is 1,500.
# Files with other pages are read and written as well.
PAGE_BYTES: Final = 1024

TABLES: Final[tuple[tuple[str, str], ...]] = (
    ("checkpoint", "CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note BLOB NOT NULL) STRICT"),
    ("entry", "CREATE TABLE entry (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL) STRICT"),
    (
        "entry_answer",
        # One outcome and one gap for each intent.
        "CREATE UNIQUE INDEX entry_answer ON entry_index (intent, kind) WHERE intent IS NOT NULL",
    ),
    (
        "entry_index",
        "CREATE TABLE entry_index (idx INTEGER PRIMARY KEY, kind TEXT NOT NULL, invocation_id TEXT, request_id TEXT,"
        " backend TEXT, task TEXT, agent TEXT, status TEXT, reason TEXT, intent INTEGER, stated_on TEXT NOT NULL)"
        " STRICT",
    ),
    (
        "entry_request",
        # A request id is claimed by the one intent that bears it; a denial does not use it up.
        "CREATE UNIQUE INDEX entry_request ON entry_index (request_id)"
        " WHERE request_id IS NOT NULL AND kind = 'intent'",
    ),
    ("meta", "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID"),
    ("node", "CREATE TABLE node (position INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT"),
    ("open_intent", "CREATE TABLE open_intent (idx INTEGER PRIMARY KEY, invocation_id TEXT NOT NULL) STRICT"),
)

# One row for each entry from an index up to, but not including, another.
SELECT_COLUMNS: Final = (
    "SELECT idx, kind, invocation_id, request_id, backend, task, agent, status, reason, intent, stated_on"
    " FROM entry_index WHERE idx >= ? AND idx < ? ORDER BY idx"
)


def create_form(connection: sqlite3.Connection, origin: str) -> None:
    """Make the tables in an empty database, in one transaction."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    # Tables before the indexes over them.
    for _, sql in sorted(TABLES, key=lambda table: "INDEX" in table[1]):
        connection.execute(sql)
    connection.execute("INSERT INTO meta VALUES ('origin', ?)", (origin,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    connection.execute("COMMIT")


def check_form(connection: sqlite3.Connection) -> str:
    """Return the origin of a ledger of this version; GovrunError (ledger-unavailable) for any other database.

    The tables must be exactly those of this version: a view or a trigger of somebody else's would run as part of
    reading and writing.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.foreign",
            "the file is a database, but not a ledger",
            found=f"application id 0x{application & 0xFFFFFFFF:08x}",
            expected=f"0x{APPLICATION_ID:08x}",
            fix="name another file",
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT_VERSION:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.newer",
            "the ledger was made by a newer govrun",
            found=f"format {version}",
            expected=f"at most format {FORMAT_VERSION}",
            fix="update govrun",
        )
    found = {name: sql for name, sql in connection.execute("SELECT name, sql FROM sqlite_schema") if sql is not None}
    if version != FORMAT_VERSION or found != dict(TABLES):
        different = sorted(name for name, _ in set(found.items()) ^ set(TABLES))
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.form",
            "the tables of the ledger are not those of its format",
            found=", ".join(dict.fromkeys(different))[:200] or f"format {version}",
            expected=f"the tables of format {FORMAT_VERSION} and nothing else",
            fix="restore the ledger from its published form or a backup, as a new origin",
        )
    row = connection.execute("SELECT value FROM meta WHERE name = 'origin'").fetchone()
    return str(row[0]) if row else ""


# What SQLite's primary result codes mean to a user: rule, what, expected, fix.
_MEANING: Final[dict[int, tuple[str, str, str, str]]] = {
    sqlite3.SQLITE_BUSY: (
        "ledger.locked",
        "another program keeps the ledger locked",
        "a lock that is released within the deadline",
        "end the program that has the ledger open",
    ),
    sqlite3.SQLITE_READONLY: (
        "ledger.readOnly",
        "the ledger cannot be written",
        "a file, a directory and a file system that can be written",
        "make the file and its directory writable for their owner",
    ),
    sqlite3.SQLITE_FULL: (
        "ledger.full",
        "there is no room for the entry",
        "free space where the ledger lies",
        "free some space; nothing that was acknowledged is lost",
    ),
    sqlite3.SQLITE_IOERR: (
        "ledger.io",
        "the disk or the system refused to read or write the ledger",
        "a file system without errors or limits",
        "look at the system's log for errors of the disk",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "ledger.corrupt",
        "the ledger's database is damaged",
        "an intact SQLite database",
        "keep the file, restore from the published form or a backup as a new origin",
    ),
    sqlite3.SQLITE_NOTADB: (
        "ledger.foreign",
        "the file is not a database",
        "a ledger made by `govrun init`",
        "name another file",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "ledger.unwritable",
        "the ledger cannot be opened for writing",
        "a file and a directory that can be written",
        "make the file and its directory writable for their owner",
    ),
}


def refusal(error: sqlite3.Error) -> GovrunError:
    """What an error of SQLite means, as GovrunError (ledger-unavailable) with a rule for each cause."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    rule, what, expected, fix = _MEANING.get(
        -1 if code is None else code & 0xFF,
        ("ledger.store", "SQLite refused", "no error", "report this as a defect, with the name of the error"),
    )
    return GovrunError(ExitCode.LEDGER_UNAVAILABLE, rule, what, found=f"{name}: {error}", expected=expected, fix=fix)
