"""Whatever is wrong with files, settings, keys and ledgers: a refusal of its own, nothing executed, nothing changed."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from govrun.errors import GovrunError
from govrun.home import format_trust, load_trust
from govrun.world import real_world
from tests.e2e.place import Place, assert_denied, assert_refused, assert_untouched

Break = Callable[[Place], object]


def refusal_of(place: Place, **wanted: Any) -> GovrunError:
    """The refusal of a command that would leave its mark."""
    with pytest.raises(GovrunError) as refused:
        place.call(argv=place.mark, **wanted)
    assert 0 == place.runs
    # What a person needs: what was expected, and what became of the request.
    assert None is not refused.value.expected
    assert str(refused.value.effect).startswith("nothing was executed")
    return refused.value


def assert_unrecorded(place: Place, code: int, rule: str, **wanted: Any) -> None:
    before = place.ledger.read_bytes() if place.ledger.is_file() else None
    refusal = refusal_of(place, **wanted)
    assert (code, rule) == (refusal.code, refusal.rule)
    assert "nothing was executed and nothing was recorded" == refusal.effect
    assert before == (place.ledger.read_bytes() if place.ledger.is_file() else None)
    assert [] == place.leftovers()


def assert_recorded(place: Place, code: int, rule: str, **wanted: Any) -> None:
    size = place.size
    refusal = refusal_of(place, **wanted)
    assert (code, rule) == (refusal.code, refusal.rule)
    assert f"nothing was executed; refusal recorded as entry {size}" == refusal.effect
    assert_denied(place, size, rule)


DOCUMENTS = {
    "truncated": (b"format = 1\n[back", "toml"),
    "oversized": (b"# " + b"x" * 300_000, "size"),
    "deep": (b"x = " + b"[" * 5000 + b"]" * 5000, "depth"),
    "deep key": (b"a." * 5000 + b"b = 1", "depth"),
    "duplicate": (b"format = 1\nformat = 1\n", "toml"),
    "not utf-8": (b"format = 1 # \xff", "utf8"),
    "nul": (b"format = 1\0", "toml"),
    "long number": (b"format = " + b"9" * 5000, "toml"),
}
MISFITS = {
    "another type": b'format = "1"',
    "newer": b"format = 2",
    "unknown key": b"format = 1\nforce = true\n",
    "date": b"format = 1979-05-27",
    "nan": b"format = nan",
}


@pytest.mark.parametrize("kind", [*DOCUMENTS, *MISFITS, "empty", "comment", "directory", "fifo"])
@pytest.mark.parametrize("file", ["config.toml", "policy.toml"])
def test_a_config_or_policy_that_is_not_whole_is_refused(place: Place, file: str, kind: str) -> None:
    path, name = place.home / file, file.removesuffix(".toml")
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        empty = {"empty": b"", "comment": b"# nothing\n"}
        path.write_bytes(DOCUMENTS[kind][0] if kind in DOCUMENTS else MISFITS.get(kind, empty.get(kind, b"")))
    if kind in DOCUMENTS:
        rule = f"{name}.{DOCUMENTS[kind][1]}"
    elif kind in MISFITS:
        rule = f"schema.{name}-v1"
    else:
        rule = f"{name}.empty" if kind in ("empty", "comment") else f"{name}.readable"
    if name == "config":
        assert_unrecorded(place, 10, rule)
    else:
        assert_recorded(place, 11, rule)


def test_a_missing_policy_allows_nothing(place: Place) -> None:
    (place.home / "policy.toml").unlink()
    assert_recorded(place, 11, "policy.missing")


def test_a_policy_without_a_backend_is_refused(place: Place) -> None:
    place.policy("[backends]\n")
    assert_recorded(place, 11, "schema.policy-v1")


def test_a_missing_config_is_an_empty_one(place: Place) -> None:
    (place.home / "config.toml").unlink()
    assert 0 == place.call(argv=place.mark).exit


@pytest.mark.parametrize("kind", [*DOCUMENTS, *MISFITS, "fifo"])
@pytest.mark.parametrize("file", ["govrun.toml", "pyproject.toml"])
def test_a_projects_settings_that_are_not_whole_are_refused(place: Place, file: str, kind: str) -> None:
    path = place.work / file
    if kind == "fifo":
        os.mkfifo(path)
    else:
        data = DOCUMENTS[kind][0] if kind in DOCUMENTS else MISFITS[kind]
        path.write_bytes((b"[tool.govrun]\n" if file == "pyproject.toml" else b"") + data)
    rules = {"fifo": "project.readable", **{k: f"project.{rule}" for k, (_, rule) in DOCUMENTS.items()}}
    assert_recorded(place, 10, rules.get(kind, "schema.project-v1"))


@pytest.mark.parametrize(
    "text", ["home = '/x'", "ledger = '/x'", "policy = '/x'", "backend = 'x'", "[settings]\nX = '1'"]
)
def test_a_project_may_not_set_what_is_the_operators(place: Place, text: str) -> None:
    (place.work / "govrun.toml").write_text(text + "\n")
    assert_recorded(place, 10, "schema.project-v1")


def test_a_pyproject_of_others_is_none_of_our_business(place: Place) -> None:
    (place.work / "pyproject.toml").write_bytes(b"not toml at all \xff")
    assert 0 == place.call(argv=place.mark).exit


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        *((f"ledgerTimeoutMs = {v}", "schema.config-v1") for v in ("0", "-1", "1.5", "'x'", "true", "3600001", "[]")),
        *((f"digests = {v}", "schema.config-v1") for v in ("'none'", "''", "1", "false")),
        *((f"backend = {v}", "schema.config-v1") for v in ("'../x'", "''", "1", "'Process'")),
        *((f"ledger = {v}", "settings.ledger") for v in ("'x'", "''", "'~/x'", "'/a/../b'")),
        *((f"policy = {v}", "settings.policy") for v in ("'x'", "''", "'~/x'", "'/a/../b'")),
        ("ledger = 1", "schema.config-v1"),
        ("[settings]\nlower = 'x'", "schema.config-v1"),
        ("[settings]\nX = 1.5", "schema.config-v1"),
        ("[tasks]\na = 1", "schema.config-v1"),
        ("home = '/x'", "schema.config-v1"),
    ],
)
def test_a_wrong_value_in_config_is_refused(place: Place, line: str, rule: str) -> None:
    place.config(line + "\n")
    assert_unrecorded(place, 10, rule, backend=None)


@pytest.mark.parametrize(
    ("name", "value", "code", "rule"),
    [
        *(
            (f"GOVRUN_{name.upper()}", value, 10, f"settings.{name}")
            for name in ("home", "ledger", "policy")
            for value in ("", "relative/x", "~/x", "/a/../b")
        ),
        ("GOVRUN_HOME", "/proc/nothing/here", 15, "home.missing"),
        ("GOVRUN_HOME", "/dev/null", 15, "home.directory"),
        ("GOVRUN_LEDGER", "/proc/nothing/here", 15, "ledger.missing"),
        ("GOVRUN_LEDGER", "/dev/null", 15, "ledger.regular"),
        *(("XDG_CONFIG_HOME", value, 10, "settings.XDG_CONFIG_HOME") for value in ("relative/x", "~/x", "/a/../b")),
        ("XDG_CONFIG_HOME", "/proc/nothing/here", 15, "home.planted"),
    ],
)
def test_a_wrong_value_in_the_environment_is_refused(place: Place, name: str, value: str, code: int, rule: str) -> None:
    place.extra[name] = value
    assert_unrecorded(place, code, rule)


@pytest.mark.parametrize(
    ("name", "value", "code", "rule"),
    [
        *(("GOVRUN_BACKEND", value, 10, "request.backend") for value in ("", "../x", "Process", "x\n", "/x\udcff")),
        ("GOVRUN_BACKEND", "nosuch", 12, "registry.unknown"),
        ("GOVRUN_POLICY", "/proc/nothing/here", 11, "policy.missing"),
        ("GOVRUN_POLICY", "/proc", 11, "policy.readable"),
    ],
)
def test_a_wrong_choice_in_the_environment_is_refused_and_recorded(
    place: Place, name: str, value: str, code: int, rule: str
) -> None:
    place.extra[name] = value
    assert_recorded(place, code, rule, **({"backend": None} if name == "GOVRUN_BACKEND" else {}))


def test_a_state_directory_that_cannot_be_made_is_a_warning_not_a_loss(place: Place) -> None:
    place.extra["XDG_STATE_HOME"] = "/proc/nothing/here"
    assert 0 == place.call(argv=place.mark).exit


def test_without_any_place_for_its_files_govrun_refuses(bare: Place) -> None:
    environ = {k: v for k, v in bare.environ.items() if k not in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")}
    place = bare
    place.init("process")
    with pytest.raises(GovrunError) as refused:
        place.call(argv=place.mark, world=real_world(environ), home=str(place.home))
    assert (15, "guard.place") == (refused.value.code, refused.value.rule)
    assert_untouched(place, 1)


NUMBERS = ["", "x", "1.5", "0", "-1", "1e9", "99999999999", " 1", "٣"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (name, n)
        for name in ("THREADS", "CTX", "N_PREDICT", "BATCH", "SEED")
        for n in NUMBERS
        if (name, n) != ("SEED", "0")
    ],
)
def test_a_wrong_number_for_a_backend_is_refused(place: Place, name: str, number: str) -> None:
    place.policy("[backends.llamacpp]\n")
    place.extra[f"LLAMACPP_{name}"] = number
    size = place.size
    refusal = refusal_of(place, backend="llamacpp", prompt="x")
    assert refusal.code in (10, 13), refusal
    assert_denied(place, size, refusal.rule)


@pytest.mark.parametrize("path", ["", "model.gguf", "~/m.gguf", "/a/../m.gguf", "/proc/nothing", "/dev/null", "/proc"])
def test_a_wrong_model_for_a_backend_is_refused(place: Place, path: str) -> None:
    place.policy("[backends.llamacpp]\n")
    place.extra["LLAMACPP_MODEL_GGUF"] = path
    size = place.size
    refusal = refusal_of(place, backend="llamacpp", prompt="x")
    assert 13 == refusal.code
    assert_denied(place, size, refusal.rule)


@pytest.mark.parametrize(
    ("document", "rule"),
    [
        (b"", "request.empty"),
        (b" \n", "request.empty"),
        (b"{", "request.json"),
        (b'{"backend": "process", "argv": ["x"', "request.json"),
        (b"\xff\xfe", "request.json"),
        (b"[" * 1000 + b"]" * 1000, "request.json"),
        (b"[" * 100_000, "request.json"),
        (b'{"backend": "process", "backend": "process"}', "request.duplicate"),
        (b'{"backend": "process", "wallMs": 1.0}', "request.number"),
        (b'{"backend": "process", "wallMs": 1e3}', "request.number"),
        (b'{"backend": "process", "wallMs": ' + b"9" * 300 + b"}", "schema.request-v1"),
        (b'{"backend": "process", "wallMs": ' + b"9" * 5000 + b"}", "request.json"),
        (b'{"backend": "process", "wallMs": NaN}', "request.json"),
        (b'{"backend": "process", "force": true}', "schema.request-v1"),
        (b'{"backend": "process", "argv": "x"}', "schema.request-v1"),
        (b'{"backend": "process", "okExit": []}', "schema.request-v1"),
        (b'{"backend": "process", "okExit": [256]}', "schema.request-v1"),
        (b'{"argv": []}', "schema.request-v1"),
        (b"[]", "schema.request-v1"),
        (b"null", "schema.request-v1"),
        (b'{"backend": "process", "prompt": "\\ud800"}', "request.json"),
        (b'{"backend": "process", "prompt": "' + b"x" * (2 << 20) + b'"}', "request.size"),
    ],
)
def test_a_request_document_that_is_not_whole_is_refused_and_recorded(place: Place, document: bytes, rule: str) -> None:
    done = place.go("run", "--request", "-", stdin=document)
    assert_refused(done, 10, rule, "found:", "expected:")
    assert_denied(place, 1, rule)
    denied = place.last("denied")
    assert (None, None, "request") == (denied["request"], denied["backend"], denied["stage"])


def sql(statement: str) -> Break:
    def change(place: Place) -> None:
        connection = sqlite3.connect(place.ledger)
        connection.execute(statement)
        connection.commit()
        connection.close()

    return change


def foreign(place: Place) -> None:
    place.ledger.unlink()
    sql("CREATE TABLE x (y)")(place)
    place.ledger.chmod(0o600)


def flipped(at: int) -> Break:
    def change(place: Place) -> None:
        data = bytearray(place.ledger.read_bytes())
        data[at] ^= 0xFF
        place.ledger.write_bytes(data)

    return change


def linked(place: Place) -> None:
    place.ledger.rename(place.home / "real")
    place.ledger.symlink_to("real")


LEDGERS: dict[str, tuple[Break, str]] = {
    "missing": (lambda p: p.ledger.unlink(), "ledger.missing"),
    "empty": (lambda p: p.ledger.write_bytes(b""), "ledger.foreign"),
    "garbage": (lambda p: p.ledger.write_bytes(b"garbage" * 1000), "ledger.foreign"),
    "truncated": (lambda p: os.truncate(p.ledger, 5000), "ledger.corrupt"),
    "magic": (flipped(0), "ledger.foreign"),
    "header": (flipped(20), "ledger.corrupt"),
    "foreign": (foreign, "ledger.foreign"),
    "newer": (sql("PRAGMA user_version = 2"), "ledger.newer"),
    "trigger": (sql("CREATE TRIGGER t AFTER INSERT ON entry BEGIN SELECT 1; END"), "ledger.form"),
    "entry changed": (sql("UPDATE entry SET leaf = x'00' WHERE idx = 0"), "ledger.leaf"),
    "entry gone": (sql("DELETE FROM entry"), "ledger.damaged"),
    "node changed": (sql("UPDATE node SET hash = zeroblob(32)"), "ledger.root"),
    "checkpoint gone": (sql("DELETE FROM checkpoint"), "ledger.head"),
    "checkpoint changed": (sql("UPDATE checkpoint SET note = x'00'"), "note.form"),
    "another origin": (sql("UPDATE meta SET value = 'other'"), "ledger.origin"),
    "writable by others": (lambda p: p.ledger.chmod(0o666), "ledger.permissions"),
    "a link": (linked, "ledger.regular"),
    "a directory": (lambda p: (p.ledger.unlink(), p.ledger.mkdir()), "ledger.regular"),
}


@pytest.mark.parametrize("kind", LEDGERS)
def test_a_ledger_that_is_not_whole_refuses_every_run(place: Place, kind: str) -> None:
    place.is_whole = False
    LEDGERS[kind][0](place)
    refusal = refusal_of(place)
    assert (15, LEDGERS[kind][1]) == (refusal.code, refusal.rule)
    assert "nothing was executed and nothing was recorded" == refusal.effect
    assert [] == place.leftovers()


def test_a_read_only_ledger_refuses_every_run(place: Place) -> None:
    if os.geteuid() == 0:
        bound = subprocess.run(["mount", "--bind", place.home, place.home], capture_output=True)
        ours = subprocess.run(["mount", "-o", "remount,bind,ro", place.home], capture_output=True)
        if bound.returncode or ours.returncode:
            pytest.skip("SKIPPED ALOUD: a directory cannot be mounted read-only here")
        try:
            refusal = refusal_of(place)
        finally:
            subprocess.run(["umount", place.home], check=True)
    else:
        place.home.chmod(0o500)
        place.ledger.chmod(0o400)
        refusal = refusal_of(place)
        place.home.chmod(0o700)
    assert 15 == refusal.code
    assert_untouched(place, 1)


KEYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda k: k.unlink(), "key.missing"),
    "empty": (lambda k: k.write_bytes(b""), "key.empty"),
    "readable by others": (lambda k: k.chmod(0o644), "key.permissions"),
    "pem": (lambda k: k.write_text("-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"), "key.type"),
    "truncated": (lambda k: k.write_bytes(k.read_bytes()[:-9]), "key.form"),
    "changed": (lambda k: k.write_bytes(k.read_bytes()[:-9] + b"AAAAAAAA\n"), "key.hash"),
    "too large": (lambda k: k.write_bytes(b"x" * 5000), "key.size"),
    "a directory": (lambda k: (k.unlink(), k.mkdir()), "key.regular"),
    "a fifo": (lambda k: (k.unlink(), os.mkfifo(k, 0o600)), "key.regular"),
    "a link": (lambda k: (k.rename(k.with_suffix(".real")), k.symlink_to(k.with_suffix(".real"))), "key.symlink"),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("role", ["receipt", "log"])
def test_a_key_that_is_not_whole_refuses_every_run(place: Place, role: str, kind: str) -> None:
    KEYS[kind][0](place.home / "keys" / f"{role}.key")
    assert_unrecorded(place, 15, KEYS[kind][1])


@pytest.mark.skipif(os.geteuid() == 0, reason="SKIPPED ALOUD: root can read every file")
def test_a_key_that_cannot_be_read_refuses_every_run(place: Place) -> None:
    (place.home / "keys" / "receipt.key").chmod(0o000)
    assert_unrecorded(place, 15, "key.readable")


@pytest.mark.parametrize(("role", "rule"), [("receipt", "ledger.receiptKey"), ("log", "ledger.origin")])
def test_a_key_of_another_ledger_refuses_every_run(place: Place, role: str, rule: str) -> None:
    other = Place(place.root / "other", {"XDG_CONFIG_HOME": str(place.root / "other" / "config")})
    other.work.mkdir(parents=True)
    other.init("process")
    shutil.copy(other.home / "keys" / f"{role}.key", place.home / "keys" / f"{role}.key")
    assert_unrecorded(place, 15, rule)


def test_a_home_that_came_with_a_checked_out_repository_is_not_used(place: Place) -> None:
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")
    (place.home / ".gitignore").unlink()
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "x"), ("clone", "-q", ".", "../clone")):
        subprocess.run([*git, *words], cwd=place.work, check=True, capture_output=True, env=place.environ)
    clone = place.root / "clone"
    assert (clone / ".govrun" / "policy.toml").exists()
    done = place.run("--", *place.mark, cwd=clone)
    # git gives a cloned directory the mode of the umask.
    assert_refused(done, 15, "home.planted", "found:", "expected:", "fix:", recorded=False)
    assert not (clone / "executed").exists()
    shutil.rmtree(place.work / ".git")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda p: p.home.chmod(0o770), "home.writable"),
        (lambda p: p.home.chmod(0o707), "home.writable"),
        (lambda p: (p.home.rename(p.work / "real"), p.home.symlink_to("real")), "home.directory"),
        (lambda p: (p.home.rename(p.work / "real"), p.home.write_text("")), "home.directory"),
        (lambda p: (p.home.rename(p.work / "real"), p.home.symlink_to("gone")), "home.directory"),
    ],
)
def test_a_home_that_others_may_have_made_is_not_used(place: Place, change: Break, rule: str) -> None:
    place.is_whole = False
    change(place)
    refusal = refusal_of(place)
    assert (15, rule) == (refusal.code, refusal.rule)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff", b"format = 1\n"])
def test_a_broken_trust_file_refuses_under_a_code_that_says_nothing_ran(place: Place, data: bytes) -> None:
    (place.root / "config" / "govrun" / "trust" / "broken.toml").write_bytes(data)
    refusal = refusal_of(place)
    assert 15 == refusal.code
    (place.root / "config" / "govrun" / "trust" / "broken.toml").unlink()
    assert_untouched(place, 1)


def test_an_old_copy_of_the_ledger_is_refused(place: Place) -> None:
    old = place.ledger.read_bytes()
    place.call(argv=("/bin/true",))
    newest = place.ledger.read_bytes()
    place.ledger.write_bytes(old)
    done = place.run("--", *place.mark)
    assert_refused(
        done, 16, "ledger.rolledBack", "found:    tree size 1", "expected: at least 3", "fix:", recorded=False
    )
    assert_untouched(place, 1)
    place.ledger.write_bytes(newest)
    assert 0 == place.call(argv=place.mark).exit


def test_a_working_directory_that_was_removed_is_refused(place: Place) -> None:
    gone = place.work / "gone"
    gone.mkdir()

    def remove() -> None:
        os.chdir(gone)
        gone.rmdir()

    done = place.run("--", *place.mark, preexec_fn=remove)
    assert_refused(done, 10, "request.cwd", "expected: a directory that exists", recorded=False)
    assert_untouched(place, 1)


def test_a_locked_ledger_refuses_after_the_deadline(place: Place) -> None:
    place.config("ledgerTimeoutMs = 50\n")
    descriptor = os.open(place.home / "ledger.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    done = place.run("--", *place.mark)
    os.close(descriptor)
    assert_refused(done, 15, "ledger.locked", "found:    locked for 50 ms", "expected:", "fix:", recorded=False)
    assert_untouched(place, 1)


def test_the_trust_file_is_what_makes_a_found_home_ours(place: Place) -> None:
    [path] = (place.root / "config" / "govrun" / "trust").glob("*.toml")
    assert str(place.home).encode() in format_trust(load_trust(path))
    path.rename(place.root / "aside")
    assert_unrecorded(place, 15, "home.planted")
    (place.root / "aside").rename(path)


def test_what_the_policy_forbids_in_the_plan_is_refused_before_anything_runs(place: Place) -> None:
    place.policy("[limits]\nwallMs = 1000\n[backends.process]\nfreeArgv = true\n")
    assert_refused(place.run("--timeout", "5", "--", *place.mark), 11, "policy.limit")
    assert_denied(place, 1, "policy.limit")
