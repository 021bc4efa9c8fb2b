"""What the commands that read a ledger share: which one, whose keys count, and how a verdict is shown."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from govrun.audit.question import Question, Remembered
from govrun.audit.report import Report
from govrun.audit.trust import TrustedKeys, trusted_by
from govrun.cli.bookmark_file import read_bookmark, write_bookmark
from govrun.cli.common import find_settings
from govrun.cli.kept_policies import kept_policies
from govrun.cli.one_ledger import allow_http_option, beside
from govrun.cli.output import look, note, progress, show_bytes
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import frozen
from govrun.home import Trust, load_trust, read_trust_files
from govrun.ledger.checkpoint import parse_checkpoint, verify_checkpoint
from govrun.ledger.guard import heads_directory, notes_of
from govrun.ledger.read import Reader, kind_of, open_ledger
from govrun.policy import Policy
from govrun.settings import KEY_FILE, load_settings, read_small
from govrun.signing.keys import Verifier, parse_vkey
from govrun.signing.note import parse_note
from govrun.world import World, parse_instant, real_world

if TYPE_CHECKING:
    from govrun.ledger.read_postgres import PostgresReader

Command = TypeVar("Command", bound=Callable[..., Any])


@frozen
class Reading:
    """A ledger that is open for reading, and what its verifier brings along."""

    reader: Reader
    trusted: TrustedKeys | None
    question: Question
    policy: Path | None
    policies: tuple[Policy, ...]


def audit_options(command: Command) -> Command:
    """What `verify` and `audit` share."""
    for option in (
        click.argument("ledger", required=False),
        click.option("--home", metavar="DIR", help="The .govrun whose ledger to read when none is named."),
        click.option("--workers", type=click.IntRange(1, 256), help="Processes to use (default: one per core)."),
        click.option("--at", metavar="TIME", help="Judge deadlines as of this instant (default: now)."),
        click.option(
            "--require",
            type=click.Choice(["keyed", "pinned", "complete"]),
            multiple=True,
            help="Evidence that must be there: trusted keys, a pinned checkpoint, an end for every invocation.",
        ),
        allow_http_option,
        click.option("--full", is_flag=True, help="Read every entry, whatever a bookmark vouches for."),
        click.option(
            "--bookmark", metavar="FILE", help="Read only what is new since the last yes that this file keeps."
        ),
        click.option("--checkpoint", metavar="FILE", help="A checkpoint that you kept: the ledger must extend it."),
        trust_options,
    ):
        command = option(command)
    return command


def trust_options(command: Command) -> Command:
    """Whose keys count: --key, or --trust."""
    for option in (
        click.option("--trust", "trust_file", metavar="FILE", help="A trust file (default: yours for this origin)."),
        click.option("--key", "keys", metavar="VKEY", multiple=True, help="A key you trust, instead of a trust file."),
    ):
        command = option(command)
    return command


@contextlib.contextmanager
def open_reading(options: Mapping[str, Any]) -> Iterator[Reading]:
    """Open the ledger that the options name, with the keys, pins and policies that belong to the question."""
    world = real_world()
    location, home = _locate(options, world)
    reader = open_ledger(location, allow_http=options["allow_http"], world=world)
    try:
        remembered = _remembered(reader.origin, _may_lag(options, location), world)
        if remembered is not None and not remembered.may_lag and _is_ahead(remembered, reader):
            # A run may have appended since. What the guard remembers was in the ledger before, so a new look has it.
            reader.close()
            reader = open_ledger(location, allow_http=options["allow_http"], world=world)
        trust, trusted = whom_to_trust(options, reader.origin, world, home if options.get("ledger") is None else None)
        yield Reading(
            reader=reader,
            trusted=trusted,
            question=_question(options, reader, world, trust, remembered, _near(location, home)),
            policy=None if home is None else home / "policy.toml",
            policies=tuple(kept_policies(location, home)),
        )
    finally:
        reader.close()


def _locate(options: Mapping[str, Any], world: World) -> tuple[str, Path | None]:
    named = options.get("ledger")
    if named is None:
        _, settings = find_settings({"home": options.get("home")}, world)
        return str(settings.ledger), settings.home
    near = beside(named)
    return named, near if near is not None and (near / "ledger.sqlite").exists() else None


def whom_to_trust(
    options: Mapping[str, Any], origin: str, world: World, home: Path | None = None
) -> tuple[Trust | None, TrustedKeys | None]:
    """The trust file that decides, if one does, and the keys that count for the log origin.

    home: the home whose own ledger is read.
    """
    trust = _trust_file(options, origin, world, home)
    if trust is not None:
        return trust, trusted_by(trust)
    if options["keys"]:
        return None, _by_role(tuple(parse_vkey(text) for text in options["keys"]), origin)
    return None, None


def log_keys(options: Mapping[str, Any], origin: str, home: Path | None) -> TrustedKeys:
    """The keys that count for the log origin, a log key among them; GovrunError (could-not-check) if there is none."""
    _, trusted = whom_to_trust(options, origin, real_world(), home)
    if trusted is None or not trusted.log:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "assurance.unauthenticated",
            "no trusted log key was given",
            found="only keys that the ledger names itself",
            expected="--key, --trust, or a trust file of yours for this origin",
        )
    return trusted


def head_key(trusted: TrustedKeys, reader: Reader) -> Verifier:
    """The trusted key that signed the head; GovrunError (signature-untrusted, ledger-inconsistent) if none did."""
    note = reader.checkpoint() or b""
    verify_checkpoint(note, trusted.origin or reader.origin, trusted.log)
    for verifier in trusted.log:
        with contextlib.suppress(GovrunError):  # signed by another of them
            verify_checkpoint(note, verifier.name, [verifier])
            return verifier
    raise AssertionError("what all keys verify together, one of them verifies")


def _trust_file(options: Mapping[str, Any], origin: str, world: World, home: Path | None) -> Trust | None:
    """The trust file that decides: the named one, that of the home whose own ledger is read, that of the origin."""
    if options["keys"] and options["trust_file"]:
        raise click.UsageError("--key and --trust exclude each other")
    if options["trust_file"]:
        return load_trust(Path(options["trust_file"]))
    if options["keys"]:
        return None
    known = read_trust_files(world)
    if home is not None:
        # What lies at the home's own place is judged by that home's keys, whatever origin it claims to have.
        real = Path(os.path.realpath(home))
        own = next((trust for trust in known if trust.home == real), None)
        if own is not None:
            return own
    return next((trust for trust in known if trust.origin == origin), None)


def _by_role(verifiers: tuple[Any, ...], origin: str) -> TrustedKeys:
    """A key's name tells its role: the origin itself for the log key, `/receipt` and `/root` behind it."""
    unknown = [v.name for v in verifiers if v.name not in (origin, f"{origin}/receipt", f"{origin}/root")]
    if unknown:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "trust.name",
            "a key is for another ledger",
            found=unknown[0],
            expected=f"{origin}, {origin}/receipt or {origin}/root",
        )
    return TrustedKeys(
        log=tuple(v for v in verifiers if v.name == origin),
        receipt=tuple(v for v in verifiers if v.name == f"{origin}/receipt"),
        root=tuple(v for v in verifiers if v.name == f"{origin}/root"),
        origin=origin,
    )


def _may_lag(options: Mapping[str, Any], location: str) -> bool:
    """Whether what is read may be an older copy: anything but the ledger that a home's runs go on writing."""
    near = beside(location)
    return options.get("ledger") is not None and (near is None or not (near / "config.toml").exists())


def _remembered(origin: str, may_lag: bool, world: World) -> Remembered | None:
    try:
        notes = notes_of(heads_directory(world.environ), origin)
    except GovrunError as error:
        # Nothing can be remembered without a place for it, and then nothing was.
        return None if error.rule == "guard.place" else Remembered(problem=error.found, may_lag=may_lag)
    return Remembered(notes, None, may_lag) if notes else None


def _is_ahead(remembered: Remembered, reader: Reader) -> bool:
    return any(_size_of(note) > reader.size for note in remembered.notes)


def _size_of(note: bytes) -> int:
    try:
        return parse_checkpoint(parse_note(note).text).size
    except GovrunError:
        return 0


def _question(
    options: Mapping[str, Any],
    reader: Reader,
    world: World,
    trust: Trust | None,
    remembered: Remembered | None,
    near: Path | None,
) -> Question:
    database = shared_ledger(reader)
    if options["full"] and options["bookmark"] is None:
        raise click.UsageError("--full goes with --bookmark")
    return Question(
        pinned=pin_of(options["checkpoint"], trust),
        bookmark=None if options["bookmark"] is None else read_bookmark(options["bookmark"]),
        read_all=options["full"],
        keep=options["bookmark"] is not None,
        remembered=remembered,
        require=options["require"],
        at=_instant(options["at"], world),
        is_running=_running(near, database),
        workers=options["workers"] or len(os.sched_getaffinity(0)),
        progress=progress("verifying"),
        writers_hold_log_key=(lie := None if near is None else _keys_lie(near, world)) is not None,
        keys_lie=lie or "",
        writers_may_sign=None if database is None else database.writers_may_sign(),
    )


def _keys_lie(home: Path, world: World) -> str | None:
    """How who writes from this home can sign checkpoints too, in words; None where no key of it is to be seen."""
    places = {role: _key_lies(home, role, world) for role in ("log", "receipt")}
    if None in places.values():
        return None
    if set(places.values()) == {"file"}:
        return "all keys lie in one .govrun, so who holds it"
    words = {
        "file": "in a file of this .govrun",
        "encrypted": "in an encrypted file of this .govrun",
        "agent": "in an ssh-agent that writers ask",
    }
    log, receipt = (words[str(places[role])] for role in ("log", "receipt"))
    where = f"both keys are {log}" if log == receipt else f"the log key is {log} and the receipt key {receipt}"
    return f"{where}, so who can use both"


def _key_lies(home: Path, role: str, world: World) -> str | None:
    """Whether a home's key is in a plain file, an encrypted one, or an agent; None when it is not to be seen."""
    with contextlib.suppress(GovrunError):  # a config that only its owner may use is no reason not to verify
        settings = load_settings(Path(os.path.abspath(home)), world.environ, {})
        if (settings.signer if role == "receipt" else settings.log_signer) != KEY_FILE:
            return "agent"
    path = home / "keys" / f"{role}.key"
    if not path.exists():
        return None
    try:
        # Who may not read the key may still verify: it is there, and says nothing more.
        return "encrypted" if path.read_bytes()[:40].startswith(b"-----BEGIN OPENSSH") else "file"
    except OSError:
        return "file"


def _near(location: str, home: Path | None) -> Path | None:
    """Where keys and leases of the ledger would be on this machine; of a database, in the home whose ledger it is."""
    return home if kind_of(location) == "postgres" else beside(location)


def shared_ledger(reader: Reader) -> PostgresReader | None:
    """The reader, when it reads a ledger in a database, which knows what no other form does."""
    if "govrun.ledger.read_postgres" not in sys.modules:
        return None
    from govrun.ledger.read_postgres import PostgresReader

    return reader if isinstance(reader, PostgresReader) else None


def pin_of(file: str | None, trust: Trust | None) -> bytes | None:
    """The pinned checkpoint: the named file, or the trust file's."""
    if file is None:
        return None if trust is None or trust.checkpoint is None else trust.checkpoint.encode()
    return read_checkpoint(file)


def read_checkpoint(file: str) -> bytes:
    """The bytes of a checkpoint that was kept in a file."""
    data = read_small(Path(file), "checkpoint")
    if data is None:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK,
            "checkpoint.missing",
            "the pinned checkpoint cannot be read",
            found=f"no {Path(file).name}",
            expected="a checkpoint that `govrun ledger checkpoint` printed",
        )
    return data


def _instant(text: str | None, world: World) -> str:
    if text is None:
        return world.now()
    try:
        parse_instant(text)
    except ValueError as error:
        example = "2026-11-22T12:00:00.000Z"
        raise click.BadParameter(f"{text!r}, expected an instant such as {example}", param_hint="--at") from error
    return text


def _running(home: Path | None, database: PostgresReader | None) -> Callable[[str], bool | None] | None:
    if database is not None:
        return database.is_running
    if home is None or not (home / "leases").is_dir():
        return None
    from govrun.ledger.lease import LEASES_DIRECTORY, is_held

    def ask(invocation_id: str) -> bool | None:
        try:
            return is_held(home / LEASES_DIRECTORY, invocation_id)
        except OSError:
            # Another user's lease: whether it is held cannot be known from here, and the report says so.
            return None

    return ask


def conclude(report: Report, form: str, bookmark: str | None = None) -> int:
    """Keep what a yes left for the bookmark, and show the report on stdout; the exit code of its verdict."""
    if bookmark is not None and report.bookmark is not None:
        write_bookmark(bookmark, report.bookmark)
    if form == "json":
        from govrun.formats import as_json

        show_bytes(as_json.render(report))
    else:
        from govrun.formats import as_text

        click.echo(as_text.render(report, **look()), nl=False)
        rules = {finding.rule for finding in report.findings}
        if "assurance.unauthenticated" in rules and report.exit_code is ExitCode.COULD_NOT_CHECK:
            note("name the keys that you trust: --trust FILE or --key VKEY, as its operator gave them to you")
    return int(report.exit_code)
