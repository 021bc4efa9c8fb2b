"""`govrun verify --disclosure FILE --content FILE`: a verified receipt, and then the content that it commits to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import click

from govrun import canonical
from govrun.audit.report import Report
from govrun.cli.output import look, show_bytes
from govrun.digest import CHUNK, without_waiting
from govrun.disclosure import (
    MAX_DISCLOSURE_BYTES,
    Disclosure,
    Opened,
    open_commitment,
    parse_disclosure,
)
from govrun.errors import ExitCode, GovrunError
from govrun.formats import as_json, as_text, inclusion_json, inclusion_text, opening
from govrun.inclusion import InclusionReport
from govrun.ledger.merkle import inclusion_proof, leaf_hash, verify_inclusion
from govrun.ledger.proof import parse_proof
from govrun.ledger.read import Reader
from govrun.receipt import parse_statement
from govrun.signing.dsse import parse_envelope


def read_disclosure(file: str) -> Disclosure:
    """The disclosure in a file; GovrunError (could-not-check) if it cannot be read."""
    return parse_disclosure(b"".join(_pieces(file, "disclosure", MAX_DISCLOSURE_BYTES + 1)))


def open_from_proof(asked: Disclosure, report: InclusionReport, data: bytes, content: str) -> Opened | GovrunError:
    """The answer for a proof file that was judged; data: its bytes."""
    if any(check.id == "signature" and check.status != "passed" for check in report.checks):
        return _unverified()
    return _open(asked, report, parse_proof(data).leaf, content)


def open_from_ledger(asked: Disclosure, report: Report, reader: Reader, content: str) -> Opened | GovrunError:
    """The answer for a ledger that was verified."""
    if report.exit_code is not ExitCode.SUCCESS or report.root is None:
        return _unverified()
    if asked.index >= report.size:
        return GovrunError(
            ExitCode.LEDGER_INCONSISTENT,
            "disclosure.entry",
            "the disclosure is about an entry that the ledger does not have",
            found=f"entry {asked.index}",
            expected=f"0 to {report.size - 1}",
        )
    leaf = next(iter(reader.leaves(asked.index, asked.index + 1)))[0]
    # The entry is read once more, and must be the one that was verified.
    path = inclusion_proof(asked.index, report.size, reader.hashes)
    verify_inclusion(path, leaf_hash(leaf), bytes.fromhex(report.root))
    return _open(asked, report, leaf, content)


def _open(asked: Disclosure, report: Report | InclusionReport, leaf: bytes, content: str) -> Opened | GovrunError:
    if report.exit_code is not ExitCode.SUCCESS:
        return _unverified()
    try:
        return open_commitment(
            asked, parse_statement(parse_envelope(leaf).payload), leaf, _pieces(content, "content", None)
        )
    except GovrunError as error:
        return error


def _unverified() -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK,
        "disclosure.receipt",
        "the receipt was not verified, so what it commits to was not compared",
        fix="bring the keys that the report misses",
    )


def _pieces(file: str, rule: str, most: int | None) -> Iterator[bytes]:
    """The bytes of a regular file, at most so many."""
    try:
        with open(file, "rb", buffering=0, opener=without_waiting) as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise _unreadable(rule, "another kind of file")
            if most is not None:
                yield source.read(most)
                return
            while piece := source.read(CHUNK):
                yield piece
    except OSError as error:
        raise _unreadable(rule, error.strerror) from error


def _unreadable(rule: str, found: str | None) -> GovrunError:
    return GovrunError(
        ExitCode.COULD_NOT_CHECK,
        f"{rule}.readable",
        f"the {rule} cannot be read",
        found=found,
        expected="a readable regular file",
    )


def conclude_disclosed(
    asked: Disclosure, report: Report | InclusionReport, result: Opened | GovrunError, form: str
) -> int:
    """Show the report and the answer on stdout; the exit code, which is the report's unless that is a yes."""
    code = report.exit_code
    if code is ExitCode.SUCCESS and isinstance(result, GovrunError):
        code = result.code
    if form == "json":
        inner = inclusion_json.to_object(report) if isinstance(report, InclusionReport) else as_json.to_object(report)
        show_bytes(canonical.encode(opening.to_object(asked, result, code, inner)) + b"\n")
    else:
        if isinstance(report, InclusionReport):
            click.echo(inclusion_text.render(report, **look()))
        else:
            click.echo(as_text.render(report, **look()))
        click.echo("\n".join(opening.lines(asked, result, code)))
    return int(code)
