"""`govrun ledger publish`: static files that any web server serves, from a ledger wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from govrun.cli.one_ledger import Source, ledger_options, reading
from govrun.cli.output import note, progress, show_json
from govrun.cli.reading import head_key, log_keys, trust_options


@click.command("publish")
@click.argument("directory")
@ledger_options
@trust_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def publish(directory: str, source: Source, as_json: bool, **trust: Any) -> None:
    """Publish the ledger as static files (C2SP tlog-tiles) for any web server; again touches only what changed.

    From a URL or a published directory this makes a mirror. The head must be signed by a trusted log key, and every
    hash is computed again.
    """
    from govrun.ledger.publish import publish as write

    with reading(source) as reader:
        verifier = head_key(log_keys(trust, reader.origin, source.own_home), reader)
        done = write(reader, Path(directory), verifier, progress("publishing"))
    if as_json:
        show_json({"directory": directory, "size": done.size, "since": done.since, "written": done.written})
        return
    note(f"published {done.size} entries, {done.size - done.since} of them new: {done.written} files written")
