"""From an exception to what the user sees: up to three lines on stderr, and an exit code.

::

    0   done                             69  broker not reachable
    1   failed                           70  a bug of queue-core
    2   wrong usage                      75  timed out, try again
    3   partly                           76  not ours, damaged, or of a newer version
    4   nothing found                    77  access refused
    9   worker: stopped by force         78  bad configuration, or a missing extra
                                         130 interrupted, 143 terminated
"""

from __future__ import annotations

import os
import re
import sys
import traceback

import click

from queue_core import (
    AccessRefused,
    ConfigError,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    QueueNotFound,
    StoreCorrupt,
    TopologyMismatch,
    Unsupported,
    UsageError,
)
from queue_core.worker.absent import AppNotFound

FAILED, USAGE, PARTLY, NOTHING = 1, 2, 3, 4
UNREACHABLE, BUG, TIMED_OUT, DAMAGED, REFUSED, CONFIG = 69, 70, 75, 76, 77, 78
INTERRUPTED, TERMINATED = 130, 143

# The first class that fits decides: exit code, and what to try if the error itself does not say.
_KINDS: tuple[tuple[type[QueueCoreError], int, str], ...] = (
    (Unsupported, CONFIG, "queue-core features URL"),
    (TopologyMismatch, CONFIG, ""),
    (ConfigError, CONFIG, ""),
    (UsageError, USAGE, ""),
    (QueueNotFound, NOTHING, ""),
    (AccessRefused, REFUSED, "check the user, the password and the virtual host of the URL"),
    (ConnectTimeout, TIMED_OUT, "check that the broker runs and answers, then try again"),
    (ConnectionLost, UNREACHABLE, "check that the broker runs, and host and port of the URL"),
    (StoreCorrupt, DAMAGED, ""),
)


_WORDS = re.compile(r"\w+")


class CommandError(Exception):
    """A command failed in a way that it can explain itself."""

    def __init__(self, error: str, because: str = "", advice: str = "", code: int = FAILED) -> None:
        """Keep the parts."""
        super().__init__(error)
        self.error = error
        self.because = because
        self.advice = advice
        self.code = code


def report(error: BaseException) -> int:
    """Print what went wrong and return the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        show("interrupted")
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, CommandError):
        show(error.error, error.because, error.advice)
        return error.code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)  # a group without a command
        return error.exit_code
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "queue-core"
        show(_one_line(error.format_message()), advice=_advice(error, command))
        return error.exit_code
    if isinstance(error, AppNotFound):
        show(error.error, error.because, error.advice)
        _show_trace(error.trace)
        return CONFIG if error.trace else USAGE
    if isinstance(error, QueueCoreError):
        return _report_known(error)
    if isinstance(error, BrokenPipeError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - or the interpreter complains at its end
        return FAILED
    if isinstance(error, OSError):
        show(_one_line(str(error)))  # a full disk, a file that may not be read
        _show_trace("".join(traceback.format_exception(error)))
        return FAILED
    traceback.print_exception(error)
    show(f"a bug in queue-core: {type(error).__name__}", advice="report it with the lines above")
    return BUG


def _advice(error: click.ClickException, command: str) -> str:
    if isinstance(error, click.NoSuchOption):
        if command == "queue-core":
            return f"options stand behind the command: queue-core worker {error.option_name} ..."
        if error.option_name in ("-A", "--app"):
            return "-b URL, or QUEUE_CORE_URL: no app is needed, only its broker"
    return f"{command} --help"


def _report_known(error: QueueCoreError) -> int:
    code, advice = next(
        ((code, advice) for kind, code, advice in _KINDS if isinstance(error, kind)), (FAILED, "")
    )
    cause = error.__cause__
    because = _one_line(f"{type(cause).__name__}: {cause}") if cause is not None else ""
    if cause is not None and _says(_one_line(str(error)), cause):
        because = ""
    for text in _told(error):
        before, sign, after = text.rpartition(";")
        show(*((before, because, after.strip()) if sign else (text, because, advice)))
    _show_trace("".join(traceback.format_exception(error)))
    return code


def _told(error: QueueCoreError) -> list[str]:
    """Return what an error says, on a line; several if they are mistakes in the settings."""
    lines = str(error).splitlines() if isinstance(error, ConfigError) else [str(error)]
    return [_one_line(line) for line in lines]


def _says(text: str, cause: BaseException) -> bool:
    """Whether a text has all that its cause says, in whatever punctuation."""
    said = " ".join(_WORDS.findall(text))
    return all(" ".join(_WORDS.findall(str(part))) in said for part in cause.args or (cause,))


def show(error: str, because: str = "", advice: str = "") -> None:
    """Print an error."""
    for label, text in (("error:", error), ("because:", because), ("try:", advice)):
        if text:
            click.echo(f"{label:<8} " + text.replace("\n", f"\n{'':<9}"), err=True)


def _show_trace(trace: str) -> None:
    if trace and os.environ.get("QUEUE_CORE_TRACEBACK"):
        click.echo(trace.rstrip(), err=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())
