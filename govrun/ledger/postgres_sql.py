"""The form of a ledger in PostgreSQL, as SQL: tables, and the only functions that write to them.

    entry        idx -> leaf, the exact bytes of an envelope
    node         position -> hash, the list that `merkle` describes
    checkpoint   size -> signed note
    entry_index  idx -> query columns, rebuildable from the leaf
    open_intent  idx -> invocation id of each intent without outcome or gap, rebuildable
    head         one row: how many entries, the last leaf hash, the size of the newest checkpoint
    meta         origin, format

A role that owns nothing and may only execute `hold` and `append` can add entries behind the head and nothing else:
`append` compares the head it is given with the one there is, and computes every hash of the tree itself. Whoever owns
the tables, or is superuser, can change all of it; that only signed checkpoints show.
"""

from __future__ import annotations

from typing import Final

SCHEMA: Final = "govrun"
FORMAT_VERSION: Final = 1

# What is refused inside a function; the class is none that PostgreSQL uses itself.
NOT_DURABLE: Final = "GV001"
OTHER_HEAD: Final = "GV002"
MALFORMED: Final = "GV003"

TABLES: Final = (
    "CREATE TABLE govrun.checkpoint (size bigint PRIMARY KEY, note bytea NOT NULL)",
    "CREATE TABLE govrun.entry (idx bigint PRIMARY KEY, leaf bytea NOT NULL)",
    "CREATE TABLE govrun.entry_index (idx bigint PRIMARY KEY, kind text NOT NULL, invocation_id text, request_id text,"
    " backend text, task text, agent text, status text, reason text, intent bigint, stated_on text NOT NULL)",
    "CREATE TABLE govrun.head (one boolean PRIMARY KEY CHECK (one), size bigint NOT NULL, last bytea NOT NULL,"
    " signed bigint NOT NULL)",
    "CREATE TABLE govrun.meta (name text PRIMARY KEY, value text NOT NULL)",
    "CREATE TABLE govrun.node (position bigint PRIMARY KEY, hash bytea NOT NULL)",
    "CREATE TABLE govrun.open_intent (idx bigint PRIMARY KEY, invocation_id text NOT NULL)",
    # One outcome and one gap for each intent.
    "CREATE UNIQUE INDEX entry_answer ON govrun.entry_index (intent, kind) WHERE intent IS NOT NULL",
    # A request id is claimed by the one intent that bears it; a denial does not use it up.
    "CREATE UNIQUE INDEX entry_request ON govrun.entry_index (request_id)"
    " WHERE request_id IS NOT NULL AND kind = 'intent'",
)

ROWS: Final = (
    f"INSERT INTO govrun.meta VALUES ('format', '{FORMAT_VERSION}')",  # noqa: S608 - a constant
    "INSERT INTO govrun.head VALUES (true, 0, '\\x{}', 0)".format("00" * 32),  # noqa: S608 - a constant
)

# Writers queue for the head row: its lock ends with the transaction, whatever becomes of the client.
_HOLD: Final = """
DECLARE
  idle text := current_setting('idle_in_transaction_session_timeout');
BEGIN
  IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') OR current_setting('fsync') <> 'on'
    OR current_setting('full_page_writes') <> 'on' THEN
    RAISE EXCEPTION 'commits are not durable' USING ERRCODE = 'GV001';
  END IF;
  IF idle = '0' OR idle::interval > interval '10 minutes' THEN
    PERFORM set_config('idle_in_transaction_session_timeout', '1min', true);
  END IF;
  SELECT h.size, h.last, h.signed INTO STRICT held_size, held_last, held_signed
    FROM govrun.head h WHERE h.one FOR UPDATE;
END
"""

# c(s) = 2s - popcount(s) is the number of stored hashes of a tree of s leaves (SPEC, "Leaf, chain, tree").
_APPEND: Final = """
DECLARE
  here govrun.head%ROWTYPE;
  spot bigint;
  level integer;
  made bytea;
  leaf_hash bytea;
  beside bytea;
  used integer := 0;
  fields record;
BEGIN
  IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
    RAISE EXCEPTION 'commits are not durable' USING ERRCODE = 'GV001';
  END IF;
  SELECT h.* INTO STRICT here FROM govrun.head h WHERE h.one FOR UPDATE;
  IF here.size IS DISTINCT FROM head_size OR here.last IS DISTINCT FROM head_last THEN
    RAISE EXCEPTION 'the head is another one' USING ERRCODE = 'GV002', DETAIL = here.size::text;
  END IF;
  IF coalesce(array_length(leaves, 1), 0) = 0 OR array_length(leaves, 1) > 4096
    OR jsonb_array_length(fields_of) IS DISTINCT FROM array_length(leaves, 1) THEN
    RAISE EXCEPTION 'not one row of columns for each leaf' USING ERRCODE = 'GV003';
  END IF;
  FOR n IN 1 .. array_length(leaves, 1) LOOP
    IF leaves[n] IS NULL OR octet_length(leaves[n]) NOT BETWEEN 1 AND 65535 THEN
      RAISE EXCEPTION 'a leaf of a size that no entry has' USING ERRCODE = 'GV003';
    END IF;
    leaf_hash := sha256('\\x00'::bytea || leaves[n]);
    made := leaf_hash;
    spot := 2 * here.size - bit_count(int8send(here.size));
    level := 0;
    LOOP
      used := used + 1;
      IF made IS DISTINCT FROM grown[used] THEN
        RAISE EXCEPTION 'another hash than that of the leaves' USING ERRCODE = 'GV003';
      END IF;
      INSERT INTO govrun.node VALUES (spot + level, made);
      EXIT WHEN (here.size >> level) & 1 = 0;
      -- The complete subtree to the left, whose last leaf is 2^level before this one.
      SELECT o.hash INTO STRICT beside FROM govrun.node o WHERE o.position =
        2 * (here.size - (1::bigint << level)) - bit_count(int8send(here.size - (1::bigint << level))) + level;
      made := sha256('\\x01'::bytea || beside || made);
      level := level + 1;
    END LOOP;
    INSERT INTO govrun.entry VALUES (here.size, leaves[n]);
    SELECT r.* INTO STRICT fields FROM jsonb_to_record(fields_of -> (n - 1)) AS r(kind text, invocation_id text,
      request_id text, backend text, task text, agent text, status text, reason text, intent bigint, stated_on text);
    INSERT INTO govrun.entry_index VALUES (here.size, fields.kind, fields.invocation_id, fields.request_id,
      fields.backend, fields.task, fields.agent, fields.status, fields.reason, fields.intent, fields.stated_on);
    IF fields.kind = 'intent' THEN
      INSERT INTO govrun.open_intent VALUES (here.size, fields.invocation_id);
    END IF;
    IF fields.intent IS NOT NULL THEN
      PERFORM 1 FROM govrun.entry_index x WHERE x.idx = fields.intent AND x.kind = 'intent';
      IF NOT FOUND THEN
        RAISE EXCEPTION 'an answer to what is no intent' USING ERRCODE = 'GV003';
      END IF;
      DELETE FROM govrun.open_intent o WHERE o.idx = fields.intent;
    END IF;
    here.size := here.size + 1;
    here.last := leaf_hash;
  END LOOP;
  IF used IS DISTINCT FROM array_length(grown, 1) THEN
    RAISE EXCEPTION 'another number of hashes than the tree grows by' USING ERRCODE = 'GV003';
  END IF;
  UPDATE govrun.head h SET size = here.size, last = here.last WHERE h.one;
END
"""

_SIGN: Final = """
DECLARE
  here govrun.head%ROWTYPE;
  begins bytea;
BEGIN
  SELECT h.* INTO STRICT here FROM govrun.head h WHERE h.one FOR UPDATE;
  SELECT convert_to(m.value || E'\\n' || tree_size || E'\\n', 'UTF8') INTO STRICT begins
    FROM govrun.meta m WHERE m.name = 'origin';
  IF tree_size IS NULL OR tree_size <= here.signed OR tree_size > here.size THEN
    RAISE EXCEPTION 'a checkpoint of a size that is not between the last one and the head'
      USING ERRCODE = 'GV002', DETAIL = here.size::text;
  END IF;
  IF note IS NULL OR octet_length(note) > 65536
    OR substring(note FROM 1 FOR octet_length(begins)) IS DISTINCT FROM begins THEN
    RAISE EXCEPTION 'a note of another origin or size' USING ERRCODE = 'GV003';
  END IF;
  INSERT INTO govrun.checkpoint VALUES (tree_size, note);
  UPDATE govrun.head h SET signed = tree_size WHERE h.one;
END
"""

_BEGIN: Final = """
BEGIN
  PERFORM 1 FROM govrun.head h WHERE h.one AND h.size = 0 FOR UPDATE;
  IF NOT FOUND OR origin IS NULL OR origin = '' THEN
    RAISE EXCEPTION 'the ledger has begun' USING ERRCODE = 'GV002';
  END IF;
  INSERT INTO govrun.meta VALUES ('origin', origin);
  PERFORM govrun.append(0, (SELECT h.last FROM govrun.head h), leaves, grown, fields_of);
END
"""

# name -> (arguments and result, body)
FUNCTIONS: Final[dict[str, tuple[str, str]]] = {
    "append": (
        "(head_size bigint, head_last bytea, leaves bytea[], grown bytea[], fields_of jsonb) RETURNS void",
        _APPEND,
    ),
    "begin_ledger": ("(origin text, leaves bytea[], grown bytea[], fields_of jsonb) RETURNS void", _BEGIN),
    "hold": ("(OUT held_size bigint, OUT held_last bytea, OUT held_signed bigint)", _HOLD),
    "sign": ("(tree_size bigint, note bytea) RETURNS void", _SIGN),
}
# What writers execute, and what only those execute who hold the log key.
WRITING: Final = ("append", "hold")
SIGNING: Final = ("begin_ledger", "hold", "sign")

# A function of an owner must find what it names where the owner put it.
FUNCTION_SETTINGS: Final = ("search_path=pg_catalog, pg_temp",)


def create_function(name: str) -> str:
    """The statement that makes a function of the form."""
    declared, body = FUNCTIONS[name]
    return (
        f"CREATE FUNCTION govrun.{name}{declared} LANGUAGE plpgsql SECURITY DEFINER"
        f" SET search_path = pg_catalog, pg_temp AS $govrun${body}$govrun$"
    )
