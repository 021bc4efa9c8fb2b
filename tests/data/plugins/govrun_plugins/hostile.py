"""The `hostile` backend: like `echoing`, but the variable HOSTILE says in which one way it misbehaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from govrun.backends.interface import Captured, Check, CommandPlan, Dependency, Facts, Inquiry
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve
from govrun.request import ParameterSpec, SettingSpec
from govrun.template import Template, Word
from govrun_plugins.echoing import Echoing

WAY = os.environ.get("HOSTILE", "")


class Hostile(Echoing):
    name = "hostile"

    def settings(self) -> Sequence[SettingSpec]:
        return _misbehave("settings", (SettingSpec("HOSTILE_THING", "text", "a thing"),))

    def parameters(self, settings: Mapping[str, str]) -> Sequence[ParameterSpec]:
        return _misbehave("parameters", ())

    def checks(self, inquiry: Inquiry) -> Sequence[Check]:
        run = {"check-waits": _wait, "check-exits": _exit, "check-raises": _raise, "check-says-yes": lambda: "yes"}
        if WAY in run:
            return (Check("hostile.check", "it is well", run[WAY]),)
        ways: dict[str, Sequence[Check]] = {
            "checks-empty": (),
            "checks-vacuous": (Check("hostile.check", "it is well", lambda: False),),
            "checks-twice": super().checks(inquiry) * 2,
            "checks-odd-id": (Check("Hostile check!\n", "it is well", lambda: True),),
        }
        return ways.get(WAY) or ways.get(WAY, _misbehave("checks", super().checks(inquiry)))

    def plan(self, inquiry: Inquiry) -> CommandPlan:
        plan = super().plan(inquiry)
        shell = ("/bin/sh", "-c", "echo executed >>executed")
        plan = evolve(plan, template=Template("hostile.plan", tuple(map(Word, shell))), descriptors=())
        ways: dict[str, dict[str, Any]] = {
            "plan-relative-program": {"template": Template("hostile.plan", (Word("sh"),))},
            "plan-empty": {"template": Template("hostile.plan", ())},
            "plan-numbers": {"template": Template("hostile.plan", (Word(1),))},  # type: ignore[arg-type]
            "plan-text": {"template": "/bin/sh"},
            "plan-relative-cwd": {"cwd": Path("work")},
            "plan-text-cwd": {"cwd": "/"},
            "plan-environment": {"environment": (("A=B", "x"),)},
            "plan-environment-nul": {"environment": (("A", "x\0y"),)},
            "plan-environment-number": {"environment": (("A", 1),)},
            "plan-environment-flat": {"environment": ("A",)},
            "plan-descriptor-low": {"descriptors": ((1, b""),)},
            "plan-descriptor-twice": {"descriptors": ((64, b""), (64, b""))},
            "plan-descriptor-text": {"descriptors": ((64, "text"),)},
            "plan-dependency": {"dependencies": ("/bin/cat",)},
            "plan-dependency-text": {"dependencies": (Dependency("binary", "/bin/cat"),)},  # type: ignore[arg-type]
            "plan-dependency-role": {"dependencies": (Dependency("toy", Path("/bin/cat")),)},  # type: ignore[arg-type]
            "plan-determinism": {"determinism": None},
            "plan-short-secret": {"environment": (("KEY", "short"),), "secrets": ("KEY",)},
            "plan-path-in-word": {"template": Template("hostile.plan", (Word("/bin/sh"), Word("--x=/etc/passwd")))},
        }
        return _misbehave("plan", evolve(plan, **ways.get(WAY, {})))

    def parse(self, plan: CommandPlan, captured: Captured) -> Facts:
        if WAY == "parse-refuses":
            raise GovrunError(ExitCode.OUTPUT_UNPARSABLE, "hostile.unreadable", "what is this")
        if WAY == "parse-fails":
            raise GovrunError(ExitCode.COMMAND_FAILED, "hostile.hidden", "it says that it failed")
        if WAY == "parse-leaks":
            # The value of a variable whose name says that it is a secret, and a path.
            secret, path = os.environ.get("MY_TOKEN"), os.getcwd()
            raise GovrunError(ExitCode.OUTPUT_UNPARSABLE, "hostile.leak", "it leaks", found=secret, expected=path)
        if WAY.startswith("breaks-"):
            _break(WAY.removeprefix("breaks-"))
        ways: dict[str, Any] = {
            "parse-text": Facts("text"),  # type: ignore[arg-type]
            "parse-negative": Facts(b"x", prompt_tokens=-1),
            "parse-odd-facts": Facts(b"x", prompt_tokens=2**80, finish_reason="whatever", seed=1.5),  # type: ignore[arg-type]
        }
        return _misbehave("parse", ways.get(WAY, Facts(captured.stdout.data)))

    def explain(self, captured: Captured) -> str:
        return _misbehave("explain", "no rule at all!" if WAY == "explain-odd" else "hostile.exit")


def _misbehave(where: str, answer: Any) -> Any:
    """The answer, unless HOSTILE names this method and a way to go wrong in it."""
    if f"{where}-none" == WAY:
        return None
    if f"{where}-number" == WAY:
        return 7
    if f"{where}-raises" == WAY:
        _raise()
    if f"{where}-exits" == WAY:
        _exit()
    if f"{where}-succeeds" == WAY:
        raise GovrunError(ExitCode.SUCCESS, "hostile.success", "all is well")
    if f"{where}-odd-error" == WAY:
        raise GovrunError(ExitCode.REQUEST_INVALID, "not a rule", 5, found=["x"])  # type: ignore[arg-type]
    return answer


def _break(what: str) -> None:
    """Do to the program that has loaded it what a defect would: from here on receipts do not fit, or keys do not sign."""
    from govrun import receipt
    from govrun.signing.keys import Ed25519Signer

    whole = Ed25519Signer.sign

    def sign(self: Ed25519Signer, message: bytes) -> bytes:
        if message.startswith(b"DSSEv1") == (what == "signing"):
            raise RuntimeError("secret words of a signer")
        return whole(self, message)

    if what == "receipt":
        receipt.MAX_PAYLOAD_BYTES = 100  # type: ignore[misc]
    else:
        Ed25519Signer.sign = sign  # type: ignore[method-assign]


def _raise() -> bool:
    raise RuntimeError("secret words of a plugin: /etc/shadow")


def _exit() -> bool:
    sys.exit(0)


def _wait() -> bool:
    # Opened only when somebody writes to it, which nobody does.
    Path("reached").touch()
    Path("wait-here").read_bytes()
    return True


BACKEND = Hostile()
