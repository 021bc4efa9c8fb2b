"""`govrun audit`: verify a ledger, then judge every receipt by a policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from govrun.cli.reading import audit_options, conclude, open_reading
from govrun.errors import ExitCode, GovrunError
from govrun.policy import Policy, parse_policy


@click.command("audit")
@audit_options
@click.option("--policy", "policy_file", metavar="FILE", help="The auditor's policy (default: the home's).")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to report."
)
def command(policy_file: str | None, form: str, **options: Any) -> None:
    """Verify a ledger, then judge every invocation by the auditor's policy and by the one then in force.

    A refusal that was recorded is no violation. Exit code 0 is yes, 42 a violation, 40-45 as `govrun verify`.
    """
    from govrun.audit.verify import audit_ledger
    from govrun.settings import read_small

    with open_reading(options) as reading:
        path = Path(policy_file) if policy_file is not None else reading.policy
        data = None if path is None else read_small(path, "policy")
        if data is None or path is None:
            raise GovrunError(
                ExitCode.COULD_NOT_CHECK,
                "policy.missing",
                "there is no policy to judge by",
                found="none" if path is None else f"no {path.name}",
                expected="--policy FILE",
            )
        report = audit_ledger(
            reading.reader, reading.trusted, _parse(data, path.name), reading.question, reading.policies
        )
    sys.exit(conclude(report, form, options["bookmark"]))


def _parse(data: bytes, name: str) -> Policy:
    """The auditor's policy; one that is not whole keeps a verdict from being reached (could-not-check)."""
    try:
        return parse_policy(data, name)
    except GovrunError as error:
        raise GovrunError(
            ExitCode.COULD_NOT_CHECK, error.rule, error.what, found=error.found, expected=error.expected, fix=error.fix
        ) from error
