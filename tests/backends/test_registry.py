"""The registry: it lists what is installed without importing it, and loads the one that is named."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from govrun.backends.registry import GROUP, Registration, find, list_backends, load
from govrun.errors import ExitCode, GovrunError

GOOD = """
class Mine:
    name = "mine"
    interface = 1
    def settings(self): return ()
    def parameters(self, settings): return ()
    def checks(self, inquiry): return ()
    def plan(self, inquiry): ...
    def parse(self, plan, captured): ...
    def explain(self, captured): return "mine.x"
BACKEND = Mine()
"""


def install(folder: Path, name: str, entries: str, version: str = "1.0", title: str | None = None) -> str:
    """Lay out the metadata of a distribution; returns the directory as a search path has it."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {title or name}\nVersion: {version}\n\nName: no\n")
    (place / "entry_points.txt").write_text(entries)
    return str(folder)


def section(*lines: str) -> str:
    return "\n".join([f"[{GROUP}]", *lines, ""])


def refusal(name: str, search: list[str]) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        load(find(name, search))
    assert caught.value.code is ExitCode.BACKEND_UNAVAILABLE
    assert None not in (caught.value.found, caught.value.expected, caught.value.fix)
    return caught.value


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of a name of its own, importable, that does not exist until a test writes it."""
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "code").mkdir()
    name = f"plugin_{abs(hash(request.node.name))}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def write(tmp_path: Path, module: str, text: str) -> None:
    (tmp_path / "code" / f"{module}.py").write_text(text)


def test_backends_are_listed_by_name_with_their_distribution(tmp_path: Path) -> None:
    search = install(tmp_path, "my_dist", section("zeta = a.b:C", "alpha = x:Y.z [extra]"), "2.0", "My-Dist")
    assert list_backends([search]) == (
        Registration("alpha", "My-Dist", "2.0", "x:Y.z"),
        Registration("zeta", "My-Dist", "2.0", "a.b:C"),
    )


def test_other_groups_comments_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    text = f"[console_scripts]\nmine = a:b\n\n[{GROUP}]\n# no = a:b\n; no = a:b\n\n mine = c:d \n[other]\nno = e:f\n"
    assert [(r.name, r.target) for r in list_backends([install(tmp_path, "d", text)])] == [("mine", "c:d")]


def test_listing_imports_nothing(tmp_path: Path, module: str) -> None:
    write(tmp_path, module, "raise SystemExit('imported')")
    search = install(tmp_path / "site", "d", section(f"mine = {module}:BACKEND"))
    assert [r.problem for r in list_backends([search])] == [None]
    assert module not in sys.modules


def test_directories_that_are_not_there_or_no_directories_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "archive.zip").write_bytes(b"PK")
    search = install(tmp_path / "site", "d", section("mine = a:b"))
    found = list_backends(["", str(tmp_path / "none"), str(tmp_path / "archive.zip"), search])
    assert [r.name for r in found] == ["mine"]


def test_the_working_directory_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "d", section("mine = a:b"))
    monkeypatch.chdir(tmp_path)
    assert list_backends([""]) == ()


def test_an_earlier_place_hides_the_same_distribution_in_a_later_one(tmp_path: Path) -> None:
    first = install(tmp_path / "1", "my_dist", section("mine = new:B"), "2.0")
    later = install(tmp_path / "2", "My.Dist", section("mine = old:B"), "1.0")
    assert [(r.version, r.target) for r in list_backends([first, later])] == [("2.0", "new:B")]


def test_an_egg_info_counts_as_a_distribution(tmp_path: Path) -> None:
    place = tmp_path / "My_Dist.egg-info"
    place.mkdir()
    (place / "PKG-INFO").write_text("Name: My-Dist\nVersion: 3\n")
    (place / "entry_points.txt").write_text(section("mine = a:b"))
    assert list_backends([str(tmp_path)]) == (Registration("mine", "My-Dist", "3", "a:b"),)


def test_a_distribution_without_metadata_is_named_by_its_directory(tmp_path: Path) -> None:
    place = tmp_path / "thing-4.dist-info"
    place.mkdir()
    (place / "entry_points.txt").write_text(section("mine = a:b"))
    assert list_backends([str(tmp_path)]) == (Registration("mine", "thing", "4", "a:b"),)


def test_it_finds_what_importlib_metadata_finds() -> None:
    expected = sorted((e.name, e.value, e.dist.name if e.dist else "") for e in metadata.entry_points(group=GROUP))
    assert [(r.name, r.target, r.distribution) for r in list_backends()] == expected


def test_a_good_backend_is_loaded(tmp_path: Path, module: str) -> None:
    write(tmp_path, module, GOOD)
    search = install(tmp_path / "site", "d", section(f"mine = {module}:BACKEND"))
    assert load(find("mine", [search])).name == "mine"


def test_an_unknown_name_lists_what_is_known_and_what_is_near(tmp_path: Path) -> None:
    search = install(tmp_path, "d", section("bitnet = a:b", "process = a:b"))
    error = refusal("bitnett", [search])
    assert (error.rule, error.expected, error.fix) == ("registry.unknown", "bitnet, process", "did you mean bitnet?")
    assert refusal("zzz", [search]).fix == "install a distribution that provides it"


def test_an_unknown_name_where_nothing_is_installed_says_so() -> None:
    error = refusal("process", [])
    assert (error.expected, error.fix) == ("none is installed", "install govrun itself: pip install govrun")


def test_a_name_registered_by_two_distributions_refuses_and_names_both(tmp_path: Path, module: str) -> None:
    write(tmp_path, module, GOOD)
    install(tmp_path / "site", "one", section("process = evil:B", f"mine = {module}:BACKEND"))
    search = install(tmp_path / "site", "two", section("process = good:B"))
    error = refusal("process", [search])
    assert (error.rule, error.found) == ("registry.duplicate", "one 1.0, two 1.0")
    assert load(find("mine", [search])).name == "mine"


def test_a_name_that_one_distribution_registers_twice_refuses(tmp_path: Path) -> None:
    search = install(tmp_path, "one", section("mine = a:B", "mine = c:D"))
    assert refusal("mine", [search]).rule == "registry.duplicate"


@pytest.mark.parametrize(
    "line", ["mine", "mine =", "mine = a", "mine = a:", "mine = :b", "mine = a b:c", "mine = a:b c", "mine = a/b:c"]
)
def test_a_malformed_entry_refuses_its_name_only(tmp_path: Path, line: str) -> None:
    search = install(tmp_path, "d", section(line, "other = a:b"))
    assert refusal("mine", [search]).rule == "registry.entry"
    assert find("other", [search]).target == "a:b"


def test_a_name_that_no_request_can_have_is_malformed(tmp_path: Path) -> None:
    search = install(tmp_path, "d", section("Mine = a:b"))
    assert refusal("Mine", [search]).rule == "registry.entry"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("raise ValueError('x')", "ValueError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("def", "SyntaxError"),
        ("raise BaseException", "BaseException"),
    ],
)
def test_a_module_that_cannot_be_imported_refuses(tmp_path: Path, module: str, text: str, found: str) -> None:
    write(tmp_path, module, text)
    search = install(tmp_path / "site", "d", section(f"mine = {module}:BACKEND"))
    error = refusal("mine", [search])
    assert (error.rule, error.found) == ("registry.import", found)


def test_an_interrupt_during_an_import_is_an_interrupt(tmp_path: Path, module: str) -> None:
    write(tmp_path, module, "raise KeyboardInterrupt")
    search = install(tmp_path / "site", "d", section(f"mine = {module}:BACKEND"))
    with pytest.raises(KeyboardInterrupt):
        load(find("mine", [search]))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (("BACKEND = Mine()", ""), "registry.attribute"),
        (('name = "mine"', 'name = "other"'), "registry.name"),
        (('name = "mine"', "name = 1"), "registry.name"),
        (("interface = 1", "interface = 2"), "registry.interface"),
        (("interface = 1", "interface = True"), "registry.interface"),
        (("interface = 1", ""), "registry.interface"),
        (("def plan(self, inquiry): ...", "plan = 3"), "registry.methods"),
    ],
)
def test_an_object_that_is_no_backend_refuses(tmp_path: Path, module: str, change: tuple[str, str], rule: str) -> None:
    write(tmp_path, module, GOOD.replace(*change))
    search = install(tmp_path / "site", "d", section(f"mine = {module}:BACKEND"))
    assert refusal("mine", [search]).rule == rule


def test_a_registration_with_a_problem_is_not_loaded(tmp_path: Path) -> None:
    search = install(tmp_path, "d", section("mine"))
    with pytest.raises(GovrunError, match="malformed"):
        load(list_backends([search])[0])
