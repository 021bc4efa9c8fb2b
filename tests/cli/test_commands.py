"""The commands besides `run`: what they show, and that none of them starts or writes what it should not."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from govrun import __version__
from tests.e2e.place import Place


def test_init_makes_a_home_for_its_owner_alone(bare: Place) -> None:
    done = bare.go("init")
    assert (0, b"") == (done.code, done.out)
    for word in ("made", "origin", "nothing may run yet; name backends there", "trust", "root key"):
        assert word in done.err
    assert 0o700 == stat.S_IMODE(bare.home.stat().st_mode)
    for path in bare.home.rglob("*"):
        assert 0 == path.stat().st_mode & 0o077, path
    assert "*\n" == (bare.home / ".gitignore").read_text()
    assert ["genesis"] == bare.kinds()
    refused = bare.run("--", *bare.mark)
    assert (11, 0) == (refused.code, bare.runs)


def test_init_allows_what_is_named_and_nothing_else(bare: Place) -> None:
    done = bare.go("init", "--allow", "process", "--origin", "example.org/log", "--json")
    assert {"origin": "example.org/log", "allowed": ["process"]}.items() <= done.json.items()
    assert 0 == bare.run("--", "/bin/true").code
    assert "example.org/log" == bare.verify().origin
    assert 11 == bare.go("run", "--backend", "llamacpp", "--prompt", "x").code


def test_init_makes_the_home_where_it_is_told(bare: Place) -> None:
    assert 0 == bare.go("init", "--home", "elsewhere").code
    assert 0 == bare.go("init", env={"GOVRUN_HOME": str(bare.work / "third")}).code
    assert (True, True, False) == (
        (bare.work / "elsewhere").is_dir(),
        (bare.work / "third").is_dir(),
        bare.home.exists(),
    )


def test_init_names_a_plugins_distribution_in_the_policy(bare: Place) -> None:
    bare.with_plugins()
    assert 0 == bare.go("init", "--allow", "echoing").code
    assert b"x" == bare.go("run", "--backend", "echoing", "--prompt", "x").out


@pytest.mark.parametrize(
    ("words", "code", "rule"),
    [
        (("--allow", "nosuch"), 12, "registry.unknown"),
        (("--origin", "with space"), 2, "origin.form"),
        (("--origin", "with+plus"), 2, "origin.form"),
        (("--origin", "https://example.org"), 2, "origin.form"),
        (("--origin", ""), 2, "origin.form"),
        (("--home", "a/../b"), 10, "settings.home"),
        (("--home", "no/parent"), 15, "home.write"),
        (("--home", "."), 15, "home.exists"),
        (("--home", "link"), 15, "home.exists"),
    ],
)
def test_an_init_that_is_refused_leaves_nothing_behind(
    bare: Place, words: tuple[str, ...], code: int, rule: str
) -> None:
    (bare.work / "link").symlink_to("nowhere")
    done = bare.go("init", *words)
    assert (code, b"") == (done.code, done.out), done.err
    assert f"[{rule}]" in done.err
    assert "nothing was made" in done.err
    assert ["link"] == [p.name for p in bare.work.iterdir()]
    assert [] == [p for p in (bare.root / "config").rglob("*") if p.is_file()]
    assert [] == [p for p in (bare.root / "state").rglob("*") if p.is_file()]


def test_a_second_init_changes_nothing(place: Place) -> None:
    before = {p: p.read_bytes() for p in place.home.rglob("*") if p.is_file()}
    done = place.go("init", "--allow", "llamacpp")
    assert (15, True) == (done.code, "[home.exists]" in done.err)
    assert before == {p: p.read_bytes() for p in place.home.rglob("*") if p.is_file()}


def test_an_init_that_failed_can_be_repeated_under_the_same_origin(bare: Place) -> None:
    (bare.root / "config" / "govrun").write_text("in the way")
    failed = bare.go("init", "--origin", "example.org/log")
    assert (15, True) == (failed.code, "nothing was made" in failed.err)
    (bare.root / "config" / "govrun").unlink()
    assert [] == list(bare.work.iterdir())
    assert 0 == bare.go("init", "--origin", "example.org/log", "--allow", "process").code
    assert 0 == bare.run("--", "/bin/true").code


def test_an_origin_with_a_trust_file_is_not_made_again(place: Place) -> None:
    origin = place.verify().origin
    done = place.go("init", "--origin", origin, "--home", "other")
    assert (15, True) == (done.code, "[trust.exists]" in done.err)
    assert not (place.work / "other").exists()


def test_a_new_ledger_in_the_place_of_an_old_one_is_judged_by_its_own_keys(place: Place) -> None:
    place.is_whole = False  # two trust files, and the ledger of this place is not this place's in the end
    old = place.root / "old.sqlite"
    assert 0 == place.run("--", "/bin/true").code
    shutil.move(place.ledger, old)
    shutil.rmtree(place.home)
    assert 0 == place.go("init", "--allow", "process").code
    assert 0 == place.run("--", "/bin/true").code
    assert (0, True) == ((done := place.go("verify")).code, b"assurance   keyed" in done.out)
    # The old one is still known by its keys, wherever it lies now, but not as the ledger of this place.
    assert (0, True) == ((kept := place.go("verify", str(old))).code, b"assurance   keyed" in kept.out)
    shutil.copy(old, place.ledger)
    assert 41 == place.go("verify").code


def test_a_preflight_starts_nothing_and_writes_nothing(place: Place) -> None:
    done = place.go("preflight", "--backend", "process", "--", *place.mark)
    assert (0, "") == (done.code, done.err)
    assert done.out.endswith(b"process: ready; nothing was started\n")
    assert (0, 1) == (place.runs, place.size)


def test_a_preflight_says_how_to_fix_each_refusal(place: Place) -> None:
    done = place.go("preflight", "--backend", "llamacpp", "--json")
    refused = [check for check in done.json["checks"] if check["status"] == "refused"]
    assert (13, False, True) == (done.code, done.json["ready"], bool(refused))
    for check in refused:
        assert None not in (check["error"]["found"], check["error"]["expected"], check["error"]["fix"])


def test_a_probe_is_a_governed_run(place: Place) -> None:
    place.policy('[backends.process]\nfreeArgv = true\n[tasks.probe]\nbackend = "process"\nargv = ["true"]\n')
    done = place.go("preflight", "--probe", "--backend", "process", "--prompt", "x")
    assert 13 == done.code, done.err
    place.with_plugins()
    place.policy('[backends.echoing]\ndistribution = "govrun-echoing"\n[tasks.probe]\nbackend = "echoing"\n')
    done = place.go("preflight", "--probe", "--backend", "echoing")
    assert (0, b"probe: success, recorded as entries 3 and 4\n") == (done.code, done.out), done.err
    assert "probe" == place.last("intent")["task"]


def test_backends_are_listed_with_where_they_come_from(place: Place) -> None:
    place.with_plugins()
    done = place.go("backends", env={"HOSTILE": "settings-exits"})
    lines = [line.split()[:3] for line in done.out.decode().splitlines()]
    assert ["backend", "from", "listed"] == lines[0]
    assert ["process", "govrun", __version__] in lines
    assert ["hostile", "govrun-hostile", "2.0"] in lines


def test_one_backend_can_be_checked(place: Place) -> None:
    place.with_plugins()
    done = place.go("backends", "--check", "echoing", "--json")
    assert (0, True) == (done.code, done.json["ready"])
    unready = place.go("backends", "--check", "process")
    assert (13, True) == (unready.code, b"write the command after --" in unready.out)
    assert b"takes no prompt" not in unready.out
    unknown = place.go("backends", "--check", "proces")
    assert (12, True) == (unknown.code, "did you mean process?" in unknown.err)


def test_settings_are_shown_with_their_origin_in_order(place: Place) -> None:
    place.config('digests = "plain"\nbackend = "bitnet"\n[settings]\nLLAMACPP_CTX = 64\nLLAMACPP_SEED = 1\n')
    env = {"GOVRUN_POLICY": "/etc/policy.toml", "LLAMACPP_CTX": "128"}
    shown = place.go("config", "show", "--ledger", "x.sqlite", "--json", env=env).json
    assert ("option", str(place.work / "x.sqlite")) == (shown["ledger"]["origin"], shown["ledger"]["value"])
    assert {"value": "/etc/policy.toml", "origin": "environment"} == shown["policy"]
    assert {"value": "bitnet", "origin": "config"} == shown["backend"]
    assert {"value": "plain", "origin": "config"} == shown["digests"]
    assert {"value": "10000", "origin": "default"} == shown["ledgerTimeoutMs"]
    assert {"value": "128", "origin": "environment"} == shown["LLAMACPP_CTX"]
    assert {"value": "1", "origin": "config"} == shown["LLAMACPP_SEED"]
    assert {"value": None, "origin": "default"} == shown["LLAMACPP_MODEL_GGUF"]
    assert b"(not set)" in place.go("config", "show").out


def test_a_setting_that_is_no_text_can_still_be_shown(place: Place) -> None:
    done = place.go("config", "show", "--json", env={"GOVRUN_LEDGER": "/x\udcff"})
    assert (0, "/x\\udcff") == (done.code, done.json["ledger"]["value"])


def test_keys_are_listed_with_what_they_sign(place: Place) -> None:
    rows = {row["role"]: row for row in place.go("keys", "list", "--json").json}
    origin = place.verify().origin
    assert {"root", "log", "receipt"} == set(rows)
    assert rows["log"]["vkey"].startswith(f"{origin}+")
    assert rows["receipt"]["vkey"].startswith(f"{origin}/receipt+")
    shown = place.go("keys", "list").out.decode()
    for role in rows:
        secret = (place.home / "keys" / f"{role}.key").read_text().strip().split("+", 4)[4]
        assert secret not in shown
    (place.home / "keys" / "root.key").unlink()
    assert b"not here" in place.go("keys", "list").out


def test_entries_are_listed_newest_last(place: Place) -> None:
    place.call(argv=("/bin/true",), agent="bot", request_id="r1")
    rows = place.go("ledger", "list", "--json").json
    assert [(0, "genesis", None), (1, "intent", "r1"), (2, "outcome", None)] == [
        (row["index"], row["kind"], row["requestId"]) for row in rows
    ]
    assert [2] == [row["index"] for row in place.go("ledger", "list", "--last", "1", "--json").json]
    assert [1] == [row["index"] for row in place.go("ledger", "list", "--kind", "intent", "--json").json]
    text = place.go("ledger", "list", "--last", "2")
    assert ("2 of 3 entries\n", True) == (text.err, b"succeeded  entry 1" in text.out)


def test_an_entry_is_shown_as_json_and_as_its_exact_bytes(place: Place) -> None:
    shown = place.go("ledger", "show", "0").json
    assert "urn:govrun:genesis:v1" == shown["predicateType"]
    raw = place.go("ledger", "show", "0", "--raw").out
    assert raw.startswith(b'{"payload":"')
    assert shown == json.loads(base64.b64decode(json.loads(raw)["payload"]))
    none = place.go("ledger", "show", "1")
    assert (45, True) == (none.code, "expected: 0 to 0" in none.err)


def test_a_checkpoint_can_be_kept_and_verified_against(place: Place) -> None:
    kept = place.go("ledger", "checkpoint").out
    (place.root / "kept").write_bytes(kept)
    place.call(argv=("/bin/true",))
    done = place.go("verify", "--checkpoint", str(place.root / "kept"), "--require", "pinned", "--json")
    assert 0 == done.code
    assert ("intact", "pinned") == (done.json["integrity"]["status"], done.json["assurance"]["level"])


def test_a_published_ledger_reads_like_the_ledger(place: Place) -> None:
    place.call(argv=("/bin/true",))
    public = place.root / "public"
    done = place.go("ledger", "publish", str(public))
    assert (0, "published 3 entries, 3 of them new") == (done.code, done.err.partition(":")[0])
    again = place.go("ledger", "publish", str(public), "--json")
    assert {"size": 3, "since": 3}.items() <= again.json.items()
    assert place.go("ledger", "list", "--json").out == place.go("ledger", "list", "--ledger", public, "--json").out
    assert 0 == place.go("verify", str(public)).code


def test_reading_leaves_the_ledger_and_its_directory_as_they_were(place: Place) -> None:
    place.call(argv=("/bin/true",))
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in place.home.rglob("*")}
    for words in (
        ("ledger", "list"),
        ("ledger", "show", "1"),
        ("ledger", "checkpoint"),
        ("verify",),
        ("config", "show"),
    ):
        assert 0 == place.go(*words).code
    assert before == {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in place.home.rglob("*")}


def test_a_found_home_needs_no_options_and_a_named_one_no_trust(place: Place) -> None:
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    none = place.go("ledger", "list", cwd=elsewhere)
    assert (15, True) == (none.code, "run `govrun init`" in none.err)
    assert 0 == place.go("ledger", "list", "--home", str(place.home), cwd=elsewhere).code
    assert 0 == place.go("ledger", "list", "--ledger", str(place.ledger), cwd=elsewhere).code


def test_python_of_another_directory_is_not_asked(place: Place) -> None:
    """A backend that lies in the working directory has not been installed."""
    planted = place.work / "planted-1.0.dist-info"
    planted.mkdir()
    (planted / "entry_points.txt").write_text("[govrun.backends]\nplanted = planted:X\n")
    command = Path(os.path.dirname(sys.executable)) / "govrun"
    if not command.exists():
        pytest.skip("SKIPPED ALOUD: govrun is not installed as a command here")
    done = subprocess.run([command, "backends"], env=place.environ, cwd=place.work, capture_output=True)
    assert (0, False) == (done.returncode, b"planted" in done.stdout)
