"""A check that raises, is unknown, is missing or does not apply shows nothing, and nothing runs on nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from govrun.backends.interface import Check
from govrun.errors import ExitCode, GovrunError
from govrun.preflight import Passed, demand, examine

Refuses = Callable[..., GovrunError]
REFUSED = ExitCode.PREFLIGHT_REFUSED


def check(name: str, answer: object = True, *needs: str) -> Check:
    return Check(name, f"{name} is there", lambda: answer, needs)  # type: ignore[arg-type, return-value]


def breaks(name: str, error: BaseException, *needs: str) -> Check:
    def run() -> bool:
        raise error

    return Check(name, f"{name} is there", run, needs)


def refusal(rule: str = "x.model") -> GovrunError:
    return GovrunError(
        ExitCode.COMMAND_FAILED, rule, "the model is bad", found="magic 0", expected="GGUF", fix="get another"
    )


def statuses(*checks: Check) -> list[tuple[str, str]]:
    return [(result.id, result.status) for result in examine(checks)]


def test_checks_that_hold_pass_in_their_order() -> None:
    passed = demand([check("b"), check("a", False), check("c", True, "a", "b")])
    assert passed == Passed((("b", "passed"), ("a", "notApplicable"), ("c", "passed")))


def test_no_checks_at_all_are_refused(refuses: Refuses) -> None:
    refuses(REFUSED, "preflight.empty", demand, [])
    assert examine([]) == ()


def test_checks_of_which_none_applies_are_refused(refuses: Refuses) -> None:
    refuses(REFUSED, "preflight.vacuous", demand, [check("a", False), check("b", False)])


def test_a_refusal_keeps_its_rule_and_words_but_not_its_code(refuses: Refuses) -> None:
    error = refuses(REFUSED, "x.model", demand, [check("a"), breaks("b", refusal())])
    assert (error.what, error.found, error.expected, error.fix) == (
        "the model is bad",
        "magic 0",
        "GGUF",
        "get another",
    )


@pytest.mark.parametrize(
    "error", [ValueError("secret"), OSError(), AssertionError(), RecursionError(), StopIteration()]
)
def test_a_check_that_raises_anything_is_a_refusal_under_its_id(refuses: Refuses, error: Exception) -> None:
    caught = refuses(REFUSED, "x.y", demand, [breaks("x.y", error)])
    assert caught.found == f"the check itself failed: {type(error).__name__}"
    assert "secret" not in str(caught)


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        demand([breaks("a", KeyboardInterrupt())])


@pytest.mark.parametrize(
    "answer", [None, 1, 0, "", "True", [], object()], ids=lambda answer: type(answer).__name__ + repr(answer)[:4]
)
def test_a_check_that_answers_anything_but_true_or_false_is_refused(refuses: Refuses, answer: object) -> None:
    error = refuses(REFUSED, "x.y", demand, [check("x.y", answer)])
    assert error.found == f"the check answered {type(answer).__name__}"


def test_two_checks_with_one_id_are_refused_even_if_both_hold(refuses: Refuses) -> None:
    refuses(REFUSED, "preflight.duplicate", demand, [check("a"), check("a")])


@pytest.mark.parametrize("needs", [("missing",), ("a",), ("later",)])
def test_needs_that_are_unknown_own_or_later_are_refused(refuses: Refuses, needs: tuple[str, ...]) -> None:
    error = refuses(REFUSED, "preflight.unreached", demand, [check("a", True, *needs), check("later")])
    assert error.found == "a"


def test_a_check_whose_need_was_refused_is_not_asked() -> None:
    assert statuses(breaks("a", refusal()), breaks("b", AssertionError(), "a"), check("c", True, "b"), check("d")) == [
        ("a", "refused"),
        ("b", "notReached"),
        ("c", "notReached"),
        ("d", "passed"),
    ]


def test_a_need_that_does_not_apply_counts_as_met() -> None:
    assert statuses(check("a", False), check("b", True, "a")) == [("a", "notApplicable"), ("b", "passed")]


def test_the_first_refusal_is_raised_and_the_others_are_counted(refuses: Refuses) -> None:
    error = refuses(REFUSED, "one", demand, [breaks("a", refusal("one")), breaks("b", refusal("two")), check("c")])
    assert error.what == "the model is bad (and 1 more: see `govrun preflight`)"
