"""A failure as data: what becomes of an exception before it travels, and on the other side.

An exception object never travels, and no name that came in a message is ever imported. What arrives
is an exception again only if its class is among those that were allowed here (`Errors`); everything
else is a `RemoteError` with the name and the text.
"""

from __future__ import annotations

import math
import reprlib
import traceback
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from queue_core import QueueCoreError, RemoteError, UsageError

MAX_REPR = 1024
MAX_CAUSES: Final = 8
"""How many causes of a failure travel with it."""
MAX_BITS: Final = 10_000
"""Larger numbers have no form in JSON, since Python refuses to write them in decimal."""

E = TypeVar("E", bound=type[Exception])

_reprs = reprlib.Repr()
_reprs.maxlevel = 4
_reprs.maxlist = _reprs.maxtuple = _reprs.maxset = _reprs.maxdict = 20
_reprs.maxstring = _reprs.maxother = 200


class Failure(msgspec.Struct, frozen=True):
    """A failure as data: an exception object never travels.

    Attributes:
        type_name, module: of the exception's class.
        arguments: its arguments, each a JSON value or its repr.
        trace: the formatted traceback, with those of its causes.
        cause: what it was raised from, or while handling what.
    """

    type_name: str
    module: str
    arguments: list[Any]
    trace: str = ""
    cause: Failure | None = None

    @property
    def text(self) -> str:
        """The arguments for people."""
        return ", ".join(str(argument) for argument in self.arguments)

    def __str__(self) -> str:
        """``ValueError: text``."""
        return f"{self.type_name}: {self.text}" if self.arguments else self.type_name

    def shortened(self) -> Failure:
        """Return it with no more of its text and its traceback than is good for a log."""
        text = readable(self.text[:1000])
        return Failure(self.type_name, self.module, [text], self.trace[-10_000:])

    def as_wire(self) -> dict[str, Any]:
        """Return it as celery's programs write it, without the traceback."""
        wire = {
            "exc_type": self.type_name,
            "exc_message": self.arguments,
            "exc_module": self.module,
        }
        return wire if self.cause is None else {**wire, "exc_cause": self.cause.as_wire()}


def read_failure(
    what: Any, trace: object, otherwise: str = "Exception", *, causes: int = MAX_CAUSES
) -> Failure:
    """Read what `Failure.as_wire` wrote, or something like it; never raises.

    ``otherwise`` is the name of the exception where none is given. More than so many ``causes`` are
    left out.
    """
    trace = str(trace or "")
    if not isinstance(what, Mapping):
        return Failure(otherwise, "", [] if what is None else [what], trace)
    text = what.get("exc_message", [])
    cause = what.get("exc_cause")
    return Failure(
        str(what.get("exc_type", otherwise)),
        str(what.get("exc_module") or ""),
        list(text) if isinstance(text, list | tuple) else [text],
        trace,
        read_failure(cause, "", causes=causes - 1)
        if isinstance(cause, Mapping) and causes > 0
        else None,
    )


def short_repr(value: object) -> str:
    """Return a repr of at most 1,024 characters, for people. Long values are cut; never raises."""
    if type(value) in (tuple, dict, list) and not value:
        return repr(value)
    try:
        text = readable(_reprs.repr(value))
    except Exception as error:  # its __repr__ may do anything
        return f"<{type.__repr__(type(value))} that cannot be shown: {type(error).__name__}>"
    return text if len(text) <= MAX_REPR else f"{text[: MAX_REPR - 3]}..."


def readable(text: str) -> str:
    """Return a text that can travel.

    Halves of surrogate pairs, such as ``os.fsdecode`` leaves in the name of a file, are escaped.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def describe_exception(error: BaseException, *, hide: Collection[str] = ()) -> Failure:
    """Turn an exception into data, without the first frames that are in files of ``hide``.

    Never raises.
    """
    kind = type(error)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in hide:
        if frames.tb_next is None:
            break
        frames = frames.tb_next
    try:
        trace = readable("".join(traceback.format_exception(kind, error, frames)))
    except Exception as broken:  # a user's __str__ may do anything
        trace = f"the traceback of {kind.__name__} cannot be shown: {type(broken).__name__}\n"
    return msgspec.structs.replace(_describe(error, MAX_CAUSES), trace=trace)


def _describe(error: BaseException, causes: int) -> Failure:
    module, name = _name(type(error))
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    return Failure(
        name,
        module,
        _arguments(error),
        cause=None if cause is None or causes <= 0 else _describe(cause, causes - 1),
    )


def _arguments(error: BaseException) -> list[Any]:
    try:
        return [_plain(argument) for argument in error.args]
    except BaseException as broken:  # what a user's class calls ``args`` may do anything
        return [f"the arguments cannot be shown: {type(broken).__name__}"]


def _plain(value: object) -> Any:
    """A value of JSON, also for one of a class derived from its own; a repr for all others."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return readable(str.__str__(value))
    if isinstance(value, int) and value.bit_length() <= MAX_BITS:
        return int.__int__(value)
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value)
    return short_repr(value)


class Errors:
    """Which exceptions may be made of failures: the allow-list of one app.

    From the start those of queue_core, and of Python those that stand for what a program does wrong
    or meets: not ``SystemExit`` and its like, nor ``StopIteration``, nor ``TimeoutError``, which is
    raised where no result came in time.
    """

    def __init__(self, more: Iterable[type[Exception]] = ()) -> None:
        """``more`` are allowed, too."""
        self._known = dict(_ORDINARY)
        for kind in more:
            self.allow(kind)

    def allow(self, kind: E) -> E:
        """Allow a class, which must take the arguments that its instances have; return it.

        Raises:
            UsageError: it is no class of exceptions.
        """
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise UsageError(f"{kind!r} is no class of exceptions")
        self._known[_name(kind)] = kind
        return kind

    def rebuild(self, failure: Failure) -> Exception:
        """Return what is raised for a failure; the remote traceback is a note of it."""
        error = self._make(failure)
        if failure.trace:
            error.add_note(f"remote traceback:\n{failure.trace.rstrip()}")
        if failure.cause is not None:
            error.__cause__ = self.rebuild(failure.cause)
        return error

    def _make(self, failure: Failure) -> Exception:
        kind = self._known.get((failure.module, failure.type_name))
        if kind is not None:
            try:
                return kind(*failure.arguments)
            except Exception:  # noqa: S110 - arguments that had no form in JSON, or too few
                pass
        return RemoteError(failure.type_name, failure.text)


_CELERYS: Final = "celery.exceptions"
_CALLED: Final = {
    ("queue_core.worker.limits", "SoftTimeLimitExceeded"): (_CELERYS, "SoftTimeLimitExceeded"),
    ("queue_core.worker.endings", "MaxRetriesExceeded"): (_CELERYS, "MaxRetriesExceededError"),
}
"""Which of ours are called otherwise on the wire: programs of celery's have classes for them."""


def _name(kind: type) -> tuple[str, str]:
    """Module and name of a class of exceptions, on the wire."""
    own = kind.__module__, kind.__qualname__
    return _CALLED.get(own, own)


def _with_subclasses(kind: type[Exception]) -> Iterable[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _with_subclasses(child)


_NEVER: Final = (StopIteration, StopAsyncIteration, TimeoutError, Warning, BaseExceptionGroup)
_ORDINARY: Final = {
    _name(kind): kind
    for kind in _with_subclasses(Exception)
    if kind.__module__ in ("builtins", QueueCoreError.__module__) and not issubclass(kind, _NEVER)
}
