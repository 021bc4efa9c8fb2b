"""Encrypted key files: OpenSSH and govrun read each other's, and nothing but the right passphrase opens one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.signing import openssh
from govrun.signing.keyfile import format_key, look_at_key, open_key
from govrun.signing.keys import signer_from_seed, write_key_file, write_signer
from govrun.signing.passphrase import MAX_BYTES, Passphrases
from tests.signing.agents import needs_openssh, real_agent

pytest.importorskip("bcrypt", reason="SKIPPED ALOUD: no bcrypt here, so no encrypted key file was made or opened")

NAME = "example.com/log"
KEY = signer_from_seed(NAME, b"\x09" * 32)
SECRET = b"correct horse"
SEALED = format_key(KEY, SECRET)  # 0.2 s of bcrypt, once for all tests


class Given(Passphrases):
    """A person who types one thing."""

    def __init__(self, said: bytes | None = SECRET) -> None:
        self.asked: list[str] = []

        def prompt(words: str) -> bytes | None:
            self.asked.append(words)
            return said

        super().__init__({}, prompt)


def refusal(rule: str, call: Callable[..., object], *args: object) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        call(*args)
    assert (ExitCode.LEDGER_UNAVAILABLE, rule) == (caught.value.code, caught.value.rule), caught.value
    return caught.value


def sealed_file(directory: Path, data: bytes = SEALED) -> Path:
    path = directory / "log.key"
    path.unlink(missing_ok=True)
    write_key_file(path, data)
    return path


def test_an_encrypted_key_opens_with_its_passphrase_and_is_asked_for_once(tmp_path: Path) -> None:
    path, given = sealed_file(tmp_path), Given()
    signer = open_key(path, "log", NAME, given)
    assert (KEY.verifier, KEY.sign(b"m")) == (signer.verifier, signer.sign(b"m"))
    open_key(path, "receipt", NAME, given)
    assert ["Passphrase of the log key (log.key): "] == given.asked
    assert (KEY.verifier, "encrypted") == look_at_key(path, NAME)
    assert b"correct" not in SEALED


def test_a_plain_key_asks_for_nothing(tmp_path: Path) -> None:
    write_signer(tmp_path / "log.key", KEY)
    given = Given(None)
    assert KEY.verifier == open_key(tmp_path / "log.key", "log", NAME, given).verifier
    assert (KEY.verifier, "plain") == look_at_key(tmp_path / "log.key", NAME)
    assert [] == given.asked


@pytest.mark.parametrize("said", [b"battery", b"correct horse ", b"\xff", b"x" * MAX_BYTES])
def test_a_wrong_passphrase_is_refused_and_not_shown(tmp_path: Path, said: bytes) -> None:
    error = refusal("key.passphrase", open_key, sealed_file(tmp_path), "log", NAME, Given(said))
    assert said.decode("latin-1") not in str(error)


def test_nobody_to_ask_is_a_refusal_that_names_the_way(tmp_path: Path) -> None:
    error = refusal("passphrase.none", open_key, sealed_file(tmp_path), "log", NAME, Passphrases({}))
    assert "GOVRUN_PASSPHRASE_FILE" in str(error)
    refusal("passphrase.none", open_key, sealed_file(tmp_path), "log", NAME, Given(None))
    refusal("passphrase.empty", open_key, sealed_file(tmp_path), "log", NAME, Given(b""))


def test_an_encrypted_key_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for size in range(1, len(SEALED)):
        with pytest.raises(GovrunError) as caught:
            look_at_key(sealed_file(tmp_path, SEALED[:size]), NAME)
        assert ExitCode.LEDGER_UNAVAILABLE == caught.value.code
        assert caught.value.rule in ("key.form", "key.type")


def test_a_changed_byte_of_the_open_part_never_gives_another_key(tmp_path: Path) -> None:
    text = SEALED.decode()
    start = len(openssh.BEGIN)
    # Behind the open part stands what only the passphrase opens; its own check is that of `cryptography`.
    for at in range(start, start + 220):
        changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        try:
            found = openssh.parse_sealed(changed, "f")
        except GovrunError:
            continue
        # Only salt, rounds below the bound, and the public key itself are free; the latter is compared when it opens.
        if found.public != KEY.verifier.public:
            with pytest.raises(GovrunError) as caught:
                openssh.open_private(changed, NAME, SECRET, "f")
            assert caught.value.rule in ("key.hash", "key.passphrase")
            return
    raise AssertionError("no byte of the public key was changed")


def test_a_file_that_asks_for_billions_of_rounds_is_refused_at_once() -> None:
    import base64

    body = base64.b64decode("".join(SEALED.decode().splitlines()[1:-1]))
    at = body.index(b"\0\0\0\x10") + 20
    assert openssh.ROUNDS == int.from_bytes(body[at : at + 4], "big")
    for rounds in (openssh.MAX_ROUNDS + 1, 2**32 - 1):
        changed = body[:at] + rounds.to_bytes(4, "big") + body[at + 4 :]
        text = openssh.BEGIN + base64.encodebytes(changed).decode() + openssh.END
        refusal("key.kdf", openssh.parse_sealed, text, "f")


@needs_openssh
def test_ssh_keygen_and_ssh_add_read_what_is_written(tmp_path: Path) -> None:
    path = sealed_file(tmp_path)
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-P", SECRET.decode(), "-f", path], capture_output=True, check=True, text=True
    ).stdout
    from govrun.signing.ssh_wire import fingerprint, public_line

    assert public_line(KEY.verifier.public, "").strip() == " ".join(shown.split()[:2])
    asks = tmp_path / "ask"
    asks.write_text(f"#!/bin/sh\necho '{SECRET.decode()}'\n")
    asks.chmod(0o700)
    with real_agent(tmp_path / "a") as agent:
        subprocess.run(
            ["ssh-add", "-q", path],
            env={**os.environ, **agent.environ, "SSH_ASKPASS": str(asks), "SSH_ASKPASS_REQUIRE": "force"},
            check=True,
            capture_output=True,
        )
        assert fingerprint(KEY.verifier.public) in agent.tell("ssh-add", "-l")


@needs_openssh
@pytest.mark.parametrize("cipher", ["aes256-ctr", "aes256-gcm@openssh.com", "aes256-cbc"])
def test_what_ssh_keygen_writes_is_read(tmp_path: Path, cipher: str) -> None:
    path = tmp_path / "log.key"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-a", "2", "-Z", cipher, "-N", SECRET.decode(), "-f", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    signer = open_key(path, "log", NAME, Given())
    signer.verifier.verify(b"m", signer.sign(b"m"))
    refusal("key.passphrase", open_key, path, "log", NAME, Given(b"wrong"))
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", SECRET, "-N", "", "-f", path], check=True, capture_output=True)
    assert (signer.verifier, "plain") == look_at_key(path, NAME)
    assert signer.verifier == open_key(path, "log", NAME, Given(None)).verifier


@needs_openssh
def test_a_key_of_another_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", path], check=True, capture_output=True)
    refusal("key.type", look_at_key, path, NAME)


def test_the_mode_of_an_encrypted_file_counts_as_that_of_a_plain_one(tmp_path: Path) -> None:
    path = sealed_file(tmp_path)
    path.chmod(0o640)
    refusal("key.permissions", open_key, path, "log", NAME, Given())


# Where a passphrase comes from.


def given_by(directory: Path, content: bytes, mode: int = 0o600) -> Passphrases:
    path = directory / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return Passphrases({"GOVRUN_PASSPHRASE_FILE": str(path)})


@pytest.mark.parametrize("content", [b"pass word", b"pass word\n", b"pass word\r\nsecond line\n"])
def test_the_first_line_of_a_file_is_the_passphrase(tmp_path: Path, content: bytes) -> None:
    assert b"pass word" == given_by(tmp_path, content).get("log", "")


@pytest.mark.parametrize(
    ("content", "mode", "rule"),
    [
        (b"x", 0o644, "passphrase.permissions"),
        (b"x", 0o640, "passphrase.permissions"),
        (b"x", 0o602, "passphrase.permissions"),
        (b"", 0o600, "passphrase.empty"),
        (b"\nx", 0o600, "passphrase.empty"),
        (b"x" * (MAX_BYTES + 1), 0o600, "passphrase.size"),
    ],
)
def test_a_file_that_is_open_to_others_or_unfit_is_refused(
    tmp_path: Path, content: bytes, mode: int, rule: str
) -> None:
    refusal(rule, given_by(tmp_path, content, mode).get, "log", "")


def test_what_is_no_file_of_ones_own_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "link").symlink_to("fifo")
    for name, rule in (
        (str(tmp_path / "none"), "passphrase.readable"),
        (str(tmp_path / "link"), "passphrase.readable"),
        (str(tmp_path / "fifo"), "passphrase.regular"),
        (str(tmp_path), "passphrase.regular"),
        ("relative", "passphrase.path"),
        ("", "passphrase.path"),
    ):
        refusal(rule, Passphrases({"GOVRUN_PASSPHRASE_FILE": name}).get, "log", "")


def test_a_descriptor_gives_the_passphrase_once_and_is_closed() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe\n")
    os.close(writer)
    given = Passphrases({"GOVRUN_PASSPHRASE_FD": str(reader), "GOVRUN_PASSPHRASE_FILE": "/never/read"})
    assert [b"from a pipe"] * 2 == [given.get(role, "") for role in ("log", "receipt")]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)
    for text in ("", "x", "-1", "99999", "3 "):
        refusal("passphrase.descriptor", Passphrases({"GOVRUN_PASSPHRASE_FD": text}).get, "log", "")
    refusal("passphrase.readable", Passphrases({"GOVRUN_PASSPHRASE_FD": "9876"}).get, "log", "")


def test_the_root_key_may_have_a_passphrase_of_its_own(tmp_path: Path) -> None:
    for name in ("root", "rest"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o600)
    rest = {"GOVRUN_PASSPHRASE_FILE": str(tmp_path / "rest")}
    both = Passphrases({**rest, "GOVRUN_ROOT_PASSPHRASE_FILE": str(tmp_path / "root")})
    assert (b"root", b"rest", b"rest") == tuple(both.get(role, "") for role in ("root", "log", "receipt"))
    assert b"rest" == Passphrases(rest).get("root", "")
    given = Given()
    given.get("root", "one")
    given.get("log", "two")
    given.get("receipt", "three")
    assert ["one", "two"] == given.asked
