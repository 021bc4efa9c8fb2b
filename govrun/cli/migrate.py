"""`govrun ledger migrate`: the same ledger at another place, verified there before it has its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from govrun.audit.report import Report
from govrun.audit.trust import TrustedKeys
from govrun.cli.one_ledger import allow_http_option, beside
from govrun.cli.output import note, progress, show_json
from govrun.cli.reading import head_key, log_keys, trust_options
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.checkpoint import VerifiedCheckpoint, verify_checkpoint
from govrun.ledger.read import Reader, open_ledger
from govrun.world import World, real_world

# What lies beside a ledger and belongs to it without being part of it.
_ALONG = ("salts", "refusals.json", "policies")


@click.command("migrate")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@allow_http_option
@trust_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def migrate(source: str, target: str, allow_http: bool, as_json: bool, **trust: Any) -> None:
    """Copy the ledger FROM to TO: leaves byte for byte, tree, checkpoints.

    FROM is anything that can be read, TO a new SQLite file or the URL of a prepared PostgreSQL database. The copy is
    verified under the keys you trust. It is the same ledger at another place: from then on only one of the two may be
    written, and the first run at either makes the other one refused.
    """
    from govrun.ledger.guard import Guard, heads_directory

    world = real_world()
    reader = open_ledger(source, allow_http=allow_http, world=world)
    try:
        trusted = log_keys(trust, reader.origin, None)
        verifier = head_key(trusted, reader)
        head = verify_checkpoint(reader.checkpoint() or b"", verifier.name, [verifier])
        guard = Guard(heads_directory(world.environ), verifier, world)
        guard.check(head.checkpoint, reader.hashes)
        near = beside(source)
        _check_at_rest(near)
        report = _copy(reader, head, trusted, target, world, lambda: _head_now(source, allow_http, world))
        guard.merge(head)
    finally:
        reader.close()
    if as_json:
        show_json({"from": source, "to": target, "origin": report.origin, "size": report.size, "rootHash": report.root})
        return
    note(f"migrated {report.size} entries to {target}, verified there; it is the same ledger at another place")
    for line in _to_do(near, target):
        note(line)


def _copy(
    reader: Reader,
    head: VerifiedCheckpoint,
    trusted: TrustedKeys,
    target: str,
    world: World,
    head_now: Callable[[], bytes | None],
) -> Report:
    from govrun.ledger.migrate import copied_to_file, copy_to_database

    def look_again() -> None:
        if head_now() != head.note:
            raise _refused(
                "migrate.grew",
                "the ledger was written while it was copied",
                "another head than before",
                "a ledger that nothing writes",
                "end what runs there, and migrate again",
            )

    if target.startswith("postgresql://"):
        copy_to_database(reader, head.checkpoint, target, world, look_again, progress("copying"))
        return _verified(target, head, trusted, "the database has a copy that must not be used")
    if "://" in target or os.path.isdir(target):
        raise click.BadParameter("expected the name of a new SQLite file, or a PostgreSQL URL", param_hint="TO")
    with copied_to_file(reader, head.checkpoint, Path(target), world, progress("copying")) as made:
        report = _verified(str(made), head, trusted, "nothing was left behind")
        look_again()
    return report


def _verified(location: str, head: VerifiedCheckpoint, trusted: TrustedKeys, effect: str) -> Report:
    """The report about the copy, once that is seen to be what was asked for; effect: what a refusal leaves."""
    from govrun.audit.question import Question
    from govrun.audit.verify import verify_ledger

    copy = open_ledger(location)
    try:
        question = Question(workers=len(os.sched_getaffinity(0)), progress=progress("verifying"))
        report = verify_ledger(copy, trusted, question)
    finally:
        copy.close()
    is_whole = (report.integrity, report.root) == ("intact", head.checkpoint.root.hex())
    if is_whole and report.assurance != "unauthenticated":
        return report
    raise GovrunError(
        report.exit_code if report.exit_code is not ExitCode.SUCCESS else ExitCode.COULD_NOT_CHECK,
        "migrate.unverified",
        "the ledger does not verify, so it is not migrated",
        found=f"integrity {report.integrity}, assurance {report.assurance}",
        expected="an intact ledger that trusted keys signed",
        fix="run `govrun verify` on it",
        effect=effect,
    )


def _head_now(source: str, allow_http: bool, world: World) -> bytes | None:
    reader = open_ledger(source, allow_http=allow_http, world=world)
    try:
        return reader.checkpoint()
    finally:
        reader.close()


def _check_at_rest(near: Path | None) -> None:
    """Refuse while something of the ledger is under way where it lies: it would still be written to the old one."""
    from govrun.ledger.lease import LEASES_DIRECTORY, is_held
    from govrun.ledger.pending import PENDING_DIRECTORY

    if near is None:
        return
    waiting = sorted(path.name for path in (near / PENDING_DIRECTORY).glob("*.json"))
    if waiting:
        raise _refused(
            "migrate.pending",
            "an outcome waits to be appended",
            waiting[0],
            "a ledger that nothing is to be added to",
            "the next `govrun run` appends it; migrate after that",
        )
    try:
        leases = near / LEASES_DIRECTORY
        running = [path.name for path in leases.glob("[0-9a-f]" * 32) if is_held(leases, path.name)]
    except OSError as error:
        raise _refused(
            "migrate.leases",
            "whether something runs cannot be seen",
            error.strerror or "an error",
            "leases of your own",
            "migrate as the user who runs govrun",
        ) from error
    if running:
        raise _refused(
            "migrate.running",
            "an invocation is running",
            running[0],
            "a ledger that nothing writes",
            "migrate when it has ended",
        )


def _to_do(near: Path | None, target: str) -> list[str]:
    """What the user has to do now, in this order."""
    is_file = "://" not in target
    place = str(Path(target).absolute()) if is_file else target
    has_moved = is_file and near is not None and os.path.realpath(near) != os.path.realpath(os.path.dirname(place))
    along = [name for name in _ALONG if has_moved and near is not None and (near / name).exists()]
    lines = [
        f'let runs use it: ledger = "{place}" in config.toml, or GOVRUN_LEDGER',
        *([f"move beside it what belongs to it: {', '.join(along)}"] if along else []),
        "let nothing write the old one any more; as it is, it is a backup that ends here",
    ]
    return [f"  {number}. {line}" for number, line in enumerate(lines, 1)]


def _refused(rule: str, what: str, found: str, expected: str, fix: str) -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK, rule, what, found=found, expected=expected, fix=fix, effect="nothing was left behind"
    )
