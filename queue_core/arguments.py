"""What callers pass, checked where it comes in.

Each check returns its value, or raises `ConfigError` with the argument's name and what it should
be: so a mistake is told by the call that makes it, on every transport alike, and not by a driver,
by arithmetic, or by who reads the message later. A keyword that there is not, but which kombu or
celery have, is answered with what it is called here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from types import UnionType
from typing import Any, Final, NoReturn

import msgspec

from queue_core.errors import ConfigError, TooLarge, nearest

MAX_HEADERS = 1000
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADER_DEPTH = 32
MAX_PRIORITY = 9
MAX_SECONDS = 2**32 / 1000

_PLAIN: Final = frozenset((str, bool, bytes, type(None)))
_NESTED: Final = (list, tuple, Mapping)
_CARRIED: Final = (str, bytes, bytearray, datetime, Decimal, type(None))

_IN_URL: Final = "what a connection needs stands in its URL, amqp://user:password@host:5672/vhost"
_BY_ITSELF: Final = "a call waits for the broker and repeats by itself, for timeout= seconds"
_DECLARED: Final = "declare first, once: connection.declare(queue)"
_PUBLISH: Final = "write connection.producer().publish(body, queue, headers=..., serializer=...)"
_ALWAYS_ACKED: Final = "each message is acked; simple_queue(name).get() does it at once"
_ELSEWHERE: Final[Mapping[str, str]] = {
    "alternates": "write several URLs with ';' between them",
    "auto_declare": _DECLARED,
    "binding_arguments": "write bindings=[Binding(exchange, queue, arguments={...})]",
    "callbacks": "write connection.consumer(queue).run(function)",
    "channel": "a connection is enough: connection.declare(queue), connection.producer(exchange)",
    "consumer_arguments": "how a queue is consumed says connection.consumer(queue, ...)",
    "countdown": "write delay=, in seconds",
    "compression": _PUBLISH,
    "declare": _DECLARED,
    "delivery_mode": "write durable=False for what may be lost when the broker ends",
    "exchange": "write source=, the name of the exchange",
    "exchange_type": "write Exchange(name, type=...)",
    "expiration": "write ttl=, in seconds",
    "failover_strategy": "write several URLs with ';' between them; they are tried in turn",
    "headers": _PUBLISH,
    "heartbeat": "it is an option of the URL: amqp://host?heartbeat=30",
    "hostname": _IN_URL,
    "no_ack": _ALWAYS_ACKED,
    "no_declare": "only what connection.declare() is given is declared",
    "on_message": "write connection.consumer(queue).run(function)",
    "passive": "write connection.declare(..., passive=True)",
    "password": _IN_URL,
    "port": _IN_URL,
    "queue": "write destination=, the name of the queue",
    "queue_arguments": "write max_priority=9 for {'x-max-priority': 9}, message_ttl=60 for "
    "{'x-message-ttl': 60000} and so on; arguments= passes anything to RabbitMQ",
    "queues": "write connection.consumer(*queues)",
    "retry": _BY_ITSELF,
    "retry_policy": _BY_ITSELF,
    "routing_key": "it belongs to each message: publish(body, routing_key)",
    "serializer": _PUBLISH,
    "ssl": "write amqps:// or rediss://; certificates are options of the URL",
    "transport_options": "they are options of the URL; visibility_timeout is lease=",
    "ttl": "write message_ttl=, in seconds",
    "userid": _IN_URL,
    "virtual_host": _IN_URL,
}
"""What kombu and celery have, and a call here has not -> what to write instead."""


def refuse_options(call: str, unknown: Iterable[str], known: Iterable[str] | None) -> NoReturn:
    """Raise ConfigError for an option that ``call`` has not, with what is meant by it.

    ``known`` are those that it has, for example the ``__kwdefaults__`` of the function.
    """
    name = min(unknown)
    names = list(known or ())
    advice = _ELSEWHERE.get(name)
    if advice is None:
        near = nearest(name, names)
        advice = f"did you mean {near!r}?" if near else f"it has {', '.join(names)}"
    raise ConfigError(f"{call}() has no option {name!r}; {advice}")


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
    """Raise ConfigError unless each is a string that can be written as UTF-8, or None."""
    for name, value in named.items():
        if value is not None:
            check_kind(name, value, str, "a string")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ConfigError(f"{name} {value!r:.60} is not valid Unicode") from None


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
    if headers.__class__ is not dict:
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
            or (not name.isprintable() and min(name) < " ")  # the first is quick
        ):
            raise ConfigError(
                f"header name {name!r:.60} must be a string of 1 to 255 bytes without control "
                "characters"
            )
    size = _size(carried)
    for name, value in carried.items():
        if value.__class__ not in _PLAIN:
            _check_header(name, value)
    if size > MAX_HEADER_BYTES:
        raise TooLarge(
            f"the headers take {size} bytes; {MAX_HEADER_BYTES} is the limit; put large data "
            "into the body"
        )
    return carried


def _size(headers: Mapping[str, Any]) -> int:
    """Return about how many bytes they take; this ends, and so does what looks at them later."""
    try:
        return len(msgspec.msgpack.encode(headers))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        if len(headers) == 1:
            raise _unsendable(next(iter(headers)), str(error)) from error
    return sum(_size({name: value}) for name, value in headers.items())


def _check_header(name: str, value: object, depth: int = MAX_HEADER_DEPTH) -> None:
    """Raise ConfigError for what msgpack knows, and some broker does not."""
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise _unsendable(name, f"{value} needs more than 64 bits; write it as a string")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _unsendable(name, f"{value} is no number; write it as a string")
    elif isinstance(value, _NESTED):
        if depth <= 0:
            raise _unsendable(name, f"it is nested deeper than {MAX_HEADER_DEPTH} levels")
        for item in _inside(name, value):
            if item.__class__ not in _PLAIN:
                _check_header(name, item, depth - 1)
    elif not isinstance(value, _CARRIED):
        raise _unsendable(name, f"a {type(value).__name__} is none of these")


def _inside(name: str, value: Iterable[object]) -> Iterable[object]:
    if not isinstance(value, Mapping):
        return value
    for key in value:
        if not isinstance(key, str):
            raise _unsendable(name, f"what a dict holds is named by strings, not {key!r:.60}")
    return value.values()


def _unsendable(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"the header {name!r:.60} cannot be sent: {why}; use strings, numbers, booleans, bytes, "
        "lists and dicts"
    )
