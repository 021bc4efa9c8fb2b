"""One ledger, wherever it is: every command that reads it gives the same answer in every form."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from govrun.audit.bookmark import format_bookmark
from govrun.audit.trust import TrustedKeys
from govrun.audit.verify import Question, verify_ledger
from govrun.digest import sha256_hex
from govrun.signing.keys import format_vkey
from tests.audit import ledgers
from tests.audit.ledgers import LOG, RECEIPT, InMemory, Ledger
from tests.e2e.place import Done, Place, a_place
from tests.ledger.web import serve
from tests.postgres.cluster import Cluster, find_binaries
from tests.postgres.shared_world import Shared

POLICY = b"format = 1\n[backends.bitnet]\n[tasks.route]\nbackend = 'bitnet'\n"
KEYS = ("--key", format_vkey(LOG.verifier), "--key", format_vkey(RECEIPT.verifier))
AT = ("--at", "2026-11-23T00:00:00.000Z")

# What the commands said about the SQLite file.
EXPECTED: dict[tuple[str, ...], Done] = {}

FORMS = ("sqlite", "home", "published", "url", "export", "postgres")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster | None]:
    """A PostgreSQL server, None where there is no PostgreSQL."""
    if (binaries := find_binaries()) is None:
        yield None
        return
    cluster = Cluster(binaries)
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster | None) -> Iterator[tuple[Place, dict[str, str]]]:
    """A ledger in every form, and where each is."""
    with a_place(tmp_path_factory.mktemp("forms")) as place:
        place.is_whole = False
        ledger = Ledger()
        digest = {"sha256": sha256_hex(POLICY)}
        ledger.add(ledgers.genesis(policy=digest))
        while len(ledger.leaves) < 300:
            ledger.invoke(len(ledger.leaves), len(ledger.leaves), policy=digest)
        ledgers.write_sqlite(ledger, place.home)
        (place.home / "policies").mkdir()
        (place.home / "policies" / f"{digest['sha256']}.toml").write_bytes(POLICY)
        (place.work / "old").write_bytes(ledger.notes[200])
        (place.work / "policy.toml").write_bytes(POLICY)
        (place.work / "bookmark").write_bytes(bookmark_of(ledger, 200))
        for words in (("publish", "public"), ("export", "it.zip")):
            done = place.go("ledger", *words, "--ledger", str(place.ledger), *KEYS)
            assert 0 == done.code, done.err
        where = {"sqlite": str(place.ledger), "home": str(place.home), "published": "public", "export": "it.zip"}
        if cluster is not None:
            shared = Shared(cluster, "forms", place.root / "shared")
            done = place.go("ledger", "migrate", str(place.ledger), shared.url("anna"), *KEYS)
            assert 0 == done.code, done.err
            where["postgres"] = shared.url("rita")
        with serve(place.work / "public") as served:
            yield place, {**where, "url": served.url}


def bookmark_of(ledger: Ledger, size: int) -> bytes:
    """What a verification of the ledger left when it had so many entries."""
    shorter = Ledger()
    for leaf in ledger.leaves[:size]:
        shorter.add_leaf(leaf)
    trusted = TrustedKeys(log=(LOG.verifier,), receipt=(RECEIPT.verifier,), origin=ledger.origin)
    report = verify_ledger(InMemory(shorter), trusted, Question(keep=True))
    assert report.bookmark is not None, report.findings
    return format_bookmark(report.bookmark)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, world: tuple[Place, dict[str, str]]) -> str:
    if request.param not in world[1]:
        pytest.skip("no initdb and postgres here: NOTHING about ledgers in PostgreSQL was shown")
    return world[1][request.param]


@pytest.fixture
def place(world: tuple[Place, dict[str, str]]) -> Place:
    return world[0]


def same(place: Place, form: str, *words: str, trim: Callable[[Any], Any] = lambda found: found) -> Done:
    """The answer about a form, once it is seen to be the one about the SQLite file."""
    found = place.go(*(form if word == "LEDGER" else word for word in words))
    expected = EXPECTED.get(words)
    if expected is None:
        # The first form is the SQLite file itself.
        expected = EXPECTED[words] = place.go(*(str(place.ledger) if word == "LEDGER" else word for word in words))
    assert (0, expected.code) == (found.code, 0), found.err
    if "--json" in words or "json" in words:
        assert trim(expected.json) == trim(found.json)
    else:
        assert expected.out == found.out
    return found


# Only a database can say who may sign in it.
WHO_SIGNS = "the database takes checkpoints from whoever appends"


def without_what_only_a_store_has(report: Any) -> Any:
    """A report without the checks of query columns, and of all checkpoints but one, which no other form has."""
    trimmed = copy.deepcopy(report)
    trimmed["assurance"]["grounds"] = [line for line in report["assurance"]["grounds"] if WHO_SIGNS not in line]
    checks = {one["id"]: one for one in trimmed["checks"] if one["id"] != "index"}
    assert checks["checkpoints"]["judged"] in (1, report["ledger"]["size"])
    checks["checkpoints"]["judged"] = None
    return {**trimmed, "checks": checks}


def test_verify(place: Place, form: str) -> None:
    done = same(place, form, "verify", "LEDGER", *KEYS, *AT, "--json", trim=without_what_only_a_store_has)
    assert (301, "keyed", "yes") == (done.json["ledger"]["size"], done.json["assurance"]["level"], done.json["verdict"])
    told = [line for line in done.json["assurance"]["grounds"] if WHO_SIGNS in line]
    assert form.startswith("postgresql://") == bool(told)


def test_verify_with_a_kept_checkpoint(place: Place, form: str) -> None:
    words = ("verify", "LEDGER", *KEYS, *AT, "--checkpoint", "old", "--require", "pinned", "--json")
    done = same(place, form, *words, trim=without_what_only_a_store_has)
    assert ("pinned", 200) == (done.json["assurance"]["level"], done.json["assurance"]["pinnedSize"])


def test_verify_what_is_new_since_a_bookmark(place: Place, form: str) -> None:
    (place.work / "kept").write_bytes((place.work / "bookmark").read_bytes())
    (place.work / "kept").chmod(0o600)
    done = place.go("verify", form, *KEYS, *AT, "--bookmark", "kept", "--require", "pinned", "--json")
    assert (0, 200, 301) == (done.code, done.json["read"]["fromIndex"], done.json["ledger"]["size"]), done.err
    again = place.go("verify", form, *KEYS, *AT, "--bookmark", "kept", "--require", "pinned", "--json")
    assert (0, 301) == (again.code, again.json["read"]["fromIndex"]), again.err


def without_policies_in_force(report: Any) -> Any:
    trimmed = without_what_only_a_store_has(report)
    del trimmed["checks"]["policyInForce"]
    return {**trimmed, "policy": None, "notShown": None}


def test_audit(place: Place, form: str) -> None:
    """The policies in force are kept with a store and come along in an export; a web server does not give them."""
    words = ("audit", "LEDGER", *KEYS, *AT, "--policy", "policy.toml", "--format", "json")
    is_published = form == "public" or "://" in form
    done = same(place, form, *words, trim=without_policies_in_force if is_published else without_what_only_a_store_has)
    unavailable = done.json["policy"]["inForce"]["unavailable"]
    assert (150 if is_published else 0) == unavailable


@pytest.mark.parametrize(
    "words",
    [
        ("ledger", "list", "--ledger", "LEDGER", "--json"),
        ("ledger", "list", "--ledger", "LEDGER", "--kind", "outcome", "--last", "3"),
        ("ledger", "show", "0", "--ledger", "LEDGER"),
        ("ledger", "show", "257", "--raw", "--ledger", "LEDGER"),
        ("ledger", "checkpoint", "--ledger", "LEDGER"),
        ("ledger", "prove", "299", "--ledger", "LEDGER"),
        ("ledger", "consistency", "old", "--ledger", "LEDGER", *KEYS[:2], "--json"),
    ],
    ids=lambda words: " ".join(words[1:3]),
)
def test_reading(place: Place, form: str, words: tuple[str, ...]) -> None:
    assert same(place, form, *words).out


def test_a_mirror_and_an_export_are_the_same_from_every_form(place: Place, form: str, tmp_path: Path) -> None:
    for words in (("publish", str(tmp_path / "mirror")), ("export", str(tmp_path / "it.zip"))):
        done = place.go("ledger", *words, "--ledger", form, *KEYS)
        assert 0 == done.code, done.err
    mirror, public = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "mirror", place.work / "public")
    )
    assert public == mirror
    if form != "public" and "://" not in form:
        assert (place.work / "it.zip").read_bytes() == (tmp_path / "it.zip").read_bytes()
    else:
        assert "1 policies that the entries name" in done.err


def test_the_answer_of_an_export_for_programs(place: Place, tmp_path: Path) -> None:
    done = place.go("ledger", "export", str(tmp_path / "it.zip"), "--ledger", str(place.home), *KEYS, "--json")
    size = (tmp_path / "it.zip").stat().st_size
    assert {"file": str(tmp_path / "it.zip"), "size": 301, "bytes": size, "policiesMissing": []} == {
        name: value for name, value in done.json.items() if name != "members"
    }


def test_no_form_is_published_or_exported_without_a_trusted_key(place: Place, form: str, tmp_path: Path) -> None:
    for command in ("publish", "export"):
        done = place.go("ledger", command, str(tmp_path / "new"), "--ledger", form, "--json")
        assert (45, "assurance.unauthenticated") == (done.code, json.loads(done.out)["error"]["rule"])
    assert [] == list(tmp_path.iterdir())


def test_salts_are_looked_for_only_where_a_store_is(place: Place, form: str) -> None:
    for command in (("disclose", "1", "prompt"), ("erase", "1")):
        done = place.go(
            "ledger",
            *command,
            "--ledger",
            form,
        )
        expected = 45 if form == "it.zip" or "://" in form else {"disclose": 45, "erase": 0}[command[0]]
        assert expected == done.code, done.err


@pytest.mark.parametrize("command", [("audit", "--policy", "policy.toml"), ("ledger", "list", "--ledger")])
def test_the_proof_of_one_entry_says_what_it_is(place: Place, tmp_path: Path, command: tuple[str, ...]) -> None:
    proof = tmp_path / "proof"
    assert 0 == place.go("ledger", "prove", "7", "--ledger", str(place.ledger), "--out", str(proof)).code
    done = place.go(*command, str(proof), *(KEYS if command[0] == "audit" else ()))
    assert (45, b"") == (done.code, done.out)
    assert "proof is the proof of one entry, not a ledger [ledger.proof]" in done.err
    assert "`govrun verify proof` checks it" in done.err
    assert 0 == place.go("verify", str(proof), *KEYS).code


def test_plain_http_to_another_machine_has_to_be_asked_for(place: Place) -> None:
    for words in (("verify", "http://192.0.2.1/x"), ("ledger", "list", "--ledger", "http://192.0.2.1/x")):
        done = place.go(*words)
        assert (45, True) == (done.code, "[url.http]" in done.err)
        assert "--allow-http" in done.err
