"""`govrun ledger disclose`: hand out what opens one field of one receipt."""

from __future__ import annotations

import click

from govrun.cli.one_ledger import Source, leaf_at, ledger_options, reading, salts_of
from govrun.cli.output import note, show_bytes
from govrun.disclosure import commitments_of, format_disclosure
from govrun.disclosure import disclose as open_field
from govrun.receipt import parse_statement
from govrun.signing.dsse import parse_envelope


@click.command("disclose")
@click.argument("index", type=click.IntRange(0))
@click.argument("field")
@ledger_options
def disclose(index: int, field: str, source: Source) -> None:
    """Hand out the salt of one FIELD of the receipt at INDEX, such as prompt, stdout, text or arg.1.

    Whoever has it and the content can check the two with `govrun verify --disclosure FILE --content FILE`; whoever has
    it alone can test guesses of that field.
    """
    with reading(source) as reader:
        leaf = leaf_at(reader, index)
    statement = parse_statement(parse_envelope(leaf).payload)
    commitment = commitments_of(statement).get(field)
    salted = commitment is not None and commitment["algorithm"] == "hmacSha256"
    document = open_field(statement, leaf, field, salts_of(source).read(index) if salted else None)
    show_bytes(format_disclosure(document))
    if document.salt is None:
        note(f"{field} of entry {index} has a plain digest: anybody who reads the receipt can confirm guesses of it")
        return
    note(
        f"whoever has this can confirm guesses of {field} of entry {index};"
        " every other field, of this receipt and of the invocation's other one, stays closed"
    )
