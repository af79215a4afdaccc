"""What callers pass, checked where it comes in.

Each check returns its value, or raises `ConfigError` with the argument's name and what it should
be: so a mistake is told by the call that makes it, on every transport alike, and not by a driver,
by arithmetic, or by who reads the message later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import UnionType
from typing import Any

import msgspec

from queue_core.errors import ConfigError, TooLarge

MAX_HEADERS = 1000
MAX_HEADER_BYTES = 64 * 1024
MAX_PRIORITY = 9
MAX_SECONDS = 2**32 / 1000


def check_seconds(what: str, value: float | None, *, zero: bool = False) -> float | None:
    """Return a duration in seconds, or None; see `need_seconds`."""
    return None if value is None else need_seconds(what, value, zero=zero)


def need_seconds(
    what: str, value: float, *, zero: bool = False, limit: float = MAX_SECONDS
) -> float:
    """Return a duration in seconds.

    Raises:
        ConfigError: it is not a finite number, negative, zero where that is not allowed, or beyond
            ``limit``; without one 49 days (RabbitMQ's limit of 2**32 milliseconds).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise ConfigError(f"{what} is a number of seconds, not {value!r:.60}")
    if value < 0 or (value == 0 and not zero):
        raise ConfigError(
            f"{what} must be {'at least' if zero else 'more than'} 0 seconds, not {value!r:.60}"
        )
    if value > limit:
        raise ConfigError(
            f"{what} of {value!r:.60} seconds is beyond the limit of {int(limit)} seconds "
            f"({int(limit) // 86400} days)"
        )
    return float(value)


def check_count(what: str, value: int | None, low: int, high: int | None = None) -> None:
    """Raise ConfigError unless it is None or a whole number; see `need_count`."""
    if value is not None:
        need_count(what, value, low, high)


def need_count(what: str, value: int, low: int, high: int | None = None) -> None:
    """Raise ConfigError unless it is a whole number from ``low`` to ``high``."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value > high)
    ):
        bound = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ConfigError(f"{what} is a whole number {bound}, not {value!r:.60}")


def check_kind(what: str, value: object, kind: type | UnionType, words: str) -> None:
    """Raise ConfigError unless it is of this kind, which ``words`` say; True is no number."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{what} is {words}, not {value!r:.60}")


def check_texts(**named: str | None) -> None:
    """Raise ConfigError unless each is a string or None."""
    for name, value in named.items():
        if value is not None:
            check_kind(name, value, str, "a string")


def check_flags(label: str = "", **named: bool) -> None:
    """Raise ConfigError unless each is True or False; ``label`` comes before the name."""
    for name, value in named.items():
        check_kind(f"{label}{name}", value, bool, "True or False")


def check_priority(priority: int) -> None:
    """Raise ConfigError unless it is a priority that a message may have."""
    need_count("priority", priority, 0, MAX_PRIORITY)


def copy_headers(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of headers that every transport can carry.

    Raises:
        ConfigError: it is no mapping, has too many, or holds a name or value that cannot be sent.
        TooLarge: they take more than `MAX_HEADER_BYTES`.
    """
    if headers is None:
        return {}
    check_kind("headers", headers, Mapping, "a mapping of names to values")
    carried = dict(headers)
    if not carried:
        return carried
    if len(carried) > MAX_HEADERS:
        raise ConfigError(f"a message has at most {MAX_HEADERS} headers, not {len(carried)}")
    for name in carried:
        if (
            not isinstance(name, str)
            or not name
            or len(name.encode("utf-8", "replace")) > 255
            or min(name) < " "
        ):
            raise ConfigError(
                f"header name {name!r:.60} must be a string of 1 to 255 bytes without control "
                "characters"
            )
    try:
        size = len(msgspec.msgpack.encode(carried))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"a header value cannot be sent: {error}; use strings, numbers, booleans, bytes, "
            "lists and dicts"
        ) from error
    if size > MAX_HEADER_BYTES:
        raise TooLarge(
            f"the headers take {size} bytes; {MAX_HEADER_BYTES} is the limit; put large data "
            "into the body"
        )
    return carried
