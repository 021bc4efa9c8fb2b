"""`govrun ledger erase`: nobody can check any more what one invocation was given and what it gave."""

from __future__ import annotations

from pathlib import Path

import click

from govrun.cli.one_ledger import Source, directory_of, leaf_at, ledger_options, reading, salts_of
from govrun.cli.output import note
from govrun.errors import ExitCode, GovrunError
from govrun.ledger.pending import PENDING_DIRECTORY
from govrun.ledger.read import Reader
from govrun.receipt import Statement, parse_statement
from govrun.signing.dsse import parse_envelope


@click.command("erase")
@click.argument("index", type=click.IntRange(0))
@ledger_options
@click.option("--yes", "confirmed", is_flag=True, help="Erase. It cannot be undone.")
def erase(index: int, source: Source, confirmed: bool) -> None:
    """Erase the salt of the invocation at INDEX, at its intent and at its outcome.

    Nothing of it can be disclosed or compared any more; the ledger, its signatures and proofs stay as they are.
    Disclosures handed out before, and copies of the salts, are not reached.
    """
    salts = salts_of(source)
    with reading(source) as reader:
        indexes = _indexes(reader, index, directory_of(source))
    held = [one for one in indexes if salts.read(one) is not None]
    named = " and ".join(map(str, indexes))
    if not held:
        note(f"entries {named}: no salt is there, so there is nothing to erase")
        return
    if not confirmed:
        raise click.UsageError(f"this would erase the salt of entries {named}, for good; say --yes")
    for one in held:
        salts.erase(one)
    note(f"erased the salt of entries {named}; what they commit to can no longer be checked")


def _indexes(reader: Reader, index: int, directory: Path) -> tuple[int, ...]:
    """The entries that share the salt of the one at index."""
    asked = _statement(leaf_at(reader, index))
    if asked.kind == "denied":
        return (index,)
    if asked.kind == "outcome":
        announced = int(asked.predicate["intent"]["index"])
        if not _is_of(_statement(leaf_at(reader, announced)), asked):
            raise _refused(
                "erase.intent", "entry and intent do not belong together", f"entry {announced}", "its intent"
            )
        return announced, index
    if asked.kind != "intent":
        raise _refused(
            "erase.kind", "only an invocation or a refusal has a salt", asked.kind, "intent, outcome, denied"
        )
    later = (_statement(leaf) for batch in reader.leaves(index + 1, reader.size) for leaf in batch)
    answers = [
        (at, statement)
        for at, statement in enumerate(later, index + 1)
        if statement.kind in ("outcome", "gap") and (statement.predicate["intent"] or {}).get("index") == index
    ]
    outcome = next((at for at, statement in answers if _is_of(statement, asked)), None)
    if outcome is not None:
        return index, outcome
    pending = directory / PENDING_DIRECTORY
    if not answers or any(pending.glob(f"{asked.predicate['invocationId']}*")):
        # An outcome that is still to come brings the salt along.
        raise _refused("erase.open", "the invocation has no outcome yet", f"entry {index} is open", "its outcome")
    return (index,)


def _is_of(one: Statement, other: Statement) -> bool:
    """Whether two entries are the intent and the outcome of one invocation."""
    same_id = one.predicate.get("invocationId") == other.predicate["invocationId"]
    return bool(same_id) and {one.kind, other.kind} == {"intent", "outcome"}


def _statement(leaf: bytes) -> Statement:
    return parse_statement(parse_envelope(leaf).payload)


def _refused(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK, rule, what, found=found, expected=expected, effect="nothing was erased"
    )
