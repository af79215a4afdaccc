"""From a signature to a message: `Composer`.

Used where tasks are sent, in the children that run tasks (what follows a task is composed there and
sent by the worker together with the ack), and in the worker itself, which tells error links of
tasks that could not even fail. So it knows no connection: what a task's own options are and which
queue a task goes to, it is told by functions.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, TypedDict

import msgspec

from queue_core import (
    ConfigError,
    MessageError,
    Properties,
    Publication,
    Queue,
    TooLarge,
    UsageError,
    encode,
    fresh_id,
)
from queue_core.worker.envelopes import BINARY, opened
from queue_core.worker.moments import instant, utcnow, zone_of
from queue_core.worker.near import did_you_mean
from queue_core.worker.outcome import AppInfo, Letter
from queue_core.worker.protocol import (
    NOTHING_FOLLOWS,
    STANDARD_HEADERS,
    Call,
    Embed,
    task_body,
    task_headers,
)
from queue_core.worker.routes import merged
from queue_core.worker.rules import Rules
from queue_core.worker.signature import MakesSignatures, Signature, as_list, plain

MAX_PRIORITY = 9
MAX_HEADER_BYTES = 64 * 1024


Follower = Signature[Any] | MakesSignatures
"""A signature, or a task without arguments of its own."""


class SendOptions(TypedDict, total=False):
    """How a task is sent; each of them replaces the task's own.

    Keys:
        queue: the queue, by name or as a value; it is declared if needed.
        exchange, routing_key: publish there instead, as celery does.
        countdown: seconds before the task may start. The broker holds it back, not a worker.
        eta: the same as a point in time; one that says no zone is in the setting ``timezone``.
        expires: seconds, or a point in time, after which it is not worth starting any more.
        priority: 0 to 9, higher first, in queues with ``max_priority``.
        serializer: for the arguments: ``json``, ``msgpack``, ...
        compression: ``zlib``.
        headers: more headers for the message.
        link, link_error: signatures or tasks, one or several: sent with the result when the task
            has succeeded, or with its id when it has failed for good.
        task_id: a unique id; generated if not given.
        root_id, parent_id: the run that began it all, and the one that sends this; those of the
            running task if not given.
        time_limit, soft_time_limit: seconds for which it may run.
        ignore_result: nobody will ask for the result.
        retry: whether to try again while the broker is away; True if not given.
        retry_policy: ``timeout``: for how many seconds, instead of the connection's; see
            `queue_core.worker.patience` for celery's keys.
        transaction: SQL brokers only: a SQLAlchemy session or connection on the same database. The
            task is sent if and only if that commits.
        shadow: another name for logs.
        reply_to: a queue for the result, instead of the app's own way.
        group_id, group_index: the group that it is counted to.
    """

    queue: Queue | str | None
    exchange: str | None
    routing_key: str | None
    countdown: float | None
    eta: datetime | None
    expires: float | datetime | None
    priority: int | None
    serializer: str | None
    compression: str | None
    headers: Mapping[str, Any] | None
    link: Follower | Sequence[Follower] | None
    link_error: Follower | Sequence[Follower] | None
    task_id: str | None
    root_id: str | None
    parent_id: str | None
    time_limit: float | None
    soft_time_limit: float | None
    ignore_result: bool | None
    retry: bool | None
    retry_policy: Mapping[str, Any] | None
    transaction: object | None
    shadow: str | None
    reply_to: str | None
    group_id: str | None
    group_index: int | None


CANVAS_OPTIONS = frozenset(
    [
        "chain",
        "chord",
        "deadline",
        "failed",
        "replaced_task_nesting",
        "retries",
        "stamped_headers",
        "stamps",
    ]
)
OPTIONS = frozenset(SendOptions.__annotations__) | CANVAS_OPTIONS

STANDARD_OPTIONS = (
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "serializer",
    "compression",
    "expires",
    "ignore_result",
)
"""Those that a task may have of its own."""

FindQueue = Callable[[str, Mapping[str, Any]], Queue]
"""Which queue a task of this name with these options goes to."""

Defaults = Callable[[Signature[Any]], Mapping[str, Any]]
"""The options of a task, none of them None, unless the call says otherwise."""


class Composer:
    """Makes messages of signatures. Immutable; thread-safe if its functions are."""

    def __init__(
        self,
        find_queue: FindQueue,
        defaults: Defaults,
        *,
        serializer: str = "json",
        zone: tzinfo = UTC,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        """``serializer`` is for what names none, ``zone`` for points in time that say none."""
        self._find_queue = find_queue
        self._defaults = defaults
        self._serializer = serializer
        self.zone = zone
        self._now = now
        self._host = socket.gethostname()
        self._origin = (0, "")

    def compose(self, signature: Signature[Any]) -> Letter:
        """Return the message that asks for one task, and the queue that it needs.

        Pure but for the clock. An option that the broker does not have is not noticed here.

        Raises:
            ConfigError, UsageError: an option is wrong.
            MessageError: an argument cannot be written; says which.
        """
        task = signature.task
        options = merged(self._defaults(signature), _given(signature.options))
        delay, eta = self._delay(options)
        ttl, expires = self._ttl(options)
        if ttl is not None and ttl <= delay:
            raise ConfigError(
                f"task {task} would expire (in {ttl:g} s) before it may start (in {delay:g} s)"
            )
        call = call_of(signature, options, eta, expires)
        headers = task_headers(call, origin=self.origin)
        custom = options.get("headers")
        if custom:
            headers.update(_checked(custom))
        encoded = _encoded(call, options.get("serializer") or self._serializer, options)
        if encoded.compression:
            headers["compression"] = encoded.compression
        queue, exchange, key = self._destination(task, options)
        properties = Properties(
            encoded.content_type,
            encoded.content_encoding,
            headers,
            _priority(options.get("priority")),
            call.id,
            call.reply_to,
            ttl,
        )
        return Letter(
            Publication(exchange, key, encoded.body, properties, fresh_id(), True, delay), queue
        )

    @property
    def origin(self) -> str:
        """Who sends, as celery's programs write it."""
        pid, text = self._origin
        if pid != os.getpid():
            pid = os.getpid()
            text = f"gen{pid}@{self._host}"
            self._origin = (pid, text)
        return text

    def _destination(self, task: str, options: Mapping[str, Any]) -> tuple[Queue | None, str, str]:
        exchange, key = options.get("exchange"), options.get("routing_key")
        if exchange and options.get("queue") is None:
            return None, exchange, key or ""
        queue = self._find_queue(task, options)
        if exchange is None and key is None:
            return queue, "", queue.name
        bound = queue.exchange if isinstance(queue.exchange, str | None) else queue.exchange.name
        return queue, exchange or bound or "", key or queue.routing_key or queue.name

    def _delay(self, options: Mapping[str, Any]) -> tuple[float, str | None]:
        """Seconds to wait; no ``eta``, since the broker holds the message back."""
        countdown, eta = options.get("countdown"), options.get("eta")
        if countdown is not None:
            return max(0.0, _number("countdown", countdown)), None
        if eta is None:
            return 0.0, None
        return max(0.0, (instant("eta", eta, self.zone) - self._now()).total_seconds()), None

    def _ttl(self, options: Mapping[str, Any]) -> tuple[float | None, str | None]:
        expires = options.get("expires")
        if expires is None:
            return None, None
        now = self._now()
        if isinstance(expires, datetime | str):
            end = instant("expires", expires, self.zone)
            return max(0.0, (end - now).total_seconds()), end.isoformat()
        seconds = max(0.0, _number("expires", expires))
        return seconds, (now + timedelta(seconds=seconds)).isoformat()


def composer_of(info: AppInfo) -> Composer:
    """Return what composes by the rules of an app that is not imported here."""
    tasks = {task.name: {"queue": task.queue} if task.queue else {} for task in info.tasks}
    return composer_by(Rules(info.settings, lambda name: tasks.get(name, {}), info.queues))


def composer_by(rules: Rules) -> Composer:
    """Return what composes by these rules. Raises ConfigError for a zone that does not exist."""
    settings = rules.settings
    zone = zone_of(settings.timezone)
    return Composer(rules.queue, rules.options, serializer=settings.task_serializer, zone=zone)


def check_options(names: Iterable[str]) -> None:
    """Raise UsageError if one of ``names`` is no option for sending a task, with the nearest."""
    for name in names:
        if name not in OPTIONS:
            known = sorted(SendOptions.__annotations__)
            instead = did_you_mean(name, known, f"{', '.join(known)} are")
            raise UsageError(f"{name!r} is no option for sending a task; {instead}")


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def call_of(
    signature: Signature[Any],
    options: Mapping[str, Any],
    eta: str | None = None,
    expires: str | None = None,
) -> Call:
    """Return the call of one task with these options, which say its ``task_id``."""
    get = options.get
    return Call(
        signature.task,
        options["task_id"],
        [plain(value) for value in signature.args],
        {name: plain(value) for name, value in signature.kwargs.items()},
        _embed(options),
        get("retries") or 0,
        get("root_id"),
        get("parent_id"),
        get("group_id"),
        get("group_index"),
        bool(get("ignore_result")),
        eta,
        expires,
        get("time_limit"),
        get("soft_time_limit"),
        get("shadow"),
        get("replaced_task_nesting") or 0,
        get("stamped_headers"),
        get("stamps") or _stamps(options),
        get("reply_to"),
    )


def _stamps(options: Mapping[str, Any]) -> dict[str, Any]:
    """The stamps of a signature of celery's: each is an option by its own name."""
    names = options.get("stamped_headers") or ()
    return {name: options[name] for name in names if name in options}


def _embed(options: Mapping[str, Any]) -> Embed:
    link, link_error = options.get("link"), options.get("link_error")
    chain, chord, failed = options.get("chain"), options.get("chord"), options.get("failed")
    if not (link or link_error or chain or chord or failed):
        return NOTHING_FOLLOWS
    return Embed(
        plain(_followers("link", link)) or None,
        plain(_followers("link_error", link_error)) or None,
        plain(as_list(chain)) or None,
        plain(chord),
        plain(failed),
    )


def _followers(option: str, said: Any) -> list[Any]:
    found = as_list(said)
    for one in found:
        if not isinstance(one, Signature | Mapping | MakesSignatures):
            hint = f"; a task by its name is app.signature({one!r})" if isinstance(one, str) else ""
            raise UsageError(f"{option} is a signature or a task, not {one!r:.60}{hint}")
    return found


def _encoded(call: Call, serializer: str, options: Mapping[str, Any]) -> Any:
    body = task_body(call)
    if serializer == "msgpack":  # which has a form for bytes
        body = opened(body, BINARY)
    elif serializer != "json":
        body = opened(body)
    try:
        return encode(body, serializer, options.get("compression"))
    except TooLarge:
        raise
    except MessageError as error:
        raise MessageError(f"task {call.name}: {_culprit(call, serializer)}{error}") from error


def _culprit(call: Call, serializer: str) -> str:
    """Name the argument that cannot be written."""
    named = [(f"argument {at}", value) for at, value in enumerate(call.args)]
    named += [(f"argument {name!r}", value) for name, value in call.kwargs.items()]
    for name, value in named:
        try:
            encode([value], serializer)
        except MessageError:
            return f"{name} ({type(value).__name__}) cannot be sent: "
    return ""


def _checked(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in headers:
        if not isinstance(name, str) or not name or len(name.encode("utf-8", "replace")) > 255:
            raise ConfigError(f"header name {name!r:.60} must be a string of 1 to 255 bytes")
        if name in STANDARD_HEADERS:
            raise ConfigError(f"the header {name!r} is the protocol's own; use another name")
    try:
        size = len(msgspec.msgpack.encode(headers))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ConfigError(f"a header value cannot be sent: {error}") from error
    if size > MAX_HEADER_BYTES:
        raise TooLarge(f"the headers take {size} bytes; {MAX_HEADER_BYTES} is the limit")
    return headers


def _priority(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PRIORITY:
        raise ConfigError(f"priority is a whole number from 0 to {MAX_PRIORITY}, not {value!r}")
    return value


def _number(what: str, value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{what} is a number of seconds, not {value!r}")
    return float(value)
