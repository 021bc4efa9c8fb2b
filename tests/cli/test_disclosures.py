"""One field of one receipt is opened to whoever gets its salt, and nothing else is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from govrun import schemas
from govrun.digest import commit
from govrun.disclosure import format_disclosure, parse_disclosure
from govrun.errors import ExitCode, GovrunError
from govrun.home import load_trust
from govrun.ledger.salts import Salts
from govrun.signing.keys import format_vkey
from tests.e2e.place import Done, Place


@pytest.fixture
def ran(place: Place) -> Place:
    """An invocation with a salted answer, and the contents of its fields as files."""
    place.call(argv=("/bin/echo", "hello"))
    (place.work / "hello").write_bytes(b"hello\n")
    (place.work / "word").write_bytes(b"hello")
    return place


def disclose(place: Place, index: int, field: str, file: str = "opened", **options: str) -> Done:
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = place.go("ledger", "disclose", str(index), field, *words)
    if done.code == 0:
        (place.work / file).write_bytes(done.out)
    return done


def opened(place: Place, what: str, content: str, *words: str, file: str = "opened") -> Done:
    return place.go("verify", what, "--disclosure", file, "--content", content, *words)


def test_a_disclosure_is_canonical_and_fits_its_schema(ran: Place) -> None:
    done = disclose(ran, 2, "stdout")
    assert (0, done.out) == (done.code, format_disclosure(parse_disclosure(done.out)))
    schemas.check(done.json, "disclosure.v1", None, ExitCode.CRASH, "it")
    assert {"index": 2, "field": "stdout", "algorithm": "hmacSha256"}.items() <= done.json.items()
    recorded = ran.last("outcome")["byproducts"]["stdout"]["commitment"]["digest"]
    assert recorded == commit(b"hello\n", bytes.fromhex(done.json["salt"])).hex()
    assert done.err.startswith("whoever has this can confirm guesses of stdout of entry 2;")
    assert "stays closed" in done.err
    assert Salts(ran.home / "salts").read(2).hex() not in done.out.decode()  # type: ignore[union-attr]


def test_the_content_is_checked_against_a_ledger_in_every_form_and_against_a_proof(ran: Place) -> None:
    assert 0 == ran.go("ledger", "publish", "public").code
    assert 0 == ran.go("ledger", "prove", "2", "--out", "proof").code
    assert 0 == disclose(ran, 2, "stdout").code
    for form in (str(ran.ledger), str(ran.home), "public", "proof"):
        done = opened(ran, form, "hello")
        assert (0, "") == (done.code, done.err)
        assert b"these 6 bytes are what the receipt commits to" in done.out
        assert (
            b"closed      stderr, text, and whatever other receipts commit to: this salt opens none of it\n" in done.out
        )
        told = opened(ran, form, "hello", "--json").json
        assert ("yes", 0, ["stderr", "text"]) == (told["verdict"], told["exitCode"], told["disclosure"]["closed"])
        assert ("yes", "stdout") == (told["report"]["verdict"], told["disclosure"]["field"])
        wrong = opened(ran, form, "word", "--json")
        assert (40, 40, "no", "disclosure.content") == (
            wrong.code,
            wrong.json["exitCode"],
            wrong.json["verdict"],
            wrong.json["disclosure"]["rule"],
        )


def test_every_field_opens_with_its_own_salt_and_no_other(ran: Place) -> None:
    (ran.work / "nothing").write_bytes(b"")
    fields = {(1, "arg.1"): "word", (2, "stdout"): "hello", (2, "text"): "hello", (2, "stderr"): "nothing"}
    for (index, field), content in fields.items():
        assert 0 == disclose(ran, index, field).code, field
        assert 0 == opened(ran, str(ran.home), content).code, field
        for (other_index, other), other_content in fields.items():
            if other_index != index or other == field or other_content != content:
                continue
            # The same bytes under the name of another field: the salt does not open it.
            forged = {**json.loads((ran.work / "opened").read_bytes()), "field": other}
            (ran.work / "forged").write_bytes(
                json.dumps(forged, sort_keys=True, separators=(",", ":")).encode() + b"\n"
            )
            done = opened(ran, str(ran.home), other_content, file="forged")
            assert (40, True) == (done.code, b"do not give the commitment" in done.out)


def test_a_disclosure_of_another_entry_or_ledger_opens_nothing(ran: Place) -> None:
    ran.call(argv=("/bin/echo", "hello"))
    assert 0 == disclose(ran, 4, "stdout").code
    assert 0 == ran.go("ledger", "prove", "2", "--out", "proof").code
    document = json.loads((ran.work / "opened").read_bytes())
    assert (40, True) == ((done := opened(ran, "proof", "hello")).code, b"[disclosure.entry]" in done.out)
    for change in ({"index": 2}, {"index": 99}, {"origin": "example.com/x"}, {"leafHash": "0" * 64}):
        forged = json.dumps({**document, **change}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        (ran.work / "forged").write_bytes(forged)
        done = opened(ran, str(ran.home), "hello", file="forged")
        assert (40, True) == (done.code, b"[disclosure.entry]" in done.out), change
    unsalted = json.dumps({**document, "salt": None}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    (ran.work / "forged").write_bytes(unsalted)
    assert (40, True) == (
        (done := opened(ran, str(ran.home), "hello", file="forged")).code,
        "[disclosure.form]" in done.err,
    )
    for change in ({"field": "prompt"}, {"algorithm": "sha256", "salt": None}):
        forged = json.dumps({**document, **change}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        (ran.work / "forged").write_bytes(forged)
        done = opened(ran, str(ran.home), "hello", file="forged")
        assert (40, True) == (done.code, b"[disclosure.field]" in done.out), change


def test_no_flipped_byte_of_a_disclosure_opens_anything(ran: Place) -> None:
    data = disclose(ran, 2, "stdout").out
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            assert parse_disclosure(changed) != parse_disclosure(data)
        except GovrunError as error:
            assert error.code is ExitCode.LEDGER_INCONSISTENT  # noqa: PT017 - either is right
    for at in (0, data.index(b'salt":"') + 9, len(data) - 1):
        (ran.work / "opened").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert 40 == opened(ran, str(ran.home), "hello").code, at


def test_without_a_verified_receipt_nothing_is_compared(ran: Place) -> None:
    assert 0 == disclose(ran, 2, "stdout").code
    assert 0 == ran.go("ledger", "prove", "2", "--out", "proof").code
    [trust] = (ran.root / "config" / "govrun" / "trust").glob("*.toml")
    log = format_vkey(load_trust(trust).log)
    for what in (str(ran.ledger), "proof"):
        done = ran.go(
            *("verify", what, "--disclosure", "opened", "--content", "hello", "--json"),
            env={"XDG_CONFIG_HOME": "/proc/none"},
        )
        assert (45, "disclosure.receipt") == (done.code, done.json["disclosure"]["rule"])
    # The log key alone says that the entry is there, and nothing about who signed the receipt.
    assert 45 == opened(ran, "proof", "hello", "--key", log).code
    assert 0 == opened(ran, str(ran.ledger), "hello", "--key", log).code
    assert 43 == opened(ran, "proof", "hello", "--require", "complete").code


def test_plain_digests_need_no_salt(place: Place) -> None:
    place.config('digests = "plain"\n')
    place.call(argv=("/bin/echo", "hello"))
    (place.work / "hello").write_bytes(b"hello\n")
    assert 0 == place.go("ledger", "publish", "public").code
    for form in (str(place.home), "public"):
        done = disclose(place, 2, "stdout", ledger=form)
        assert (0, None, "sha256") == (done.code, done.json["salt"], done.json["algorithm"])
        assert "anybody who reads the receipt can confirm guesses" in done.err
    assert 0 == opened(place, "public", "hello").code
    assert 40 == opened(place, "public", "opened").code
    assert b"closed" not in opened(place, "public", "hello").out


def test_what_cannot_be_disclosed_is_refused(ran: Place) -> None:
    assert 0 == ran.go("ledger", "publish", "public").code
    for words, rule, said in (
        (("2", "prompt"), "disclosure.field", "expected: stdout, stderr, text"),
        (("0", "request"), "disclosure.field", "a receipt with commitments"),
        (("7", "stdout"), "ledger.index", "entry 7"),
        (("2", "stdout", "--ledger", "public"), "disclosure.salt", "there is no salt"),
    ):
        done = ran.go("ledger", "disclose", *words)
        assert (45, b"", True, True) == (done.code, done.out, f"[{rule}]" in done.err, said in done.err), words
    (ran.home / "salts").chmod(0o644)
    assert (15, True) == ((done := disclose(ran, 2, "stdout")).code, "[salts.permissions]" in done.err)


def test_files_that_cannot_be_read_give_no_verdict(ran: Place) -> None:
    assert 0 == disclose(ran, 2, "stdout").code
    for words in (("--disclosure", "opened"), ("--content", "hello")):
        assert (2, True) == ((done := ran.go("verify", *words)).code, "go together" in done.err)
    for disclosure, content in (("missing", "hello"), (".", "hello"), ("opened", "missing"), ("opened", ".")):
        assert 45 == opened(ran, str(ran.home), content, file=disclosure).code, (disclosure, content)
    os.mkfifo(ran.work / "pipe")
    assert (45, True) == ((done := opened(ran, str(ran.home), "pipe")).code, b"another kind of file" in done.out)
    Path(ran.work, "large").write_bytes(b"{" + b" " * 9000 + b"}\n")
    assert 40 == opened(ran, str(ran.home), "hello", file="large").code
