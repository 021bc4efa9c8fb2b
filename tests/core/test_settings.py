"""Every setting has one origin, and what came with a checked-out repository sets parameters and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.policy import MAX_BYTES
from govrun.request import SettingSpec
from govrun.settings import (
    Setting,
    absolute_path,
    backend_settings,
    load_settings,
    read_config,
    read_project,
    read_small,
    settings_digest,
)

Refuses = Callable[..., GovrunError]
INVALID = ExitCode.REQUEST_INVALID


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / ".govrun"
    path.mkdir(mode=0o700)
    return path


def config(home: Path, text: str) -> None:
    (home / "config.toml").write_text("format = 1\n" + text)


CONFIGURED = """
ledger = "/config/ledger.sqlite"
policy = "/config/policy.toml"
backend = "fromconfig"
"""
ENVIRON = {
    "GOVRUN_LEDGER": "/env/ledger.sqlite",
    "GOVRUN_POLICY": "/env/policy.toml",
    "GOVRUN_BACKEND": "fromenv",
}
OPTIONS = {"ledger": "/option/ledger.sqlite", "policy": "/option/policy.toml", "backend": "fromoption"}


def origin(loaded: object, name: str) -> str:
    return next(s.source for s in loaded.origins if s.name == name)  # type: ignore[attr-defined]


def test_without_anything_the_defaults_lie_in_the_home(home: Path) -> None:
    loaded = load_settings(home, {}, {})
    assert (loaded.home, loaded.ledger, loaded.policy) == (home, home / "ledger.sqlite", home / "policy.toml")
    assert (loaded.backend, loaded.digests, loaded.ledger_timeout_ms) == (None, "salted", 10_000)
    assert {s.source for s in loaded.origins} == {"default"}
    assert [s.name for s in loaded.origins] == [
        "ledger",
        "policy",
        "backend",
        "digests",
        "ledgerTimeoutMs",
        "signer",
        "logSigner",
    ]


@pytest.mark.parametrize("name", ["ledger", "policy", "backend"])
def test_option_beats_environment_beats_config_beats_default(home: Path, name: str) -> None:
    config(home, CONFIGURED)
    variable = f"GOVRUN_{name.upper()}"
    for environ, options, source in (
        (ENVIRON, OPTIONS, "option"),
        (ENVIRON, {}, "environment"),
        ({}, {}, "config"),
    ):
        loaded = load_settings(home, environ, options)
        expected = {"option": OPTIONS[name], "environment": ENVIRON[variable]}.get(source, f"/config/{name}")
        assert origin(loaded, name) == source
        assert str(getattr(loaded, name)).startswith(expected) or getattr(loaded, name) == f"from{source}"


def test_one_setting_of_one_layer_leaves_the_others_alone(home: Path) -> None:
    config(home, CONFIGURED)
    loaded = load_settings(home, {"GOVRUN_POLICY": "/env/p"}, {"ledger": "/option/l"})
    assert [s.source for s in loaded.origins][:3] == ["option", "environment", "config"]
    assert (str(loaded.ledger), str(loaded.policy), loaded.backend) == ("/option/l", "/env/p", "fromconfig")


def test_digests_and_the_time_to_wait_come_from_the_config_alone(home: Path) -> None:
    config(home, 'digests = "plain"\nledgerTimeoutMs = 5\n')
    loaded = load_settings(home, {"GOVRUN_DIGESTS": "salted"}, {"digests": "salted"})
    assert (loaded.digests, loaded.ledger_timeout_ms) == ("plain", 5)
    assert loaded.origins[3:5] == (Setting("digests", "plain", "config"), Setting("ledgerTimeoutMs", "5", "config"))


VAGUE = ["", ".", "ledger.sqlite", "./x", "../x", "~/x", "~", "/a/../b", "/a\0b", "postgres://h/db", "file:///x"]


@pytest.mark.parametrize("value", VAGUE)
@pytest.mark.parametrize("name", ["ledger", "policy"])
def test_a_path_that_is_not_explicit_refuses_and_names_its_source(
    refuses: Refuses, home: Path, name: str, value: str
) -> None:
    error = refuses(INVALID, f"settings.{name}", load_settings, home, {}, {name: value})
    assert f"{name} (option)" in error.what
    error = refuses(INVALID, f"settings.{name}", load_settings, home, {f"GOVRUN_{name.upper()}": value}, {})
    assert f"{name} (environment)" in error.what
    if "\0" not in value:
        config(home, f"{name} = '{value}'")
        error = refuses(INVALID, f"settings.{name}", load_settings, home, {}, {})
        assert f"{name} (config)" in error.what


def test_an_explicit_path_is_taken_as_it_is() -> None:
    assert absolute_path("/a b/c", "r", "w") == Path("/a b/c")


@pytest.mark.parametrize(
    ("rule", "content"),
    [
        ("config.empty", b""),
        ("config.empty", b"# only a comment\n"),
        ("config.toml", b"format = "),
        ("config.utf8", b"format = 1 # \xff"),
        ("config.size", b"#" * (MAX_BYTES + 1)),
        ("config.depth", b"a." * 50_000 + b"b = 1"),
        ("schema.config-v1", b"ledger = '/x'"),
        ("schema.config-v1", b"format = 2"),
        ("schema.config-v1", b"format = 1\nunknown = 1"),
        ("schema.config-v1", b"format = 1\nledger = 5"),
        ("schema.config-v1", b"format = 1\npolicy = []"),
        ("schema.config-v1", b"format = 1\nbackend = 'Bad Name'"),
        ("schema.config-v1", b"format = 1\ndigests = 'none'"),
        ("schema.config-v1", b"format = 1\nledgerTimeoutMs = 0"),
        ("schema.config-v1", b"format = 1\nledgerTimeoutMs = 3600001"),
        ("schema.config-v1", b"format = 1\nledgerTimeoutMs = 5.0"),
        ("schema.config-v1", b"format = 1\nledgerTimeoutMs = '5'"),
        ("schema.config-v1", b"format = 1\n[settings]\nlower = 'x'"),
        ("schema.config-v1", b"format = 1\n[settings]\nX = 1.5"),
        ("schema.config-v1", b"format = 1\n[settings]\nX = true"),
        ("schema.config-v1", b"format = 1\n[settings]\nX = 1979-05-27"),
        ("schema.config-v1", b"format = 1\n[parameters]\nn = 1"),
        ("schema.config-v1", b"format = 1\n[tasks.scan]\nbackend = 'x'"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else value,
)
def test_a_config_with_one_thing_wrong_is_refused(refuses: Refuses, home: Path, rule: str, content: bytes) -> None:
    (home / "config.toml").write_bytes(content)
    refuses(INVALID, rule, load_settings, home, {}, {})


def test_a_config_that_is_not_there_says_nothing(home: Path) -> None:
    assert read_config(home / "config.toml") == {}


def test_a_small_file_is_read_whole_and_a_large_one_just_beyond_its_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * (MAX_BYTES * 2))
    read = read_small(tmp_path / "f", "x")
    assert read is not None
    assert len(read) == MAX_BYTES + 1
    assert read_small(tmp_path / "none", "x") is None


def test_what_is_no_readable_regular_file_is_refused_without_waiting(refuses: Refuses, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "loop", "zero", ".", "f\0", "n" * 300):
        refuses(INVALID, "x.readable", read_small, tmp_path / name, "x")
    (tmp_path / "file").write_bytes(b"")
    refuses(INVALID, "x.readable", read_small, tmp_path / "file" / "below", "x")


# ---- Projects.

PARAMETERS = {"parameters": {"bitnet": {"temp": "0.5", "n-predict": 16}}}
GOVRUN_TOML = '[parameters.bitnet]\ntemp = "0.5"\nn-predict = 16\n'
PYPROJECT = '[project]\nname = "x"\nversion = "1.5"\n[tool.other]\nratio = 0.5\nsince = 1979-05-27\n'


def test_a_project_may_set_parameters(tmp_path: Path) -> None:
    assert read_project(tmp_path) == {}
    (tmp_path / "govrun.toml").write_text(GOVRUN_TOML)
    assert read_project(tmp_path) == PARAMETERS


@pytest.mark.parametrize("table", ["tool.govrun", "tool . govrun", 'tool."govrun"', "'tool'.'govrun'"])
def test_a_project_may_do_so_in_its_pyproject_however_it_spells_the_table(tmp_path: Path, table: str) -> None:
    text = PYPROJECT + f'[{table}.parameters.bitnet]\ntemp = "0.5"\nn-predict = 16\n'
    (tmp_path / "pyproject.toml").write_text(text)
    assert read_project(tmp_path) == PARAMETERS


def test_a_file_of_its_own_comes_before_the_pyproject(tmp_path: Path) -> None:
    (tmp_path / "govrun.toml").write_text(GOVRUN_TOML)
    (tmp_path / "pyproject.toml").write_text("[tool.govrun]\nledger = '/evil'\n")
    assert read_project(tmp_path) == PARAMETERS


@pytest.mark.parametrize(
    "text",
    [
        PYPROJECT,
        "this is not TOML",
        PYPROJECT + "dependencies = ['govrun']\n",
        "tool = 'tool.govrun'\n",
        "[tools.govrun]\nledger = '/x'\n",
        "[[tool]]\ngovrun = 1\n",
    ],
)
def test_a_pyproject_that_does_not_speak_to_govrun_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert read_project(tmp_path) == {}


BEYOND = [
    "ledger = '/x'",
    "policy = '/x'",
    "home = '/x'",
    "keys = '/x'",
    "backend = 'bitnet'",
    "digests = 'plain'",
    "ledgerTimeoutMs = 1",
    "format = 1",
    "settings = { BITNET_CPP_DIR = '/x' }",
    "parameters = { n = 1 }",
    "parameters = []",
    "tasks = { scan = { argv = ['x'], parameters = {} } }",
    "tasks = { scan = { backend = 'x', parameters = {} } }",
    "tasks = { scan = {} }",
    "limits = { wallMs = 1 }",
    "parameters = { bitnet = { temp = 0.5 } }",
    "parameters = { bitnet = { temp = [1] } }",
]


@pytest.mark.parametrize("text", BEYOND)
def test_a_project_that_sets_more_than_parameters_is_refused(refuses: Refuses, tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.govrun]\n" + text + "\n")
    refuses(INVALID, "schema.project-v1", read_project, tmp_path)
    (tmp_path / "govrun.toml").write_text(text + "\n")
    refuses(INVALID, "schema.project-v1", read_project, tmp_path)


@pytest.mark.parametrize("text", ["[tool]\ngovrun = 1\n", "[[tool.govrun]]\nparameters = {}\n", "tool.govrun = []\n"])
def test_a_table_of_the_wrong_type_is_refused(refuses: Refuses, tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    refuses(INVALID, "schema.project-v1", read_project, tmp_path)


def test_project_files_are_bounded_and_never_waited_for(refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("# govrun\n" + "#" * MAX_BYTES)
    refuses(INVALID, "project.size", read_project, tmp_path)
    (tmp_path / "govrun.toml").write_text("a." * 1000 + "b = 1")
    refuses(INVALID, "project.depth", read_project, tmp_path)
    (tmp_path / "govrun.toml").unlink()
    os.mkfifo(tmp_path / "govrun.toml")
    refuses(INVALID, "project.readable", read_project, tmp_path)


# ---- Settings of backends.

SPECS = (
    SettingSpec("X_DIR", "path", "a directory"),
    SettingSpec("X_KEY", "secret", "a key"),
    SettingSpec("X_THREADS", "integer", "threads", default="2"),
)


def test_a_backends_settings_come_from_environment_config_or_default_in_order() -> None:
    configured = {"settings": {"X_DIR": "/config", "X_THREADS": 8}}
    assert backend_settings(SPECS, {"X_DIR": "/env", "OTHER": "x"}, configured) == (
        Setting("X_DIR", "/env", "environment"),
        Setting("X_KEY", None, "default"),
        Setting("X_THREADS", "8", "config"),
    )
    assert backend_settings(SPECS, {}, {})[2] == Setting("X_THREADS", "2", "default")


def test_an_empty_variable_is_a_value_and_does_not_fall_through() -> None:
    assert backend_settings(SPECS, {"X_DIR": ""}, {"settings": {"X_DIR": "/c"}})[0].value == ""


def test_a_setting_that_is_not_text_is_refused(refuses: Refuses) -> None:
    error = refuses(INVALID, "settings.X_DIR", backend_settings, SPECS, {"X_DIR": "/m/\udcff"}, {})
    assert "X_DIR (environment)" in error.what


def test_the_digest_of_settings_knows_names_of_paths_and_no_secret() -> None:
    def digest(**values: str) -> str:
        return settings_digest(SPECS, backend_settings(SPECS, values, {}), "salted")

    assert digest(X_DIR="/a/models", X_KEY="one") == digest(X_DIR="/b/models", X_KEY="two")
    assert digest(X_DIR="/a/models") != digest(X_DIR="/a/others")
    assert digest() != digest(X_KEY="")
    assert digest(X_THREADS="2") == digest() != digest(X_THREADS="3")
    assert digest() != settings_digest(SPECS, backend_settings(SPECS, {}, {}), "plain")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_config_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"format = 1\n")
    path.chmod(mode)
    with pytest.raises(GovrunError) as refused:
        read_config(path)
    assert (ExitCode.REQUEST_INVALID, "config.writable") == (refused.value.code, refused.value.rule)
    assert f"mode {mode:04o}" in (refused.value.found or "")


def test_a_ledger_may_be_a_url_and_a_policy_may_not(refuses: Refuses, home: Path) -> None:
    url = "postgresql://anna@db.example.com/ledger?sslrootcert=/etc/ca.pem"
    assert url == load_settings(home, {}, {"ledger": url}).ledger
    refuses(INVALID, "settings.policy", load_settings, home, {}, {"policy": url})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna:hunter22@h/db",
        "postgresql://anna:@h/db",
        "postgresql://h/db?password=hunter22",
        "postgresql://h/db?pass%77ord=hunter22",
        "postgresql://h/db?sslpassword=hunter22",
        "postgresql://h/db\nhunter22",
    ],
)
def test_a_url_with_a_password_is_refused_and_not_shown(refuses: Refuses, home: Path, url: str) -> None:
    error = refuses(INVALID, "settings.ledger", load_settings, home, {"GOVRUN_LEDGER": url}, {})
    assert "environment" in error.what
    assert "hunter22" not in str(error)
