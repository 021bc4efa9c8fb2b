"""A home whose key files are encrypted: it signs with the passphrase, refuses without, and its verdict says so."""

from __future__ import annotations

import os
import pty
import select
import shutil
import sys
import time
from pathlib import Path

import pytest

from govrun.signing.keyfile import look_at_key
from tests.e2e.place import Done, Place

pytest.importorskip("bcrypt", reason="SKIPPED ALOUD: no bcrypt here, so no encrypted key file was made or opened")


def secret(place: Place, text: str = "correct horse", name: str = "secret") -> dict[str, str]:
    path = place.root / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return {"GOVRUN_PASSPHRASE_FILE": str(path)}


def refused(done: Done, code: int, rule: str) -> str:
    assert (code, True) == (done.code, f"[{rule}]" in done.err), done.err
    return done.err


def forms(place: Place) -> dict[str, str]:
    return {path.stem: look_at_key(path, "x")[1] for path in (place.home / "keys").glob("*.key")}


def test_a_home_with_encrypted_keys_from_its_first_day(bare: Place) -> None:
    given = secret(bare)
    refused(bare.go("init", "--encrypt-keys"), 15, "passphrase.none")
    assert not bare.home.exists()
    assert 0 == bare.go("init", "--allow", "process", "--encrypt-keys", env=given).code
    assert {"root": "encrypted", "log": "encrypted", "receipt": "encrypted"} == forms(bare)
    said = refused(bare.run("--", *bare.mark), 15, "passphrase.none")
    assert "GOVRUN_PASSPHRASE_FILE" in said
    refused(bare.run("--", *bare.mark, env=secret(bare, "wrong", "other")), 15, "key.passphrase")
    assert (0, 1) == (bare.runs, bare.size)
    assert 0 == bare.run("--", *bare.mark, env=given).code
    # The environment names a file, so the child is given neither name nor words.
    assert b"GOVRUN" not in bare.run("--", "/usr/bin/env", env=given).out
    assert 0 == bare.go("keys", "rotate", "receipt", "--revoke", env=given).code
    assert {"encrypted"} == set(forms(bare).values())
    assert 0 == bare.run("--", *bare.mark, env=given).code
    verified = bare.go("verify")
    assert 0 == verified.code
    assert "writers-hold-log-key: both keys are in an encrypted file of this .govrun, so who can use" in verified.words
    assert {"encrypted file"} == {r["where"] for r in bare.go("keys", "list", "--json").json if r["inUse"]}
    assert 0 == bare.go("ledger", "publish", str(bare.root / "out")).code


def test_a_key_file_is_encrypted_and_decrypted_in_place(place: Place) -> None:
    given = secret(place)
    for role in ("log", "receipt"):
        assert 0 == place.go("keys", "encrypt", role, env=given).code
    refused(place.go("keys", "encrypt", "log", env=given), 2, "keys.form")
    assert {"root": "plain", "log": "encrypted", "receipt": "encrypted"} == forms(place)
    assert 0 == place.run("--", *place.mark, env=given).code
    refused(place.go("keys", "decrypt", "log", env=secret(place, "wrong", "other")), 15, "key.passphrase")
    assert 0 == place.go("keys", "decrypt", "log", env=given).code
    verified = place.go("verify")
    assert "the log key is in a file of this .govrun and the receipt key in an encrypted file" in verified.words
    assert 0 == place.go("keys", "decrypt", "receipt", env=given).code
    assert 0 == place.run("--", *place.mark).code
    assert "writers-hold-log-key: all keys lie in one .govrun" in place.go("verify").words
    assert ["log.key", "receipt.key", "root.key"] == sorted(p.name for p in (place.home / "keys").glob("*.key*"))


def test_a_root_key_elsewhere_is_encrypted_too_and_signs_key_changes(place: Place) -> None:
    given = secret(place)
    root = place.root / "root.key"
    (place.home / "keys" / "root.key").rename(root)
    own = {"GOVRUN_ROOT_PASSPHRASE_FILE": given["GOVRUN_PASSPHRASE_FILE"]}
    assert 0 == place.go("keys", "encrypt", "root", "--file", str(root), env=own).code
    refused(place.go("keys", "rotate", "receipt", "--root-key", str(root)), 15, "passphrase.none")
    assert 0 == place.go("keys", "rotate", "receipt", "--root-key", str(root), env=own).code
    refused(place.go("keys", "encrypt", "log", "--file", str(root), env=given), 2, "keys.form")


def test_a_passphrase_comes_through_a_descriptor(place: Place) -> None:
    assert 0 == place.go("keys", "encrypt", "receipt", env=secret(place)).code
    reader, writer = os.pipe()
    os.write(writer, b"correct horse\n")
    os.close(writer)
    child = place.start(
        "run", "--backend", "process", "--", *place.mark, env={"GOVRUN_PASSPHRASE_FD": str(reader)}, pass_fds=(reader,)
    )
    os.close(reader)
    _, err = child.communicate(timeout=60)
    assert (0, 1) == (child.returncode, place.runs), err


def test_a_person_at_a_terminal_is_asked_and_what_is_typed_is_not_shown(place: Place) -> None:
    assert 0 == place.go("keys", "encrypt", "receipt", env=secret(place)).code
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place.work)
        os.execve(  # noqa: S606 - the program under test, at a terminal of its own
            sys.executable,
            [sys.executable, "-m", "govrun", "run", "--backend", "process", "--", *place.mark],
            place.environ,
        )
    shown = b""
    deadline = time.monotonic() + 60
    typed = False
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                part = os.read(terminal, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
        if not typed and b"Passphrase of the receipt key (receipt.key): " in shown:
            os.write(terminal, b"correct horse\n")
            typed = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert (0, 1) == (os.waitstatus_to_exitcode(status), place.runs), shown
    assert b"correct" not in shown


def test_without_bcrypt_the_refusal_names_what_to_install(place: Place, tmp_path: Path) -> None:
    assert 0 == place.go("keys", "encrypt", "receipt", env=secret(place)).code
    hide = tmp_path / "hide"
    (hide / "bcrypt").mkdir(parents=True)
    (hide / "bcrypt" / "__init__.py").write_text("raise ImportError('not here')\n")
    without = {"PYTHONPATH": f"{hide}:{place.environ['PYTHONPATH']}"}
    said = refused(place.run("--", *place.mark, env={**secret(place), **without}), 15, "key.bcrypt")
    assert "pip install 'govrun[encrypted]'" in said
    refused(place.go("keys", "encrypt", "log", env={**secret(place), **without}), 15, "key.bcrypt")
    assert ("plain", 1) == (forms(place)["log"], place.size)
    shutil.rmtree(hide)
