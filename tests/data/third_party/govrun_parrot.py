"""The `parrot` backend: `cat` says the prompt again. Everything that a backend must have, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from govrun.backends.interface import (
    Captured,
    Check,
    CommandPlan,
    Dependency,
    Determinism,
    Facts,
    Inquiry,
)
from govrun.errors import ExitCode, GovrunError
from govrun.request import ParameterSpec, SettingSpec
from govrun.template import Hole, Template

PROMPT_DESCRIPTOR = 64


class Parrot:
    name = "parrot"
    interface = 1

    def settings(self) -> Sequence[SettingSpec]:
        return [SettingSpec("PARROT_CAT", "path", "the program that speaks", default="/bin/cat")]

    def parameters(self, settings: Mapping[str, str]) -> Sequence[ParameterSpec]:
        return []

    def checks(self, inquiry: Inquiry) -> Sequence[Check]:
        def program() -> bool:
            path = _program(inquiry)
            if not path.is_absolute() or "\0" in str(path) or not path.is_file():
                raise _refusal("parrot.program", "the program is not there", "no file", "an absolute path of a file")
            return True

        def prompt() -> bool:
            if not inquiry.request.prompt:
                raise _refusal("parrot.prompt", "there is nothing to say", "no prompt", "a prompt")
            return True

        return [
            Check("parrot.program", "the program is there", program),
            Check("parrot.prompt", "there is something to say", prompt),
        ]

    def plan(self, inquiry: Inquiry) -> CommandPlan:
        program = _program(inquiry)
        prompt = Hole("path", "prompt", f"/dev/fd/{PROMPT_DESCRIPTOR}")
        return CommandPlan(
            template=Template("parrot.cat", (Hole("path", "program", str(program)), prompt)),
            cwd=Path("/"),
            environment=(("LANG", "C.UTF-8"),),
            dependencies=(Dependency("binary", program),),
            determinism=Determinism("deterministic"),
            descriptors=((PROMPT_DESCRIPTOR, inquiry.request.prompt or b""),),
        )

    def parse(self, plan: CommandPlan, captured: Captured) -> Facts:
        [(_, prompt)] = plan.descriptors
        if captured.stdout.truncated or captured.stdout.data != prompt:
            raise GovrunError(
                ExitCode.OUTPUT_UNPARSABLE,
                "parrot.other",
                "the parrot said something else",
                found=f"{captured.stdout.size} bytes",
                expected=f"the {len(prompt)} bytes of the prompt",
            )
        return Facts(captured.stdout.data, finish_reason="stop")

    def explain(self, captured: Captured) -> str:
        return "parrot.failed"


def _program(inquiry: Inquiry) -> Path:
    return Path(inquiry.settings.get("PARROT_CAT", "/bin/cat"))


def _refusal(rule: str, what: str, found: str, expected: str) -> GovrunError:
    return GovrunError(
        ExitCode.PREFLIGHT_REFUSED, rule, what, found=found, expected=expected, fix="see the parrot's readme"
    )


BACKEND = Parrot()
