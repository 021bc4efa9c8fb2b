"""An export is one spelling of one ledger: equal ledgers give equal bytes, and every other zip is refused."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
import subprocess
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from govrun import schemas
from govrun.audit.verify import verify_ledger
from govrun.cli.kept_policies import kept_policies
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.ledger import archive
from govrun.ledger.archive import Member, write_archive
from govrun.ledger.export import Exported, export
from govrun.ledger.publish import publish
from govrun.ledger.read import open_ledger
from govrun.ledger.read_export import ExportFiles
from govrun.ledger.salts import Salts
from govrun.ledger.tile import Bundle, Tile, bundles_of, format_tile_path, tiles_of
from tests.audit import ledgers
from tests.audit.ledgers import LOG, ORIGIN, STRANGER, TRUSTED, Ledger
from tests.ledger.ledger_world import world

POLICY = b"format = 1\n[backends.bitnet]\n"
DIGEST = sha256_hex(POLICY)


def six(**changes: str) -> Ledger:
    ledger = Ledger()
    ledger.add(ledgers.genesis(policy={"sha256": DIGEST}))
    ledger.invoke(1, 1, policy={"sha256": DIGEST})
    ledger.add(ledgers.denied(3, policy={"sha256": DIGEST}))
    ledger.invoke(2, 4, policy={"sha256": "9" * 64})
    return ledger


def exported(source: Path, file: Path, policies: dict[str, bytes] | None = None) -> Exported:
    reader = open_ledger(source)
    try:
        return export(reader, file, LOG.verifier, (policies or {}).get, world())
    finally:
        reader.close()


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("export")
    exported(ledgers.write_sqlite(six(), place), place / "it.zip", {DIGEST: POLICY})
    return (place / "it.zip").read_bytes()


def verdict(file: Path) -> int:
    """The exit code of a verification, or of the refusal to open the file; only our errors come out."""
    try:
        reader = open_ledger(file)
    except GovrunError as error:
        return int(error.code)
    try:
        return int(verify_ledger(reader, TRUSTED).exit_code)
    finally:
        reader.close()


def refused(file: Path, code: ExitCode, rule: str) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        open_ledger(file)
    assert (code, rule) == (caught.value.code, caught.value.rule), caught.value
    return caught.value


def test_an_export_has_the_files_of_its_size_and_verifies(tmp_path: Path) -> None:
    for size in (1, 255, 257, 601):
        ledger = ledgers.many(size)
        done = exported(ledgers.write_sqlite(ledger, tmp_path / str(size)), tmp_path / f"{size}.zip")
        count = len(ledger.leaves)
        names = [format_tile_path(tile) for tile in (*bundles_of(count), *tiles_of(count))]
        expected = ["README.md", "checkpoint", *(f"schemas/{name}.json" for name in sorted(schemas.NAMES)), *names]
        with zipfile.ZipFile(tmp_path / f"{size}.zip") as file:
            assert expected == file.namelist()
            assert file.testzip() is None
            assert ledger.notes[count] == file.read("checkpoint")
            assert ORIGIN in file.read("README.md").decode()
        assert (count, len(expected), (tmp_path / f"{size}.zip").stat().st_size, (ledgers.POLICY_DIGEST,)) == (
            done.size,
            done.members,
            done.byte_count,
            done.missing,
        )
        assert 0 == verdict(tmp_path / f"{size}.zip")


def test_every_form_of_a_ledger_gives_the_same_bytes(tmp_path: Path, zipped: bytes) -> None:
    source = ledgers.write_sqlite(six(), tmp_path / "store")
    reader = open_ledger(source)
    publish(reader, tmp_path / "public", LOG.verifier)
    reader.close()
    (tmp_path / "it.zip").write_bytes(zipped)
    for number, form in enumerate((source, tmp_path / "public", tmp_path / "it.zip")):
        exported(form, tmp_path / f"{number}.zip", {DIGEST: POLICY})
        assert zipped == (tmp_path / f"{number}.zip").read_bytes(), form


def test_the_policies_that_entries_name_come_along_and_no_others(tmp_path: Path) -> None:
    done = exported(
        ledgers.write_sqlite(six(), tmp_path), tmp_path / "it.zip", {DIGEST: POLICY, sha256_hex(b"other"): b"other"}
    )
    assert ("9" * 64,) == done.missing
    files = ExportFiles(tmp_path / "it.zip")
    assert (POLICY,) == files.policies()
    files.close()


def test_neither_keys_nor_salts_are_in_it(tmp_path: Path) -> None:
    source = ledgers.write_sqlite(six(), tmp_path / "home")
    secret = bytes(range(1, 33))
    Salts(tmp_path / "home" / "salts").write(1, [secret])
    (tmp_path / "home" / "keys").mkdir()
    (tmp_path / "home" / "keys" / "log.key").write_bytes(b"PRIVATE")
    exported(source, tmp_path / "it.zip")
    data = (tmp_path / "it.zip").read_bytes()
    assert secret not in data
    assert secret.hex().encode() not in data
    assert b"PRIVATE" not in data
    assert b"log.vkey" not in data


def test_any_unzip_gives_a_published_ledger(tmp_path: Path, zipped: bytes) -> None:
    (tmp_path / "it.zip").write_bytes(zipped)
    with zipfile.ZipFile(tmp_path / "it.zip") as file:
        file.extractall(tmp_path / "python")
    assert 0 == verdict(tmp_path / "python")
    if (unzip := shutil.which("unzip")) is not None:
        done = subprocess.run([unzip, "-q", "it.zip", "-d", "unzip"], cwd=tmp_path, capture_output=True, timeout=30)
        assert (0, b"") == (done.returncode, done.stderr)
        assert 0 == verdict(tmp_path / "unzip")
        assert 0o644 == (tmp_path / "unzip" / "checkpoint").stat().st_mode & 0o777


def test_a_file_is_never_written_over_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    source = ledgers.write_sqlite(six(), tmp_path / "store")
    target = tmp_path / "out" / "it.zip"
    target.parent.mkdir()
    target.write_bytes(b"precious")
    with pytest.raises(GovrunError) as caught:
        exported(source, target)
    assert (ExitCode.COULD_NOT_CHECK, "export.exists") == (caught.value.code, caught.value.rule)
    assert b"precious" == target.read_bytes()
    target.unlink()
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GovrunError):
        exported(source, target)
    target.unlink()
    bad = six()
    bad.nodes[3] = b"x" * 32
    with pytest.raises(GovrunError) as caught:
        exported(ledgers.write_sqlite(bad, tmp_path / "bad"), target)
    assert (ExitCode.LEDGER_INCONSISTENT, "publish.tree") == (caught.value.code, caught.value.rule)
    reader = open_ledger(source)
    with pytest.raises(GovrunError) as caught:
        export(reader, target, STRANGER.verifier, lambda _: None, world())
    reader.close()
    assert ExitCode.SIGNATURE_UNTRUSTED == caught.value.code
    with pytest.raises(GovrunError) as caught:
        exported(source, tmp_path / "none" / "it.zip")
    assert (ExitCode.COULD_NOT_CHECK, "export.file") == (caught.value.code, caught.value.rule)
    assert [] == os.listdir(target.parent)


def test_a_file_that_comes_meanwhile_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ledgers.write_sqlite(six(), tmp_path / "store")
    target = tmp_path / "out" / "it.zip"
    target.parent.mkdir()
    reader = open_ledger(source)

    def meanwhile(_: int, __: int) -> None:
        target.write_bytes(b"precious")

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links on this file system")

    for _ in range(2):
        with pytest.raises(GovrunError) as caught:
            export(reader, target, LOG.verifier, lambda _: None, world(), meanwhile)
        assert "export.exists" == caught.value.rule
        assert (["it.zip"], b"precious") == (os.listdir(target.parent), target.read_bytes())
        monkeypatch.setattr(os, "link", no_links)
    target.unlink()
    export(reader, target, LOG.verifier, lambda _: None, world())
    reader.close()
    assert (["it.zip"], 0) == (os.listdir(target.parent), verdict(target))


def test_no_flipped_byte_and_no_cut_of_an_export_verifies(tmp_path: Path, zipped: bytes) -> None:
    file = tmp_path / "it.zip"
    tree = zipped.index(b"tile/0/000.p/6") - 30
    listed = zipped.index(b"PK\x01\x02")
    policy = zipped.index(b"policies/") - 30
    # Every byte of the list, and of a whole member, header and all; of the rest every so many.
    for at in {
        *range(0, len(zipped), 251),
        *range(tree, policy),
        *range(listed, listed + 200),
        *range(len(zipped) - 90, len(zipped)),
    }:
        file.write_bytes(zipped[:at] + bytes([zipped[at] ^ 1]) + zipped[at + 1 :])
        assert verdict(file) in (40, 41, 45), at
    for length in (*range(0, len(zipped), 997), *range(len(zipped) - 30, len(zipped))):
        file.write_bytes(zipped[:length])
        assert verdict(file) in (40, 45), length


def members(zipped: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(zipped)) as file:
        return [(name, file.read(name)) for name in file.namelist()]


def ours(changed: list[tuple[str, bytes]]) -> bytes:
    target = io.BytesIO()
    write_archive(target, changed)
    return target.getvalue()


def theirs(
    listed: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED, change: Callable[[zipfile.ZipInfo], None] = id
) -> bytes:
    """What Python's own zip writer makes of it."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in listed:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = 0o100644 << 16
            change(info)
            file.writestr(info, data)
    return target.getvalue()


def link(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o120777 << 16


def commented(data: bytes) -> bytes:
    return data[:-2] + struct.pack("<H", 5) + b"hello"


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("by another program", lambda z: theirs(members(z))),
        ("compressed", lambda z: theirs(members(z), zipfile.ZIP_DEFLATED)),
        ("a bomb", lambda z: theirs([*members(z), ("tile/0/001", bytes(50 << 20))], zipfile.ZIP_DEFLATED)),
        ("links", lambda z: theirs(members(z), change=link)),
        ("out of the directory", lambda z: ours([*members(z), ("../evil", b"x")])),
        ("an absolute name", lambda z: ours([*members(z), ("/etc/evil", b"x")])),
        ("dots in a tile", lambda z: ours([*members(z), ("tile/../../evil", b"x")])),
        ("a directory", lambda z: ours([*members(z), ("tile/", b"")])),
        ("an unknown name", lambda z: ours([*members(z), ("log.vkey", b"x")])),
        ("salts", lambda z: ours([*members(z), ("salts", bytes(32))])),
        ("a name with NUL", lambda z: ours([*members(z), ("checkpoint\0x", b"x")])),
        ("the same name twice", lambda z: ours([*members(z), members(z)[1]])),
        ("two spellings of a tile", lambda z: ours([*members(z), ("tile/0/x000/000.p/6", b"x" * 192)])),
        ("a tile that is too large", lambda z: ours([*members(z), ("tile/0/001", bytes(8193))])),
        ("a note that is too large", lambda z: ours([(n, d if n != "checkpoint" else d * 999) for n, d in members(z)])),
        ("a comment", commented),
        ("bytes behind", lambda z: z + b"x"),
        ("another zip behind", lambda z: z + z),
        ("bytes before", lambda z: b"PK" + z),
        ("a program before", lambda z: b"PK\x03\x04" + b"#!/bin/sh\n" + z),
        ("nothing but an end", lambda z: z[-22:]),
        ("many members", lambda z: z[:-14] + struct.pack("<HHIIH", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)),
        ("a list of 4 GB", lambda z: z[:-10] + struct.pack("<IIH", 0xFFFFFFFE, 0, 0)),
    ],
)
def test_every_other_zip_is_refused_at_once(
    tmp_path: Path, zipped: bytes, name: str, make: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "it.zip").write_bytes(make(zipped))
    began = time.monotonic()
    refused(tmp_path / "it.zip", ExitCode.COULD_NOT_CHECK, "export.form")
    assert time.monotonic() - began < 2


def test_an_encrypted_member_is_refused(tmp_path: Path, zipped: bytes) -> None:
    data = bytearray(zipped)
    at = zipped.index(b"PK\x01\x02") + 8
    data[at] |= 1
    (tmp_path / "it.zip").write_bytes(data)
    assert "not encrypted" in str(refused(tmp_path / "it.zip", ExitCode.COULD_NOT_CHECK, "export.form").expected)


def test_a_local_header_that_says_otherwise_than_the_list_is_refused(tmp_path: Path, zipped: bytes) -> None:
    at = zipped.index(b"checkpoint")
    (tmp_path / "it.zip").write_bytes(zipped[:at] + b"checkpoinT" + zipped[at + 10 :])
    refused(tmp_path / "it.zip", ExitCode.LEDGER_INCONSISTENT, "export.member")


def test_a_policy_that_is_not_what_its_name_says_is_refused(tmp_path: Path, zipped: bytes) -> None:
    (tmp_path / "it.zip").write_bytes(
        ours([(n, d + b"#" if n.startswith("policies/") else d) for n, d in members(zipped)])
    )
    refused(tmp_path / "it.zip", ExitCode.LEDGER_INCONSISTENT, "export.policy")


def test_what_has_a_digest_and_is_no_policy_is_not_one(tmp_path: Path, zipped: bytes) -> None:
    stranger = b"not a policy"
    name = f"policies/{sha256_hex(stranger)}.toml"
    (tmp_path / "it.zip").write_bytes(ours([*members(zipped), (name, stranger)]))
    assert [DIGEST] == [policy.digest for policy in kept_policies(str(tmp_path / "it.zip"), None)]
    assert 0 == verdict(tmp_path / "it.zip")


def test_an_export_without_a_checkpoint_or_a_tile_is_no_ledger(tmp_path: Path, zipped: bytes) -> None:
    for kept in ([], [one for one in members(zipped) if one[0] != "checkpoint"]):
        (tmp_path / "it.zip").write_bytes(ours(kept))
        refused(tmp_path / "it.zip", ExitCode.COULD_NOT_CHECK, "ledger.missing")
    for name in ("tile/0/000.p/6", "tile/entries/000.p/6"):
        (tmp_path / "it.zip").write_bytes(ours([one for one in members(zipped) if one[0] != name]))
        assert 40 == verdict(tmp_path / "it.zip")


def test_more_members_than_16_bits_count(tmp_path: Path) -> None:
    # What a ledger of some 16 million entries has.
    count = 70_000
    tiles = [(format_tile_path(Tile(63, index, 1)), bytes(32)) for index in range(count)]
    file = tmp_path / "it.zip"
    file.write_bytes(ours(tiles))
    with zipfile.ZipFile(file) as read:
        assert count == len(read.namelist())
    files = ExportFiles(file)
    assert bytes(32) == files.fetch(tiles[-1][0], 32)
    files.close()


def test_a_member_behind_4_gigabytes_is_read(tmp_path: Path) -> None:
    # Full bundles of zeros, in a file that has no blocks for them.
    size = 256 * 65_537
    crc = zlib.crc32(bytes(size))
    offset, central = 0, b""
    with open(tmp_path / "it.zip", "wb") as target:
        for index in range(258):
            member = Member(format_tile_path(Bundle(index, 256)).encode(), size, crc, offset)
            target.seek(offset)
            target.write(archive._local(member))
            central += archive._central(member)
            offset = member.end
        target.seek(offset)
        target.write(central + archive._ending(258, offset, len(central)))
    assert offset > 1 << 32
    with zipfile.ZipFile(tmp_path / "it.zip") as read:
        assert read.getinfo("tile/entries/257").header_offset == offset - size - 30 - len("tile/entries/257")
    files = ExportFiles(tmp_path / "it.zip")
    assert bytes(size) == files.fetch("tile/entries/257", size)
    files.close()
