"""A salt is erased at both entries of its invocation, on purpose only, and no proof notices."""

from __future__ import annotations

import pytest

from govrun.ledger.salts import Salts
from tests.audit import ledgers
from tests.audit.ledgers import Ledger
from tests.e2e.place import Place, until


def held(place: Place) -> list[int]:
    salts = Salts(place.home / "salts")
    return [index for index in range(place.size) if salts.read(index) is not None]


@pytest.mark.parametrize("index", [1, 2])
@pytest.mark.parametrize("form", ["ledger", "home"])
def test_what_was_erased_cannot_be_disclosed_and_the_ledger_is_intact(place: Place, index: int, form: str) -> None:
    place.call(argv=("/bin/echo", "hello"))
    place.call(argv=("/bin/true",))
    assert [1, 2, 3, 4] == held(place)
    where = str(place.ledger if form == "ledger" else place.home)
    done = place.go("ledger", "erase", str(index), "--yes", "--ledger", where)
    assert (0, b"", [3, 4]) == (done.code, done.out, held(place))
    assert "erased the salt of entries 1 and 2" in done.err
    for at, field in ((1, "request"), (1, "arg.1"), (2, "stdout"), (2, "text")):
        refused = place.go("ledger", "disclose", str(at), field)
        assert (45, b"", True) == (refused.code, refused.out, "[disclosure.salt]" in refused.err)
    assert 0 == place.go("ledger", "disclose", "4", "stdout").code
    verified = place.go("verify", "--json")
    assert (0, "intact") == (verified.code, verified.json["integrity"]["status"])
    again = place.go("ledger", "erase", str(index), "--yes")
    assert (0, True) == (again.code, "nothing to erase" in again.err)


def test_nothing_is_erased_without_a_yes(place: Place) -> None:
    place.call(argv=("/bin/true",))
    done = place.go("ledger", "erase", "1")
    assert (2, True, [1, 2]) == (done.code, "salt of entries 1 and 2, for good; say --yes" in done.err, held(place))


def test_a_refusal_has_a_salt_of_its_own(place: Place) -> None:
    place.call(argv=("/bin/true",))
    assert 13 == place.run("--input", "missing", "--", "/bin/true").code
    assert 0 == place.go("ledger", "disclose", "3", "request").code
    assert (0, [1, 2]) == (place.go("ledger", "erase", "3", "--yes").code, held(place))


def test_what_has_no_salt_is_refused(place: Place) -> None:
    place.call(argv=("/bin/true",))
    assert 0 == place.go("ledger", "publish", "public").code
    genesis = place.go("ledger", "erase", "0", "--yes")
    assert (45, True) == (genesis.code, "[erase.kind]" in genesis.err)
    assert 45 == place.go("ledger", "erase", "3", "--yes").code
    public = place.go("ledger", "erase", "1", "--yes", "--ledger", "public")
    assert (0, True, [1, 2]) == (public.code, "nothing to erase" in public.err, held(place))


def test_an_invocation_without_an_end_keeps_its_salt_until_it_is_known_to_have_none(place: Place) -> None:
    child = place.start("run", "--backend", "process", "--", "/bin/sh", "-c", "echo x >executed; sleep 300")
    until(place.marker.exists, "the child runs")
    running = place.go("ledger", "erase", "1", "--yes")
    assert (45, True) == (running.code, "[erase.open]" in running.err)
    child.kill()
    child.communicate()
    assert (45, [1]) == (place.go("ledger", "erase", "1", "--yes").code, held(place))
    place.call(argv=("/bin/true",))
    assert ["genesis", "intent", "gap"] == place.kinds()[:3]
    waiting = place.home / "pending" / f"{place.entries()[1].predicate['invocationId']}.json.unreadable"
    waiting.parent.mkdir(exist_ok=True)
    waiting.touch()
    assert 45 == place.go("ledger", "erase", "1", "--yes").code
    waiting.unlink()
    assert (0, [3, 4]) == (place.go("ledger", "erase", "1", "--yes").code, held(place))


def test_an_outcome_that_names_another_invocations_intent_erases_nothing(bare: Place) -> None:
    bare.is_whole = False
    ledger = Ledger()
    ledger.add(ledgers.genesis())
    ledger.invoke(1)
    ledger.add(ledgers.outcome(2, 1, ledger.hash_at(1)))
    store = ledgers.write_sqlite(ledger, bare.work / "store")
    done = bare.go("ledger", "erase", "3", "--yes", "--ledger", str(store))
    assert (45, True, True) == (done.code, "[erase.intent]" in done.err, "nothing was erased" in done.err)
