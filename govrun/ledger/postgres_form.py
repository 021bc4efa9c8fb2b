"""How a database becomes a ledger's, and what is looked at before one is written to: its form, and one's own rights.

Four roles that nobody logs in as, named after the database: `<database>_owner` owns everything, `<database>_writer`
may append, `<database>_sequencer` may sign, `<database>_reader` may read. Who logs in is a member of one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.ledger import postgres_sql as form
from govrun.ledger.postgres_link import close, connect, driver, refusal

if TYPE_CHECKING:
    from psycopg import Connection

ROLES: Final = ("owner", "writer", "sequencer", "reader")

_MAX_NAME: Final = 63

_COLUMNS: Final = {
    "checkpoint": "size bigint!, note bytea!",
    "entry": "idx bigint!, leaf bytea!",
    "entry_index": "idx bigint!, kind text!, invocation_id text, request_id text, backend text, task text, agent text,"
    " status text, reason text, intent bigint, stated_on text!",
    "head": "one boolean!, size bigint!, last bytea!, signed bigint!",
    "meta": "name text!, value text!",
    "node": "position bigint!, hash bytea!",
    "open_intent": "idx bigint!, invocation_id text!",
}

_SELECT_COLUMNS: Final = """
SELECT c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
    || CASE WHEN a.attnotnull THEN '!' ELSE '' END, ', ' ORDER BY a.attnum)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE c.relnamespace = 'govrun'::regnamespace AND c.relkind NOT IN ('i', 'I', 't') GROUP BY c.relname
"""
# What would run as part of reading and writing, or keep rows from being seen, and is not ours.
_SELECT_FOREIGN: Final = """
SELECT 'trigger ' || t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
  WHERE c.relnamespace = 'govrun'::regnamespace
UNION ALL SELECT 'rule ' || r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
  WHERE c.relnamespace = 'govrun'::regnamespace
UNION ALL SELECT 'no plain table ' || c.relname FROM pg_class c WHERE c.relnamespace = 'govrun'::regnamespace
  AND c.relkind NOT IN ('i', 't') AND (c.relkind <> 'r' OR c.relrowsecurity OR c.relpersistence <> 'p')
UNION ALL SELECT 'heirs of ' || c.relname FROM pg_inherits h JOIN pg_class c ON c.oid IN (h.inhparent, h.inhrelid)
  WHERE c.relnamespace = 'govrun'::regnamespace
"""
_SELECT_FUNCTIONS: Final = """
SELECT p.proname, p.prosrc, p.prosecdef, p.proconfig, l.lanname, p.proowner = n.nspowner
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname = 'govrun'
"""
_SELECT_UNIQUE: Final = """
SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
  WHERE c.relnamespace = 'govrun'::regnamespace AND i.indisunique AND i.indisvalid
"""
_UNIQUE: Final = frozenset({"entry_answer", "entry_request"} | {f"{table}_pkey" for table in _COLUMNS})

_SELECT_RIGHTS: Final = """
SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  pg_has_role(current_user, n.nspowner, 'MEMBER'),
  EXISTS (SELECT 1 FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind = 'r'
    AND (c.relowner <> n.nspowner OR has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
      OR has_any_column_privilege(c.oid, 'INSERT, UPDATE'))),
  (SELECT bool_or(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc p
    WHERE p.pronamespace = n.oid AND p.proname = 'append'),
  (SELECT bool_or(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc p
    WHERE p.pronamespace = n.oid AND p.proname = 'sign')
  FROM pg_namespace n WHERE n.nspname = 'govrun'
"""
_SELECT_SIGNERS: Final = """
SELECT EXISTS (SELECT 1 FROM pg_roles r, pg_namespace n WHERE n.nspname = 'govrun' AND NOT r.rolsuper
  AND NOT pg_has_role(r.oid, n.nspowner, 'MEMBER')
  AND (SELECT bool_and(has_function_privilege(r.oid, p.oid, 'EXECUTE')) FROM pg_proc p
    WHERE p.pronamespace = n.oid AND p.proname IN ('append', 'sign')))
"""
_SETTINGS: Final = (("fsync", ("on",)), ("full_page_writes", ("on",)), ("synchronous_commit", ("on", "remote_apply")))


@frozen
class Rights:
    """What the role of a connection may do with a ledger that is as it should be."""

    user: str
    may_append: bool
    may_sign: bool


def create_form(link: Connection[Any], *, writers_sign: bool) -> None:
    """Make roles, tables and functions in a database that has no ledger yet, in one transaction.

    writers_sign: whether who appends may also insert checkpoints, and so holds the log key; else only the sequencer.
    The connection's role must be able to create roles, and own the database. GovrunError (ledger-unavailable).
    """
    from psycopg import sql

    if link.execute("SELECT to_regnamespace('govrun')").fetchone() != (None,):
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.exists",
            "the database has a schema govrun already",
            expected="a database without one",
            fix="use that ledger, or make another database",
        )
    database = str(link.info.dbname)
    roles = {role: sql.Identifier(role_name(database, role)) for role in ROLES}
    with link.transaction():
        for name in roles.values():
            link.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(name))
        link.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(roles["owner"]))
        link.execute(sql.SQL("CREATE SCHEMA govrun AUTHORIZATION {}").format(roles["owner"]))
        link.execute(sql.SQL("SET LOCAL ROLE {}").format(roles["owner"]))
        for statement in (*form.TABLES, *form.ROWS, *map(form.create_function, form.FUNCTIONS)):
            link.execute(statement.encode())
        _grant(link, roles, writers_sign)
        link.execute("RESET ROLE")
        # Who cannot connect cannot take the locks of leases.
        name = sql.Identifier(database)
        link.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
        for role in ("writer", "sequencer", "reader"):
            link.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, roles[role]))


def make_ready(url: str, wait_ms: int, *, writers_sign: bool) -> str:
    """`create_form` in the database that a URL of its owner leads to; the database's name. GovrunError (15)."""
    link = connect(url, wait_ms, writes=True)
    try:
        create_form(link, writers_sign=writers_sign)
        return str(link.info.dbname)
    except driver().Error as error:
        raise refusal(error) from error
    finally:
        close(link)


def role_name(database: str, role: str) -> str:
    """The name of one of the four roles of the ledger in a database."""
    name = f"{database}_{role}"
    if len(name.encode()) > _MAX_NAME:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.database",
            "the name of the database leaves no room for the names of its roles",
            found=f"{len(name.encode())} bytes for {role}",
            expected=f"at most {_MAX_NAME} bytes",
        )
    return name


def _grant(link: Connection[Any], roles: dict[str, Any], writers_sign: bool) -> None:
    from psycopg import sql

    link.execute("REVOKE ALL ON ALL FUNCTIONS IN SCHEMA govrun FROM PUBLIC")
    for role in ("writer", "sequencer", "reader"):
        link.execute(sql.SQL("GRANT USAGE ON SCHEMA govrun TO {}").format(roles[role]))
        link.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA govrun TO {}").format(roles[role]))
    granted = [("writer", name) for name in form.WRITING] + [("sequencer", name) for name in form.SIGNING]
    if writers_sign:
        granted += [("writer", name) for name in form.SIGNING]
    for role, function in granted:
        statement = sql.SQL("GRANT EXECUTE ON FUNCTION govrun.{} TO {}")
        link.execute(statement.format(sql.Identifier(function), roles[role]))


def check_form(link: Connection[Any]) -> str:
    """The origin of a ledger of this format ("" before its first entry); GovrunError (ledger-unavailable) otherwise.

    Tables, functions with their whole text, unique indexes, and nothing beside them.
    """
    if link.execute("SELECT to_regclass('govrun.meta')").fetchone() == (None,):
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.missing",
            "the database holds no ledger, or shows none to this role",
            expected="one that `govrun ledger prepare` made, and a member of one of its four roles",
            fix="see docs/postgresql.md",
        )
    meta = dict(link.execute("SELECT name, value FROM govrun.meta").fetchall())
    if meta.get("format") != str(form.FORMAT_VERSION):
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.newer",
            "the ledger has another format",
            found=f"format {str(meta.get('format'))[:20]}",
            expected=f"format {form.FORMAT_VERSION}",
            fix="update govrun",
        )
    different = _differences(link)
    if different:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "ledger.form",
            "tables and functions of the ledger are not those of its format",
            found=", ".join(different)[:200],
            expected=f"those of format {form.FORMAT_VERSION} and nothing else",
            fix="see who can change them; restore from the published form, as a new origin",
        )
    return str(meta.get("origin", ""))


def _differences(link: Connection[Any]) -> list[str]:
    columns = dict(link.execute(_SELECT_COLUMNS).fetchall())
    found = [f"table {name}" for name, _ in sorted(set(columns.items()) ^ set(_COLUMNS.items()))]
    functions = {
        name: (body, definer, tuple(settings or ()), language, owned)
        for name, body, definer, settings, language, owned in link.execute(_SELECT_FUNCTIONS).fetchall()
    }
    expected = {
        name: (body, True, form.FUNCTION_SETTINGS, "plpgsql", True) for name, (_, body) in form.FUNCTIONS.items()
    }
    found += [f"function {name}" for name, _ in sorted(set(functions.items()) ^ set(expected.items()))]
    unique = {row[0] for row in link.execute(_SELECT_UNIQUE).fetchall()}
    found += [f"index {name}" for name in sorted(unique ^ _UNIQUE)]
    found += [str(row[0]) for row in link.execute(_SELECT_FOREIGN).fetchall()]
    return list(dict.fromkeys(found))


def check_durable(link: Connection[Any]) -> None:
    """Refuse a server that may lose what it has committed; `synchronous_commit` is set if the role's is weaker."""
    if link.execute("SHOW synchronous_commit").fetchone() not in (("on",), ("remote_apply",)):
        link.execute("SET synchronous_commit = on")
    for name, allowed in _SETTINGS:
        (found,) = link.execute("SELECT current_setting(%s)", (name,)).fetchone() or ("",)
        if found not in allowed:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "ledger.durable",
                "this PostgreSQL does not make entries durable before they are acknowledged",
                found=f"{name} = {found}",
                expected=" or ".join(f"{name} = {value}" for value in allowed),
                fix="change the server's settings",
            )


def check_rights(link: Connection[Any]) -> Rights:
    """What the role may do; GovrunError (ledger-unavailable) for one that could write past the functions."""
    row = link.execute(_SELECT_RIGHTS).fetchone()
    user, is_super, is_owner, writes, may_append, may_sign = row or ("", True, True, True, False, False)
    for wrong, found in ((is_super, "a superuser"), (is_owner, "a member of the owner"), (writes, "may write tables")):
        if wrong:
            raise GovrunError(
                ExitCode.LEDGER_UNAVAILABLE,
                "ledger.rights",
                "this database role could write past the functions of the ledger",
                found=f"{user}: {found}",
                expected="a role that may only execute them",
                fix="connect as a role of its own that is a member of the ledger's writers",
            )
    return Rights(str(user), bool(may_append), bool(may_sign))


def writers_may_sign(link: Connection[Any]) -> bool:
    """Whether some role other than the owner may both append entries and insert checkpoints, as the database says."""
    return link.execute(_SELECT_SIGNERS).fetchone() == (True,)
