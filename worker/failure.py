"""A failure as data: what becomes of an exception before it travels."""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

MAX_REPR = 1024

_reprs = reprlib.Repr()
_reprs.maxlevel = 4
_reprs.maxlist = _reprs.maxtuple = _reprs.maxset = _reprs.maxdict = 20
_reprs.maxstring = _reprs.maxother = 200


class Failure(msgspec.Struct, frozen=True):
    """A failure as data: an exception object never travels.

    Attributes:
        type_name, module: of the exception's class.
        arguments: its arguments, each a JSON value or its repr.
        trace: the formatted traceback.
    """

    type_name: str
    module: str
    arguments: list[Any]
    trace: str = ""

    @property
    def text(self) -> str:
        """The arguments for people."""
        return ", ".join(str(argument) for argument in self.arguments)

    def __str__(self) -> str:
        """``ValueError: text``."""
        return f"{self.type_name}: {self.text}" if self.arguments else self.type_name

    def as_wire(self) -> dict[str, Any]:
        """Return it as celery's programs write it, without the traceback."""
        return {
            "exc_type": self.type_name,
            "exc_message": self.arguments,
            "exc_module": self.module,
        }


def read_failure(what: Any, trace: object, otherwise: str = "Exception") -> Failure:
    """Read what `Failure.as_wire` wrote, or something like it; never raises.

    ``otherwise`` is the name of the exception where none is given.
    """
    trace = str(trace or "")
    if not isinstance(what, Mapping):
        return Failure(otherwise, "", [] if what is None else [what], trace)
    text = what.get("exc_message", [])
    return Failure(
        str(what.get("exc_type", otherwise)),
        str(what.get("exc_module") or ""),
        list(text) if isinstance(text, list | tuple) else [text],
        trace,
    )


def short_repr(value: object) -> str:
    """Return a repr of at most 1,024 characters, for people. Long values are cut; never raises."""
    if not value and type(value) in (tuple, dict, list):
        return repr(value)
    text = _reprs.repr(value)
    return text if len(text) <= MAX_REPR else f"{text[: MAX_REPR - 3]}..."


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
        trace = "".join(traceback.format_exception(kind, error, frames))
    except Exception as broken:  # a user's __str__ may do anything
        trace = f"the traceback of {kind.__name__} cannot be shown: {type(broken).__name__}\n"
    return Failure(
        kind.__qualname__, kind.__module__, [_plain(argument) for argument in error.args], trace
    )


def _plain(value: object) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return short_repr(value)
