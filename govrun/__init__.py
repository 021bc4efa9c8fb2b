"""govrun: governed execution with receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from govrun.api import open_shared, run
    from govrun.errors import ExitCode, GovrunError
    from govrun.invoke import Result

__version__ = "0.1.0"
__all__ = ["ExitCode", "GovrunError", "Result", "__version__", "open_shared", "run"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `import govrun` costs nothing and the command line starts fast.
    if name in ("open_shared", "run"):
        from govrun import api

        return getattr(api, name)
    if name in ("ExitCode", "GovrunError"):
        from govrun import errors

        return getattr(errors, name)
    if name == "Result":
        from govrun import invoke

        return invoke.Result
    raise AttributeError(f"module 'govrun' has no attribute {name!r}")
