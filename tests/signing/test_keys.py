"""Keys have one spelling, and a private key file must be the owner's alone."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.errors import ExitCode, GovrunError
from govrun.signing import keys
from govrun.signing.b64 import encode
from govrun.world import World

# Published with the Go note package and with C2SP signed-note.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"

SEED = bytes(range(32))
SIGNER = keys.signer_from_seed("example.com/log", SEED)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(lambda n: keys.name_problem(n) is None)


def refusal(code: ExitCode, rule: str, call: object, *args: object) -> GovrunError:
    assert callable(call)
    with pytest.raises(GovrunError) as caught:
        call(*args)
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def world() -> World:
    return World(now_ms=lambda: 0, monotonic_ns=lambda: 0, random_bytes=lambda n: SEED[:n], environ={})


@pytest.mark.parametrize("vkey", [GO_VKEY, C2SP_VKEY])
def test_published_vkeys_are_read_and_written_back(vkey: str) -> None:
    assert vkey == keys.format_vkey(keys.parse_vkey(vkey))


def test_published_skey_is_read_and_belongs_to_its_vkey() -> None:
    signer = keys.parse_skey(GO_SKEY + "\n")
    assert keys.format_vkey(signer.verifier) == GO_VKEY
    assert keys.format_skey(signer) == GO_SKEY + "\n"


@pytest.mark.parametrize("vkey", [GO_VKEY, C2SP_VKEY])
def test_every_changed_cut_or_lengthened_vkey_is_refused(vkey: str) -> None:
    for at, letter in enumerate(vkey):
        for bit in range(7):
            changed = vkey[:at] + chr(ord(letter) ^ 1 << bit) + vkey[at + 1 :]
            with pytest.raises(GovrunError) as caught:
                keys.parse_vkey(changed)
            assert caught.value.code == ExitCode.COULD_NOT_CHECK
        with pytest.raises(GovrunError):
            keys.parse_vkey(vkey[:at])
        with pytest.raises(GovrunError):
            keys.parse_vkey(vkey[at + 1 :])
    for extra in ("=", "A", " ", "\n", "+"):
        with pytest.raises(GovrunError):
            keys.parse_vkey(vkey + extra)


def test_every_changed_or_cut_skey_is_refused_and_not_shown() -> None:
    text = keys.format_skey(SIGNER)
    secret = text.rsplit("+", 1)[1].strip()
    for at, letter in enumerate(text):
        for changed in (text[:at] + chr(ord(letter) ^ 1) + text[at + 1 :], text[:at]):
            with pytest.raises(GovrunError) as caught:
                keys.parse_skey(changed)
            assert caught.value.code == ExitCode.LEDGER_UNAVAILABLE
            assert secret[:12] not in str(caught.value)


def test_vkey_of_another_type_or_length_or_text_is_refused() -> None:
    def vkey(material: bytes, name: str = "n") -> str:
        import hashlib

        digest = hashlib.sha256(name.encode() + b"\n" + material).digest()[:4]
        return f"{name}+{digest.hex()}+{encode(material).decode()}"

    public = SIGNER.verifier.public
    assert public == keys.parse_vkey(vkey(b"\x01" + public)).public
    error = refusal(ExitCode.COULD_NOT_CHECK, "vkey.type", keys.parse_vkey, vkey(b"\x06" + public))
    assert (error.found, error.expected) == ("0x06", "0x01, Ed25519")
    error = refusal(ExitCode.COULD_NOT_CHECK, "vkey.type", keys.parse_vkey, vkey(b""))
    assert error.found == "nothing"
    refusal(ExitCode.COULD_NOT_CHECK, "vkey.length", keys.parse_vkey, vkey(b"\x01" + public[1:]))
    refusal(ExitCode.COULD_NOT_CHECK, "vkey.name", keys.parse_vkey, vkey(b"\x01" + public, "a b"))
    refusal(ExitCode.COULD_NOT_CHECK, "vkey.form", keys.parse_vkey, "n+0123456G+AAAA")
    refusal(ExitCode.COULD_NOT_CHECK, "vkey.form", keys.parse_vkey, "n+01234567+A\ud800AA")


def test_verifier_whose_hash_belongs_to_another_key_is_refused() -> None:
    error = refusal(ExitCode.COULD_NOT_CHECK, "vkey.hash", keys.Verifier, "n", b"\0\0\0\0", SIGNER.verifier.public)
    assert error.found == "00000000"
    assert keys.note_key_id("n", SIGNER.verifier.public).hex() == error.expected


def test_public_keys_of_small_order_are_refused() -> None:
    # The torsion points of edwards25519, computed: x^2 = (y^2 - 1) / (d y^2 + 1), and 8 times the point is (0, 1).
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    root = pow(2, (p - 1) // 4, p)

    def recover(y: int) -> int | None:
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        candidates = (x, x * root % p)
        return next((c for c in candidates if c * c % p == square), None)

    def double(point: tuple[int, int]) -> tuple[int, int]:
        x, y = point
        t = d * x * x * y * y % p
        return 2 * x * y * pow(1 + t, -1, p) % p, (y * y + x * x) * pow(1 - t, -1, p) % p

    # Any point times the prime order of the base point is a torsion point; some of them have full order 8.
    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        t = d * a[0] * b[0] * a[1] * b[1] % p
        return (
            (a[0] * b[1] + a[1] * b[0]) * pow(1 + t, -1, p) % p,
            (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, p) % p,
        )

    order = 2**252 + 27742317777372353535851937790883648493
    torsion: set[tuple[int, int]] = set()
    y = 2
    while len(torsion) < 8:
        y += 1
        if (x := recover(y)) is None:
            continue
        point, total, n = (x, y), (0, 1), order
        while n:
            if n & 1:
                total = add(total, point)
            point = double(point)
            n >>= 1
        multiple = (0, 1)
        for _ in range(8):
            multiple = add(multiple, total)
            torsion.add(multiple)
    encodings = {value.to_bytes(32, "little") for _, y in torsion for value in (y, y + p) if value < 2**255}
    assert len(encodings) == 7
    for encoding in encodings:
        for sign in (0, 0x80):
            weak = encoding[:-1] + bytes([encoding[-1] | sign])
            rule = "vkey.weak" if int.from_bytes(encoding, "little") < p else "vkey.encoding"
            refusal(ExitCode.COULD_NOT_CHECK, rule, keys.verifier_for, "n", weak)


def test_a_public_key_has_one_encoding() -> None:
    p = 2**255 - 19
    keys.verifier_for("n", (p - 2).to_bytes(32, "little"))
    for y in range(p, 2**255):
        for sign in (0, 1 << 255):
            refusal(
                ExitCode.COULD_NOT_CHECK, "vkey.encoding", keys.verifier_for, "n", (y | sign).to_bytes(32, "little")
            )


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\tb", "a\nb", "a\x00", "a\u00a0b", "a\u2003", "a\u0085", "a" * 256]
)
def test_names_that_cannot_name_a_key_are_refused(name: str) -> None:
    refusal(ExitCode.USAGE, "key.name", keys.generate_signer, name, world())
    refusal(ExitCode.COULD_NOT_CHECK, "vkey.name", keys.verifier_for, name, SIGNER.verifier.public)


def test_name_of_lone_surrogates_is_refused() -> None:
    assert keys.name_problem("\ud800") == "a name that is not Unicode text"


@given(name=names, seed=st.binary(min_size=32, max_size=32))
def test_keys_survive_writing_and_reading(name: str, seed: bytes) -> None:
    signer = keys.signer_from_seed(name, seed)
    assert signer.verifier == keys.parse_vkey(keys.format_vkey(signer.verifier))
    again = keys.parse_skey(keys.format_skey(signer))
    assert (signer.verifier, signer.seed) == (again.verifier, again.seed)


def test_signature_verifies_and_no_other_does() -> None:
    signature = SIGNER.sign(b"message")
    SIGNER.verifier.verify(b"message", signature)
    refusal(ExitCode.SIGNATURE_UNTRUSTED, "signature.wrong", SIGNER.verifier.verify, b"Message", signature)
    for at in range(len(signature)):
        changed = signature[:at] + bytes([signature[at] ^ 0x10]) + signature[at + 1 :]
        refusal(ExitCode.SIGNATURE_UNTRUSTED, "signature.wrong", SIGNER.verifier.verify, b"message", changed)
        refusal(ExitCode.SIGNATURE_UNTRUSTED, "signature.wrong", SIGNER.verifier.verify, b"message", signature[:at])


def test_signature_with_a_scalar_beyond_the_group_order_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = SIGNER.sign(b"message")
    raised = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    refusal(ExitCode.SIGNATURE_UNTRUSTED, "signature.wrong", SIGNER.verifier.verify, b"message", raised)


def test_generated_key_is_the_worlds_randomness_and_keyid_is_its_hash() -> None:
    signer = keys.generate_signer("example.com/log", world())
    assert signer.seed == SEED
    assert signer.verifier.keyid == "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c"


def test_representation_of_a_signer_hides_its_seed() -> None:
    assert "seed" not in repr(SIGNER)
    assert SEED.hex() not in repr(SIGNER)
    assert repr(SEED) not in repr(SIGNER)


def test_verifier_that_was_used_crosses_process_borders() -> None:
    SIGNER.verifier.verify(b"m", SIGNER.sign(b"m"))
    assert SIGNER.verifier == pickle.loads(pickle.dumps(SIGNER.verifier))  # noqa: S301 - our own bytes
    assert SIGNER.verifier.keyid == pickle.loads(pickle.dumps(SIGNER.verifier)).keyid  # noqa: S301 - our own bytes


def test_written_key_file_is_private_and_loads_back(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    previous = os.umask(0o377)
    try:
        keys.write_signer(path, SIGNER)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.format_skey(SIGNER) == path.read_text()
    assert keys.load_signer(path).sign(b"m") == SIGNER.sign(b"m")


def test_existing_file_is_never_replaced_by_a_key(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    path.write_text("precious")
    refusal(ExitCode.LEDGER_UNAVAILABLE, "key.exists", keys.write_signer, path, SIGNER)
    assert path.read_text() == "precious"
    link = tmp_path / "link.key"
    link.symlink_to(tmp_path / "elsewhere")
    refusal(ExitCode.LEDGER_UNAVAILABLE, "key.exists", keys.write_signer, link, SIGNER)
    assert not (tmp_path / "elsewhere").exists()


def test_key_that_cannot_be_created_leaves_nothing(tmp_path: Path) -> None:
    error = refusal(ExitCode.LEDGER_UNAVAILABLE, "key.write", keys.write_signer, tmp_path / "no" / "log.key", SIGNER)
    assert os.strerror(errno.ENOENT) == error.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_key_that_cannot_be_made_durable_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(os, call, fail)
    error = refusal(ExitCode.LEDGER_UNAVAILABLE, "key.write", keys.write_signer, tmp_path / "log.key", SIGNER)
    assert os.strerror(errno.EIO) == error.found
    assert list(tmp_path.iterdir()) == []


def test_key_that_does_not_fit_on_the_disk_is_taken_away() -> None:
    import resource
    import signal
    import tempfile

    # A file size limit is a full disk that needs no privileges; the kernel writes what fits, then no more.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log.key"
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            refusal(ExitCode.LEDGER_UNAVAILABLE, "key.write", keys.write_signer, path, SIGNER)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert not path.exists()


def key_file(directory: Path, content: bytes, mode: int = 0o600) -> Path:
    path = directory / "log.key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


VALID = keys.format_skey(SIGNER).encode()


@pytest.mark.parametrize(
    ("rule", "content"),
    [
        ("key.empty", b""),
        ("key.size", VALID + b"\n" * 4096),
        ("key.form", b"\xff\xfe" + VALID),
        ("key.form", VALID[:-1]),
        ("key.form", VALID + b"\n"),
        ("key.form", VALID * 2),
        ("key.form", b'{"kty":"OKP","crv":"Ed25519"}\n'),
        ("key.form", GO_VKEY.encode() + b"\n"),
        ("key.form", b"PRIVATE+KEY+n\n"),
        ("key.type", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ("key.type", b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
        ("key.type", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"),
        ("key.type", b"PRIVATE+KEY+n+00000000+" + encode(b"\x06" + SEED) + b"\n"),
        ("key.form", b"PRIVATE+KEY+n+00000000+" + encode(b"\x01" + SEED[1:]) + b"\n"),
        ("key.form", b"PRIVATE+KEY+a b+00000000+" + encode(b"\x01" + SEED) + b"\n"),
        ("key.hash", b"PRIVATE+KEY+n+00000000+" + encode(b"\x01" + SEED) + b"\n"),
    ],
)
def test_unfit_key_file_is_refused_under_its_own_rule(tmp_path: Path, rule: str, content: bytes) -> None:
    error = refusal(ExitCode.LEDGER_UNAVAILABLE, rule, keys.load_signer, key_file(tmp_path, content))
    assert encode(b"\x01" + SEED)[:12].decode() not in str(error)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666, 0o700 | 0o007])
def test_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, VALID, mode)
    error = refusal(ExitCode.LEDGER_UNAVAILABLE, "key.permissions", keys.load_signer, path)
    assert error.expected == "mode 0600"
    assert f"{mode:04o}" in str(error.found)


def test_missing_key_file_is_refused(tmp_path: Path) -> None:
    error = refusal(ExitCode.LEDGER_UNAVAILABLE, "key.missing", keys.load_signer, tmp_path / "log.key")
    assert error.fix == "run `govrun init`"


def test_directory_fifo_and_symbolic_link_are_no_key_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "link").symlink_to(key_file(tmp_path, VALID))
    refusal(ExitCode.LEDGER_UNAVAILABLE, "key.regular", keys.load_signer, tmp_path)
    refusal(ExitCode.LEDGER_UNAVAILABLE, "key.regular", keys.load_signer, tmp_path / "fifo")
    refusal(ExitCode.LEDGER_UNAVAILABLE, "key.symlink", keys.load_signer, tmp_path / "link")


def test_unreadable_key_file_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, VALID) / "below"
    error = refusal(ExitCode.LEDGER_UNAVAILABLE, "key.readable", keys.load_signer, path)
    assert os.strerror(errno.ENOTDIR) == error.found


def test_key_file_on_a_broken_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> bytes:
        raise OSError(errno.EIO, "broken disk")

    path = key_file(tmp_path, VALID)
    monkeypatch.setattr(os, "read", fail)
    error = refusal(ExitCode.LEDGER_UNAVAILABLE, "key.readable", keys.load_signer, path)
    assert os.strerror(errno.EIO) == error.found


def test_key_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path, VALID)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    error = refusal(ExitCode.LEDGER_UNAVAILABLE, "key.owner", keys.load_signer, path)
    assert (f"user {owner}", f"user {owner + 1}") == (error.found, error.expected)
