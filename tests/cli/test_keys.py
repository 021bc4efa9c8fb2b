"""Which keys count is changed under the root key, and a home can sign before, during and after each change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.home import load_trust
from govrun.keychanges import open_changes
from govrun.keyuse import ending
from govrun.settings import load_settings
from govrun.signing.keyfile import look_at_key
from govrun.signing.keys import generate_signer, write_signer
from govrun.signing.passphrase import Passphrases
from govrun.world import real_world
from tests.e2e.place import Done, Place, until
from tests.signing.agents import needs_openssh


def rows(place: Place, *words: str) -> list[dict[str, object]]:
    done = place.go("keys", "list", "--json", *words)
    assert 0 == done.code, done.err
    return [dict(row) for row in done.json]


def receipts(place: Place) -> list[tuple[object, object]]:
    return [(row["status"], row["where"]) for row in rows(place) if row["role"] == "receipt"]


def trust_file(place: Place) -> Path:
    [path] = (place.root / "config" / "govrun" / "trust").glob("*.toml")
    return path


def refused(done: Done, code: int, rule: str) -> str:
    assert (code, True) == (done.code, f"[{rule}]" in done.err), done.err
    return done.err


def public(place: Place, file: str = "receipt.key") -> bytes:
    return look_at_key(place.home / "keys" / file, "x/receipt")[0].public


def test_after_a_rotation_everything_goes_on_with_the_old_trust_file(place: Place) -> None:
    kept = trust_file(place).read_bytes()
    place.call(argv=("/bin/true",))
    before = public(place)
    done = place.go("keys", "rotate", "receipt", "--json")
    assert (0, 3) == (done.code, done.json["addedAt"]), done.err
    assert before != public(place)
    assert before == look_at_key(Path(done.json["oldFile"]), "x/receipt")[0].public
    place.call(argv=("/bin/true",))
    assert ["genesis", "intent", "outcome", "keyAdded", "intent", "outcome"] == place.kinds()
    assert 2 == len(load_trust(trust_file(place)).receipt)
    trust_file(place).write_bytes(kept)
    verified = place.go("verify")
    assert 0 == verified.code, verified.out
    assert "counts because the root key added it in entry 3" in verified.words
    assert 0 == place.go("audit", "--policy", str(place.home / "policy.toml")).code
    old = [row for row in rows(place) if row["status"] == "retired"]
    assert [True] == [row["counts"] for row in old]
    assert [("retired", f"file {Path(done.json['oldFile']).name}"), ("in use", "file")] == receipts(place)


def test_a_proof_of_an_entry_under_the_new_key_is_checked_with_the_new_trust_file(place: Place) -> None:
    assert 0 == place.go("keys", "rotate", "receipt").code
    place.call(argv=("/bin/true",))
    proof = place.root / "p"
    assert 0 == place.go("ledger", "prove", "3", "--out", str(proof)).code
    assert 0 == place.go("verify", str(proof)).code


def test_a_revoked_key_signs_nothing_more_and_what_it_signed_before_stands(place: Place) -> None:
    place.call(argv=("/bin/true",))
    done = place.go("keys", "rotate", "receipt", "--revoke", "--json")
    assert (0, 3, 4) == (done.code, done.json["addedAt"], done.json["revokedAt"]), done.err
    assert 0 == (verified := place.go("verify")).code
    assert "was revoked in entry 4 (superseded)" in verified.words
    assert "revoked at 4 (superseded)" == receipts(place)[0][0]
    # Somebody puts the old file back: the home refuses it, and the ledger stays as it is.
    old = Path(done.json["oldFile"])
    (place.home / "keys" / "receipt.key").unlink()
    old.rename(place.home / "keys" / "receipt.key")
    refused(place.run("--", *place.mark), 15, "key.revoked")
    shutil.rmtree(place.home / "keys" / "use")
    refused(place.run("--", *place.mark), 15, "ledger.receiptKey")
    assert (0, 5) == (place.runs, place.size)


def test_receipts_of_a_compromised_key_are_suspect_but_below_a_kept_checkpoint(place: Place) -> None:
    place.call(argv=("/bin/true",))
    kept = place.root / "kept.note"
    kept.write_bytes(place.go("ledger", "checkpoint").out)
    place.call(argv=("/bin/true",))
    place.is_whole = False  # suspect receipts are a no
    words = ("keys", "rotate", "receipt", "--revoke", "--reason", "compromised")
    assert 2 == place.go(*words).code
    assert 0 == place.go(*words, "--suspect-from", "1").code
    verified = place.go("verify", "--json")
    suspects = next(check for check in verified.json["checks"] if check["id"] == "suspects")
    assert (43, [1, 2, 3, 4]) == (verified.code, [finding["index"] for finding in suspects["findings"]])
    pinned = place.go("verify", "--json", "--checkpoint", str(kept))
    suspects = next(check for check in pinned.json["checks"] if check["id"] == "suspects")
    assert (43, [3, 4]) == (pinned.code, [finding["index"] for finding in suspects["findings"]])
    later = place.root / "later.note"
    later.write_bytes(place.go("ledger", "checkpoint").out)
    assert 0 == place.go("verify", "--checkpoint", str(later)).code
    assert "revoked at 6 (compromised), suspect from 1" == receipts(place)[0][0]


def test_the_root_key_may_be_kept_elsewhere_and_no_other_will_do(place: Place) -> None:
    root = place.root / "offline.key"
    (place.home / "keys" / "root.key").rename(root)
    said = refused(place.go("keys", "rotate", "receipt"), 15, "key.missing")
    assert "--root-key FILE" in said
    words = ("keys", "rotate", "receipt", "--root-key")
    refused(place.go(*words, str(place.home / "keys" / "receipt.key")), 15, "keys.root")
    shutil.copy(root, place.root / "open.key")
    (place.root / "open.key").chmod(0o644)
    refused(place.go(*words, str(place.root / "open.key")), 15, "key.permissions")
    assert 1 == place.size
    assert ["log.key", "receipt.key"] == sorted(p.name for p in (place.home / "keys").glob("*.key*"))
    assert 0 == place.go(*words, str(root)).code
    assert 2 == place.size


def test_the_log_key_is_never_rotated_and_the_refusal_says_what_to_do(place: Place) -> None:
    for words in (("rotate", "log"), ("rotate", "log", "--revoke")):
        said = refused(place.go("keys", *words), 2, "keys.log")
        assert "govrun init --continues" in said
    log = next(row for row in rows(place) if row["role"] == "log")
    said = refused(place.go("keys", "revoke", str(log["fingerprint"]), "--reason", "lost"), 2, "keys.log")
    assert "two logs under one name" in said
    assert 1 == place.size


def test_a_lost_receipt_key_is_replaced(place: Place) -> None:
    (place.home / "keys" / "receipt.key").unlink()
    refused(place.run("--", *place.mark), 15, "key.missing")
    lost = next(row for row in rows(place) if row["role"] == "receipt")
    assert ("retired", "not here") == (lost["status"], lost["where"])
    assert 0 == place.go("keys", "rotate", "receipt").code
    assert 0 == place.go("keys", "revoke", str(lost["keyid"])[:12], "--reason", "lost").code
    assert 0 == place.run("--", *place.mark).code
    assert ["genesis", "keyAdded", "keyRevoked", "intent", "outcome"] == place.kinds()


def test_a_second_root_key_takes_over_from_the_first(place: Place) -> None:
    first = next(row for row in rows(place) if row["role"] == "root")
    words = ("keys", "revoke", str(first["fingerprint"]), "--reason", "retired")
    refused(place.go(*words), 15, "keys.lastRoot")
    other = place.root / "root2.key"
    assert 0 == place.go("keys", "add", "--role", "root", "--out", str(other)).code
    assert 2 == place.go(*words, "--suspect-from", "0").code
    assert 0 == place.go(*words, "--root-key", str(other)).code
    refused(place.go("keys", "rotate", "receipt"), 15, "keys.root")
    assert 0 == place.go("keys", "rotate", "receipt", "--root-key", str(other)).code
    assert ["genesis", "keyAdded", "keyRevoked", "keyAdded"] == place.kinds()


def test_a_key_that_is_added_is_known_once_and_leaves_no_file_when_it_is_not(place: Place) -> None:
    new = place.root / "second.key"
    assert 0 == place.go("keys", "add", "--role", "receipt", "--out", str(new)).code
    refused(place.go("keys", "add", "--role", "receipt", "--new-key", str(new)), 15, "keys.known")
    refused(place.go("keys", "add", "--role", "root", "--new-key", str(new)), 15, "key.name")
    refused(place.go("keys", "add", "--role", "receipt", "--out", str(new)), 15, "key.exists")
    assert new.exists()
    (place.home / "keys" / "root.key").unlink()
    third = place.root / "third.key"
    refused(place.go("keys", "add", "--role", "receipt", "--out", str(third)), 15, "key.missing")
    assert (2, False) == (place.size, third.exists())
    assert 2 == place.go("keys", "add", "--role", "receipt").code


@pytest.mark.parametrize(
    ("words", "code", "rule"),
    [
        (("nosuchkey", "--reason", "lost"), 2, "keys.which"),
        (("SHA256:" + "A" * 43, "--reason", "lost"), 2, "keys.which"),
        (("{receipt}", "--reason", "retired"), 15, "keys.inUse"),
        (("{receipt}", "--reason", "retired", "--suspect-from", "99"), 2, "keys.suspectFrom"),
    ],
)
def test_a_revocation_that_cannot_be_is_refused(place: Place, words: tuple[str, ...], code: int, rule: str) -> None:
    key = next(str(row["fingerprint"]) for row in rows(place) if row["role"] == "receipt")
    refused(place.go("keys", "revoke", *(word.format(receipt=key) for word in words)), code, rule)
    assert 1 == place.size
    assert 0 == place.run("--", "/bin/true").code


def test_a_key_that_the_ledger_does_not_name_signs_nothing(place: Place) -> None:
    place.call(argv=("/bin/true",))
    other = Place(place.root / "other", {"XDG_CONFIG_HOME": str(place.root / "other" / "config")})
    other.work.mkdir(parents=True)
    assert 0 == other.go("init", "--origin", place.verify().origin).code
    os.replace(other.home / "keys" / "receipt.key", place.home / "keys" / "receipt.key")
    refused(place.run("--", *place.mark), 15, "ledger.receiptKey")
    assert (0, 3) == (place.runs, place.size)
    assert "not named by the ledger" in {row["status"] for row in rows(place)}


def test_a_key_that_is_being_used_is_not_revoked_under_the_run(place: Place) -> None:
    place.config("ledgerTimeoutMs = 300\n")
    os.mkfifo(place.work / "fifo")
    running = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", "touch started; read x <fifo")
    until((place.work / "started").exists, "the child started")
    done = place.go("keys", "rotate", "receipt", "--revoke")
    said = refused(done, 15, "key.busy")
    assert "added        a new receipt key" in said
    old = next(row for row in rows(place) if row["status"] == "retired")
    assert True is old["counts"]
    with open(place.work / "fifo", "w") as fifo:
        fifo.write("on\n")
    _, err = running.communicate(timeout=30)
    assert 0 == running.returncode, err
    # The outcome was signed by the old key, which still counted; now it can go.
    assert 0 == place.go("keys", "revoke", str(old["fingerprint"]), "--reason", "superseded").code
    assert ["genesis", "intent", "keyAdded", "outcome", "keyRevoked"] == place.kinds()


def test_two_rotations_at_once_are_one_after_the_other(place: Place) -> None:
    started = [place.start("keys", "rotate", "receipt") for _ in range(2)]
    for one in started:
        one.communicate(timeout=60)
        assert 0 == one.returncode
    assert ["genesis", "keyAdded", "keyAdded"] == place.kinds()
    assert 0 == place.run("--", *place.mark).code
    assert 1 == sum(status == "in use" for status, _ in receipts(place))


def test_a_rotation_that_was_cut_off_behind_its_entry_is_finished(place: Place) -> None:
    world = real_world(place.environ)
    settings = load_settings(place.home, world.environ, {})
    keys = place.home / "keys"
    old = public(place)
    with open_changes(world, settings, None, Passphrases(world.environ)) as changes:
        changes.rotate("receipt")
    # As it was before the rename: the ledger names the key, the file is still staged.
    new = public(place)
    (keys / "receipt.key").rename(keys / "receipt.key.new")
    [kept] = keys.glob("receipt-*.key")
    kept.rename(keys / "receipt.key")
    assert old == public(place)
    assert 0 == place.run("--", *place.mark).code
    done = place.go("keys", "rotate", "receipt")
    assert (0, True) == (done.code, "finished" in done.err)
    assert (new, ["genesis", "keyAdded", "intent", "outcome"]) == (public(place), place.kinds())
    assert 0 == place.run("--", *place.mark).code


@pytest.mark.parametrize("left", [b"", b"PRIVATE+KEY+x", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA"])
def test_a_staged_key_that_the_ledger_does_not_name_is_thrown_away(place: Place, left: bytes) -> None:
    staged = place.home / "keys" / "receipt.key.new"
    staged.write_bytes(left)
    staged.chmod(0o600)
    assert 0 == place.run("--", "/bin/true").code
    assert 0 == place.go("keys", "rotate", "receipt").code
    assert (["genesis", "intent", "outcome", "keyAdded"], False) == (place.kinds(), staged.exists())


CALLS = ("fsync", "fdatasync", "ftruncate", "rename", "linkat")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="SKIPPED ALOUD: no strace, so no rotation was killed")
def test_killed_at_any_instant_a_rotation_leaves_a_home_that_can_sign(place: Place) -> None:
    words = [sys.executable, "-m", "govrun", "keys", "rotate", "receipt", "--revoke"]
    environ = {**place.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    killed, size = 0, 1
    for call in CALLS:
        # strace counts the calls of each name; a number that is not reached kills nobody.
        for number in range(1, 40):
            inject = f"inject={call}:signal=KILL:when={number}"
            trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
            done = subprocess.run([*trace, *words], cwd=place.work, env=environ, capture_output=True, timeout=60)
            place.call(argv=("/bin/true",))
            assert size + 2 <= place.size <= size + 4, (call, number)
            size = place.size
            if 0 == done.returncode:
                break
            killed += 1
    assert killed > 12
    assert 0 == place.go("keys", "rotate", "receipt").code
    used = [row for row in rows(place) if row["role"] == "receipt" and row["inUse"]]
    assert [(True, "file")] == [(row["counts"], row["where"]) for row in used]
    report = place.verify()
    assert ("intact", 0) == (report.integrity, report.exit_code)


def test_a_revocation_that_could_not_be_written_leaves_a_key_that_the_ledger_is_asked_about(place: Place) -> None:
    world = real_world(place.environ)
    settings = load_settings(place.home, world.environ, {})
    second = generate_signer(f"{place.verify().origin}/receipt", world)
    with open_changes(world, settings, None, Passphrases(world.environ)) as changes:
        changes.add("receipt", second)
    remembered = place.home / "keys" / "use" / second.verifier.keyid
    assert b"counts %016d\n" % 2 == remembered.read_bytes()
    with (
        pytest.raises(OSError, match="no room"),
        ending(place.home / "keys", second.verifier, world, 100),
    ):
        raise OSError("no room")
    assert b"" == remembered.read_bytes()
    write_signer(place.home / "keys" / "second.key", second)
    os.replace(place.home / "keys" / "second.key", place.home / "keys" / "receipt.key")
    place.call(argv=("/bin/true",))
    assert b"counts %016d\n" % 2 == remembered.read_bytes()


def test_a_revocation_from_elsewhere_is_seen_at_the_next_start(place: Place) -> None:
    """Two homes of one ledger, as two machines have them: each has a receipt key of its own."""
    other = place.root / "other"
    shutil.copytree(place.home, other, ignore=shutil.ignore_patterns("ledger*", "salts", "use"))
    second = other / "keys" / "receipt.key"
    second.unlink()
    there = {"GOVRUN_HOME": str(other), "GOVRUN_LEDGER": str(place.ledger)}
    assert 0 == place.go("keys", "add", "--role", "receipt", "--out", str(second)).code
    assert 0 == place.run("--", *place.mark, env=there).code
    assert 0 == place.run("--", *place.mark).code
    assert 0 == place.run("--", *place.mark, env=there).code
    keyid = look_at_key(second, "x/receipt")[0].keyid
    assert 0 == place.go("keys", "revoke", keyid[:16], "--reason", "retired").code
    # Nothing in the other home says so, but the ledger does.
    assert (other / "keys" / "use" / keyid).read_bytes().startswith(b"counts ")
    refused(place.run("--", *place.mark, env=there), 15, "ledger.receiptKey")
    assert 0 == place.run("--", *place.mark).code
    assert 4 == place.runs


def test_other_tools_read_the_exported_keys(place: Place) -> None:
    for role in ("root", "log", "receipt"):
        row = next(row for row in rows(place) if row["role"] == role)
        assert f"{row['vkey']}\n" == place.go("keys", "export", role).out.decode()
        pem = place.go("keys", "export", role, "--pem").out
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        assert pem.startswith(b"-----BEGIN PUBLIC KEY-----\n")
        raw = load_pem_public_key(pem).public_bytes_raw()  # type: ignore[union-attr]
        assert look_at_key(place.home / "keys" / f"{role}.key", "x")[0].public == raw
    refused(place.go("keys", "export", "receipt", "--key", "0" * 16), 2, "keys.which")


@needs_openssh
def test_fingerprints_are_those_that_ssh_prints(place: Place) -> None:
    row = next(row for row in rows(place) if row["role"] == "receipt")
    line = place.go("keys", "export", "receipt", "--ssh").out
    shown = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=line, capture_output=True, check=True).stdout
    assert [str(row["fingerprint"]), f"{place.verify().origin}/receipt"] == shown.decode().split()[1:3]


def test_a_ledger_is_published_although_its_log_key_is_elsewhere(place: Place) -> None:
    (place.home / "keys" / "log.key").unlink()
    assert 0 == place.go("ledger", "publish", str(place.root / "out")).code
    log = next(row for row in rows(place) if row["role"] == "log")
    assert f"{log['vkey']}\n" == (place.root / "out" / "log.vkey").read_text()
    assert "not here" == log["where"]


def test_what_is_shown_holds_no_private_half(place: Place) -> None:
    secrets = [path.read_text().strip().split("+", 4)[4] for path in (place.home / "keys").glob("*.key")]
    done = place.go("keys", "rotate", "receipt", "--revoke", "--json")
    secrets += [path.read_text().strip().split("+", 4)[4] for path in (place.home / "keys").glob("*.key")]
    shown = done.out.decode() + done.err + json.dumps(rows(place)) + place.go("keys", "list").out.decode()
    assert 7 == len(secrets)
    assert not any(secret in shown for secret in secrets)


def test_a_rotation_is_refused_where_the_guard_refuses(place: Place) -> None:
    place.is_whole = False
    backup = place.root / "backup"
    shutil.copytree(place.home, backup)
    place.call(argv=("/bin/true",))
    shutil.rmtree(place.home)
    shutil.copytree(backup, place.home)
    world = real_world(place.environ)
    settings = load_settings(place.home, world.environ, {})
    before = public(place)
    with (
        pytest.raises(GovrunError) as caught,
        open_changes(world, settings, None, Passphrases(world.environ)) as changes,
    ):
        changes.rotate("receipt")
    assert (ExitCode.LEDGER_ROLLED_BACK, before, 1) == (caught.value.code, public(place), place.size)
