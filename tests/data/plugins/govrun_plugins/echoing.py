"""The `echoing` backend, which behaves: `cat` says the prompt again. The hostile ones begin with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from govrun.backends.interface import Captured, Check, CommandPlan, Dependency, Determinism, Facts, Inquiry
from govrun.request import ParameterSpec, SettingSpec
from govrun.template import Template, Word


class Echoing:
    name = "echoing"
    interface = 1

    def settings(self) -> Sequence[SettingSpec]:
        return ()

    def parameters(self, settings: Mapping[str, str]) -> Sequence[ParameterSpec]:
        return ()

    def checks(self, inquiry: Inquiry) -> Sequence[Check]:
        return (Check("echoing.cat", "there is a cat", Path("/bin/cat").is_file),)

    def plan(self, inquiry: Inquiry) -> CommandPlan:
        return CommandPlan(
            template=Template("echoing.cat", (Word("/bin/cat"), Word("/dev/fd/64"))),
            cwd=Path(inquiry.request.cwd),
            environment=(("LANG", "C.UTF-8"),),
            dependencies=(Dependency("binary", Path("/bin/cat")),),
            determinism=Determinism("deterministic"),
            descriptors=((64, inquiry.request.prompt or b""),),
        )

    def parse(self, plan: CommandPlan, captured: Captured) -> Facts:
        return Facts(captured.stdout.data)

    def explain(self, captured: Captured) -> str:
        return "echoing.exit"


BACKEND = Echoing()
