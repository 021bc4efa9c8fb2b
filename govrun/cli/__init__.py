"""The command line: one command per file, each imported only when it is the one that was asked for."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with a code of the table in `errors`."""
    # A command lives for milliseconds; collecting cycles while modules load costs more than it frees.
    gc.disable()
    try:
        _run()
    except SystemExit as end:
        _leave(end)
        raise


def _run() -> NoReturn:
    _occupy_standard_descriptors()
    # Until an intent is announced, Ctrl-C ends govrun as it ends any program: nothing has happened yet. Where whoever
    # started it wants the signal ignored, as a shell does for a job in the background, it stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # Imported only now, so that no collection comes between.
    import click

    from govrun.cli.commands import cli
    from govrun.errors import GovrunError

    try:
        cli(standalone_mode=False, prog_name="govrun")
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except GovrunError as error:
        from govrun.cli.output import show_error

        show_error(error)
        sys.exit(int(error.code))
    sys.exit(0)


def _leave(end: SystemExit) -> None:
    """End the process with everything said, and without taking it apart first; return if something is left to say."""
    # Nothing waits for the end of the interpreter: files, locks and children are closed by whoever opened them. To
    # look for cycles and free every object once more was measured at 20 ms, a tenth of a whole `govrun run`.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the interpreter says so, and ends with its own code for output that got lost
    if isinstance(end.code, int):
        os._exit(end.code)


def _occupy_standard_descriptors() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, so that no file of ours gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the program lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
