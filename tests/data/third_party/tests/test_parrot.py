"""The parrot passes the conformance suite."""

from pathlib import Path

from govrun_parrot import BACKEND, Parrot

from govrun.backends.interface import Captured, Inquiry
from govrun.request import Request
from govrun.testing import BackendConformance, make_captured, make_inquiry


class TestParrot(BackendConformance):
    def backend(self) -> Parrot:
        return BACKEND

    def inquiry(self, directory: Path) -> Inquiry:
        return make_inquiry(BACKEND, Request("parrot", prompt=b"hello"))

    def captured(self) -> Captured:
        return make_captured(b"hello")
