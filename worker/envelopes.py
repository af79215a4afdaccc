"""Bytes, dates, decimals and UUIDs in task messages and results, which JSON has no form for. Pure.

Each travels as an object that says what it is: ``{"__type__": "date", "__value__": "2026-11-22"}``.
That is what celery's programs write and read, so a datetime is one on the other side too, whoever
sent it. What says to be of another type is left as it is, and so is a value that cannot be read:
nothing is looked up by a name that came in a message.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

MARK: Final = b"__type__"
"""What every encoded body that holds an envelope contains."""
_KEYS: Final = {"__type__", "__value__"}


def _envelope(name: str, write: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {"__type__": name, "__value__": write(value)}


def _bytes(value: bytes) -> dict[str, Any]:
    try:
        return {"__type__": "bytes", "__value__": value.decode()}
    except UnicodeDecodeError:
        return {"__type__": "base64", "__value__": b64encode(value).decode()}


ENVELOPES: Final[Mapping[type, Callable[[Any], dict[str, Any]]]] = {
    datetime: _envelope("datetime", datetime.isoformat),
    date: _envelope("date", date.isoformat),
    time: _envelope("time", time.isoformat),
    Decimal: _envelope("decimal", str),
    UUID: _envelope("uuid", lambda value: {"hex": value.hex}),
    bytes: _bytes,
}
"""By exact type: what puts a value into its envelope."""

Openers = Mapping[str, Callable[[Any], Any]]
BINARY: Final[Openers] = {"bytes": str.encode, "base64": b64decode}
_OPENERS: Final[Openers] = {
    **BINARY,
    "datetime": datetime.fromisoformat,
    "date": lambda text: datetime.fromisoformat(text).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": lambda parts: UUID(hex=parts["hex"]),
}


def enclosed(value: Any) -> Any:
    """Return a value in its envelope, also one of a subclass; any other value as it is."""
    for kind, envelope in ENVELOPES.items():
        if isinstance(value, kind):
            return envelope(value)
    return value


def opened(payload: Any, openers: Openers = _OPENERS) -> Any:
    """Return a decoded payload with what was in envelopes; lists and objects are changed.

    ``openers`` says which; `BINARY` are those that hold bytes.
    """
    if type(payload) is dict:
        if payload.keys() == _KEYS:
            return _open(payload, openers)
        for name, value in payload.items():
            if type(value) in _NESTING:
                payload[name] = opened(value, openers)
    elif type(payload) is list:
        for at, value in enumerate(payload):
            if type(value) in _NESTING:
                payload[at] = opened(value, openers)
    return payload


_NESTING: Final = frozenset({dict, list})


def _open(envelope: dict[str, Any], openers: Openers) -> Any:
    name = envelope["__type__"]
    opener = openers.get(name) if type(name) is str else None
    try:
        return envelope if opener is None else opener(envelope["__value__"])
    except (ValueError, TypeError, ArithmeticError, LookupError):
        return envelope
