"""A home that was found is used only if it is ours, ours alone, and our own trust file says so."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import govrun
from govrun import home as homes
from govrun.errors import ExitCode, GovrunError
from govrun.home import Trust, find_home, format_policy, format_trust, load_trust, parse_trust, read_trust_files
from govrun.policy import evaluate, parse_policy
from govrun.signing import keys
from govrun.world import World

Refuses = Callable[..., GovrunError]
UNAVAILABLE = ExitCode.LEDGER_UNAVAILABLE
INVALID = ExitCode.REQUEST_INVALID
UNCHECKED = ExitCode.COULD_NOT_CHECK
ROOT, LOG, RECEIPT = (keys.signer_from_seed("example.com/log", bytes([n]) * 32).verifier for n in (1, 2, 3))
TRUST = Trust("example.com/log", None, ROOT, LOG, (RECEIPT,))
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


class Place:
    """A user with a home directory, a project with a `.govrun` in it, and a trust file that names that `.govrun`."""

    def __init__(self, root: Path) -> None:
        self.user = root / "user"
        self.project = root / "project"
        self.deep = self.project / "a" / "b"
        self.home = self.project / ".govrun"
        self.trust = self.user / ".config" / "govrun" / "trust" / "x.toml"
        self.deep.mkdir(parents=True)
        self.trust.parent.mkdir(parents=True)
        self.home.mkdir(mode=0o700)
        self.write_trust(self.home)

    def write_trust(self, home: Path | None) -> None:
        self.trust.write_bytes(format_trust(attrs.evolve(TRUST, home=home)))
        self.trust.chmod(0o600)

    def world(self, **environ: str) -> World:
        whole = {"HOME": str(self.user), **environ}
        return World(now_ms=lambda: 0, monotonic_ns=lambda: 0, random_bytes=bytes, environ=whole)

    def find(self, cwd: Path | None = None, option: str | None = None, **environ: str) -> Path:
        return find_home(self.world(**environ), cwd or self.deep, option)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path.resolve())


# ---- Finding.


def test_the_nearest_home_upward_is_found(place: Place) -> None:
    assert place.home == place.find() == place.find(place.project)


def test_an_option_beats_the_variable_beats_what_lies_around(place: Place) -> None:
    for name in ("one", "two"):
        (place.user / name).mkdir(mode=0o700)
    one, two = str(place.user / "one"), str(place.user / "two")
    assert str(place.find(option=one, GOVRUN_HOME=two)) == one
    assert str(place.find(GOVRUN_HOME=two)) == two


def test_an_option_may_be_relative_and_the_variable_may_not(refuses: Refuses, place: Place) -> None:
    assert place.find(place.project, option=".govrun") == place.home
    refuses(INVALID, "settings.home", place.find, place.project, GOVRUN_HOME=".govrun")


@pytest.mark.parametrize("value", ["", "~/.govrun", "../.govrun", "/a/../b", "/a\0"])
def test_a_vague_home_is_refused_and_does_not_fall_through(refuses: Refuses, place: Place, value: str) -> None:
    error = refuses(INVALID, "settings.home", place.find, GOVRUN_HOME=value)
    assert "GOVRUN_HOME" in error.what
    if value in ("", "../.govrun"):
        assert "--home" in refuses(INVALID, "settings.home", place.find, option=value).what


def test_without_a_home_here_or_above_there_is_none(refuses: Refuses, place: Place) -> None:
    shutil.rmtree(place.home)
    assert refuses(UNAVAILABLE, "home.missing", place.find).fix == "run `govrun init`"


def test_a_home_that_is_named_and_missing_is_refused(refuses: Refuses, place: Place) -> None:
    refuses(UNAVAILABLE, "home.missing", place.find, GOVRUN_HOME=str(place.user / "none"))


# ---- What was planted.


def test_a_home_that_no_trust_file_names_is_refused(refuses: Refuses, place: Place) -> None:
    for named in (place.user / "other", None):
        place.write_trust(named)
        assert "GOVRUN_HOME" in str(refuses(UNAVAILABLE, "home.planted", place.find).fix)
    place.trust.unlink()
    refuses(UNAVAILABLE, "home.planted", place.find)
    shutil.rmtree(place.user / ".config")
    refuses(UNAVAILABLE, "home.planted", place.find)


def test_a_home_copied_from_elsewhere_is_refused_even_with_its_keys(refuses: Refuses, place: Place) -> None:
    copy = place.user / "clone" / ".govrun"
    shutil.copytree(place.home, copy)
    refuses(UNAVAILABLE, "home.planted", place.find, copy.parent)
    assert place.find(copy.parent, GOVRUN_HOME=str(copy)) == copy


def test_a_nearer_planted_home_hides_ours_by_refusing(refuses: Refuses, place: Place) -> None:
    (place.deep / ".govrun").mkdir(mode=0o700)
    refuses(UNAVAILABLE, "home.planted", place.find)


@pytest.mark.parametrize("target", [".govrun", "nowhere"])
def test_a_symbolic_link_is_no_home(refuses: Refuses, place: Place, target: str) -> None:
    (place.deep / ".govrun").symlink_to(place.project / target)
    refuses(UNAVAILABLE, "home.directory", place.find)
    refuses(UNAVAILABLE, "home.directory", place.find, GOVRUN_HOME=str(place.deep / ".govrun"))


def test_a_file_is_no_home(refuses: Refuses, place: Place) -> None:
    (place.deep / ".govrun").write_text("")
    refuses(UNAVAILABLE, "home.directory", place.find)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_home_that_others_may_write_is_refused(refuses: Refuses, place: Place, mode: int) -> None:
    place.home.chmod(mode)
    error = refuses(UNAVAILABLE, "home.writable", place.find)
    assert f"{mode:04o}" in str(error.found)
    refuses(UNAVAILABLE, "home.writable", place.find, GOVRUN_HOME=str(place.home))


def test_a_home_that_others_may_read_is_still_ours(place: Place) -> None:
    place.home.chmod(0o755)
    assert place.find() == place.home


@as_root
def test_a_home_of_another_user_is_refused(refuses: Refuses, place: Place) -> None:
    os.chown(place.home, 12345, 12345)
    error = refuses(UNAVAILABLE, "home.owner", place.find)
    assert (error.found, error.expected) == ("user 12345", "user 0")
    refuses(UNAVAILABLE, "home.owner", place.find, GOVRUN_HOME=str(place.home))


# ---- Trust files.


def test_trust_is_looked_for_where_xdg_says(refuses: Refuses, place: Place) -> None:
    elsewhere = place.user / "xdg"
    shutil.move(place.user / ".config", elsewhere)
    refuses(UNAVAILABLE, "home.planted", place.find)
    assert place.find(XDG_CONFIG_HOME=str(elsewhere)) == place.home


def test_an_empty_xdg_variable_counts_as_unset(place: Place) -> None:
    assert place.find(XDG_CONFIG_HOME="") == place.home


@pytest.mark.parametrize("value", [".config", "~/.config", "../x", "/a/../b"])
def test_a_vague_xdg_directory_or_home_is_refused(refuses: Refuses, place: Place, value: str) -> None:
    refuses(INVALID, "settings.XDG_CONFIG_HOME", place.find, XDG_CONFIG_HOME=value)
    refuses(INVALID, "settings.HOME", place.find, HOME=value)


def test_without_home_the_password_database_tells() -> None:
    import pwd

    assert homes.config_directory({}) == Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".config" / "govrun"


@as_root
def test_a_user_without_any_home_is_refused() -> None:
    program = (
        "import os, sys\n"
        "from govrun.home import config_directory\n"
        "from govrun.errors import GovrunError\n"
        "os.setuid(54321)\n"
        "try:\n    config_directory({})\n"
        "except GovrunError as error:\n    print(error.rule, error.code.label)\n"
    )
    environ = {"PYTHONPATH": str(Path(govrun.__file__).parent.parent), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True)
    assert done.stdout == "settings.HOME request-invalid\n", done.stderr


texts = st.text(st.characters(codec="utf-8"), max_size=30)


@given(texts, st.none() | texts)
def test_parsing_trust_undoes_formatting(home: str, checkpoint: str | None) -> None:
    trust = attrs.evolve(TRUST, home=Path("/" + home), checkpoint=checkpoint, receipt=(RECEIPT, LOG))
    assert trust == parse_trust(format_trust(trust), "x")


def test_a_pin_in_a_trust_file_is_not_ignored() -> None:
    note = "example.com/log\n7\nAAAA\n\n\u2014 x\n"
    assert parse_trust(format_trust(attrs.evolve(TRUST, checkpoint=note)), "x").checkpoint == note


WHOLE = format_trust(TRUST)


@pytest.mark.parametrize(
    ("rule", "data"),
    [
        ("trust.toml", WHOLE + b"="),
        ("trust.utf8", WHOLE + b"# \xff"),
        ("trust.size", WHOLE + b"#" * 300_000),
        ("trust.depth", b"a." * 10_000 + b"b = 1"),
        ("schema.trust-v1", b""),
        ("schema.trust-v1", WHOLE + b"unknown = 1\n"),
        ("schema.trust-v1", WHOLE.replace(b"format = 1", b"format = 2")),
        ("schema.trust-v1", WHOLE.replace(b'"example.com/log"', b'"a b"', 1)),
        ("schema.trust-v1", WHOLE + b"home = 5\n"),
        ("schema.trust-v1", WHOLE + b"checkpoint = 5\n"),
        *(
            ("schema.trust-v1", b"\n".join(line for line in WHOLE.split(b"\n") if not line.startswith(name)))
            for name in (b"format", b"origin", b"root", b"log", b"receipt")
        ),
        (
            "schema.trust-v1",
            b"\n".join(x for x in WHOLE.split(b"\n") if not x.startswith(b"receipt")) + b"receipt = []",
        ),
    ],
)
def test_a_trust_file_with_one_thing_wrong_could_not_be_checked(refuses: Refuses, rule: str, data: bytes) -> None:
    refuses(UNCHECKED, rule, parse_trust, data, "x.toml")


def test_a_key_that_is_no_key_could_not_be_checked() -> None:
    with pytest.raises(GovrunError) as caught:
        parse_trust(WHOLE.replace(b"example.com/log+", b"example.com/log+0", 1), "x.toml")
    assert caught.value.code == UNCHECKED


def test_one_broken_trust_file_refuses_them_all(refuses: Refuses, place: Place) -> None:
    (place.trust.parent / "a.toml").write_text("format = 2\n")
    refuses(UNCHECKED, "schema.trust-v1", place.find)
    (place.trust.parent / "a.toml").rename(place.trust.parent / "a.txt")
    assert place.find() == place.home


def test_trust_files_come_sorted_by_name(place: Place) -> None:
    for name in ("c", "a", "b"):
        path = place.trust.parent / f"{name}.toml"
        path.write_bytes(format_trust(attrs.evolve(TRUST, origin=f"example.com/{name}")))
        path.chmod(0o600)
    origins = [t.origin.rpartition("/")[2] for t in read_trust_files(place.world())]
    assert origins == ["a", "b", "c", "log"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_trust_file_that_others_may_write_is_refused(refuses: Refuses, place: Place, mode: int) -> None:
    place.trust.chmod(mode)
    error = refuses(UNCHECKED, "trust.writable", place.find)
    assert f"{mode:04o}" in str(error.found)


@as_root
def test_a_trust_file_of_another_user_is_refused(refuses: Refuses, place: Place) -> None:
    os.chown(place.trust, 12345, 12345)
    refuses(UNCHECKED, "trust.writable", place.find)


def test_what_is_no_trust_file_is_refused_without_waiting(refuses: Refuses, place: Place) -> None:
    refuses(UNCHECKED, "trust.missing", load_trust, place.user / "none.toml")
    os.mkfifo(place.trust.parent / "fifo.toml")
    refuses(UNCHECKED, "trust.readable", place.find)
    shutil.rmtree(place.trust.parent)
    place.trust.parent.write_text("")
    refuses(UNCHECKED, "trust.readable", place.find)


def test_each_origin_has_a_trust_file_of_its_own() -> None:
    one, two = (homes.trust_path({"HOME": "/u"}, origin) for origin in ("example.com/a", "example.com/b"))
    assert one.parent == two.parent == Path("/u/.config/govrun/trust")
    assert one.name != two.name
    assert one.suffix == ".toml"


# ---- First policies.


def test_a_first_policy_allows_what_was_named_and_nothing_else() -> None:
    policy = parse_policy(format_policy([("bitnet", "govrun"), ("process", "govrun"), ("mine", 'o"dd')]))
    assert policy.backend("bitnet") == {}
    assert policy.backend("process") == {"freeArgv": True}
    assert policy.backend("mine") == {"distribution": 'o"dd'}
    assert policy.backend("llamacpp") is None
    assert evaluate.__name__ == "evaluate"


def test_a_first_policy_that_allows_nothing_is_refused_until_it_is_filled_in(refuses: Refuses) -> None:
    refuses(ExitCode.POLICY_DENIED, "schema.policy-v1", parse_policy, format_policy([]))


def test_a_policy_is_kept_once_under_its_digest_for_its_owner_alone(place: Place) -> None:
    for _ in range(2):
        homes.keep_policy(place.home, b"format = 1\n")
    (kept,) = (place.home / "policies").iterdir()
    assert kept.read_bytes() == b"format = 1\n"
    assert kept.name == homes.sha256_hex(b"format = 1\n") + ".toml"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_policy_that_cannot_be_kept_is_refused_and_leaves_nothing(refuses: Refuses, place: Place) -> None:
    (place.home / "policies").write_text("in the way")
    refuses(UNAVAILABLE, "policy.keep", homes.keep_policy, place.home, b"format = 1\n")
    assert (place.home / "policies").read_text() == "in the way"
