"""From a signature to a message: `Composer`.

Used where tasks are sent, in the children that run tasks (what follows a task is composed there and
sent by the worker together with the ack), and in the worker itself, which tells error links of
tasks that could not even fail. So it knows no connection: what a task's own options are and which
queue a task goes to, it is told by functions.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, NamedTuple, TypedDict

from queue_core import ConfigError, Queue, UsageError, process_id
from queue_core.worker.message_template import (
    ANY_TIME,
    OF_A_RUN,
    Destination,
    MessageTemplate,
    Moments,
)
from queue_core.worker.outcome import AppInfo, Letter
from queue_core.worker.routes import merged
from queue_core.worker.rules import Rules
from queue_core.worker.signature import MakesSignatures, Signature
from queue_core.worker.suggestions import did_you_mean
from queue_core.worker.timestamps import (
    LONGEST,
    instant,
    later,
    seconds,
    seconds_to_wait,
    utcnow,
    zone_of,
)

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


_TIMED: Final = frozenset(["countdown", "eta", "expires"])
_STEADY: Final = frozenset([str, int, float, bool, Queue])
"""Types of options that cannot change and stay the same object."""
_MOST_KEPT: Final = 1000


class Composer:
    """Makes messages of signatures. Thread-safe if its functions are."""

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
        self._kept: dict[str, _Kept] = {}

    def compose(self, signature: Signature[Any]) -> Letter:
        """Return the message that asks for one task, and the queue that it needs.

        Pure but for the clock. An option that the broker does not have is not noticed here.

        Raises:
            ConfigError, UsageError: an option is wrong.
            MessageError: an argument cannot be written; says which.
        """
        usual = self._defaults(signature)
        return self._template(signature, usual).letter(signature, self._moments(signature, usual))

    def _template(self, signature: Signature[Any], usual: Mapping[str, Any]) -> MessageTemplate:
        """Return the template of a task; that of a call without options of its own is kept."""
        task = signature.task
        own = {
            option: value
            for option, value in signature.options.items()
            if option not in OF_A_RUN and value is not None
        }
        if own:
            return self._made(task, merged(usual, own))
        kept = self._kept.get(task)
        if kept is not None and kept.usual == usual and kept.process == process_id():
            return kept.template
        template = self._made(task, usual)
        if all(type(value) in _STEADY for value in usual.values()):
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[task] = _Kept(dict(usual), process_id(), template)
        return template

    def _made(self, task: str, options: Mapping[str, Any]) -> MessageTemplate:
        origin = f"gen{process_id()}@{self._host}"
        return MessageTemplate(
            task, options, self._serializer, self._destination(task, options), origin
        )

    def _destination(self, task: str, options: Mapping[str, Any]) -> Destination:
        exchange, key = options.get("exchange"), options.get("routing_key")
        if exchange and options.get("queue") is None:
            return Destination(None, exchange, key or "")
        queue = self._find_queue(task, options)
        if exchange is None and key is None:
            return Destination(queue, "", queue.name)
        bound = queue.exchange if isinstance(queue.exchange, str | None) else queue.exchange.name
        return Destination(queue, exchange or bound or "", key or queue.routing_key or queue.name)

    def _moments(self, signature: Signature[Any], usual: Mapping[str, Any]) -> Moments:
        if _TIMED.isdisjoint(signature.options) and _TIMED.isdisjoint(usual):
            return ANY_TIME
        said = {name: value for name, value in signature.options.items() if value is not None}
        options = {**usual, **said}
        now = self._now()
        delay = seconds_to_wait(options, self.zone, now)
        left, expires = self._expiry(options)
        if left is not None and left <= delay:
            raise ConfigError(
                f"task {signature.task} would expire (in {left:g} s) before it may start (in "
                f"{delay:g} s)"
            )
        # The broker holds it back, so it need not say until when: if it can for so long.
        eta = later("countdown", now, delay) if delay > LONGEST else None
        return Moments(min(delay, LONGEST), expires, eta)

    def _expiry(self, options: Mapping[str, Any]) -> tuple[float | None, str | None]:
        expires = options.get("expires")
        if expires is None:
            return None, None
        now = self._now()
        if isinstance(expires, datetime | str):
            end = instant("expires", expires, self.zone)
            return max(0.0, (end - now).total_seconds()), end.isoformat()
        left = seconds("expires", expires)
        return left, later("expires", now, left)


class _Kept(NamedTuple):
    """A template that is kept, and what it was made of: when that is different it is made anew."""

    usual: dict[str, Any]
    process: int
    template: MessageTemplate


def composer_of(info: AppInfo) -> Composer:
    """Return what composes by the rules of an app that is not imported here."""
    tasks = {task.name: {"queue": task.queue} if task.queue else {} for task in info.tasks}
    return composer_by(Rules(info.settings, lambda name: tasks.get(name, {}), info.queues))


def composer_by(rules: Rules) -> Composer:
    """Return what composes by these rules. Raises ConfigError for a zone that does not exist."""
    settings = rules.settings
    zone = zone_of(settings.timezone)
    return Composer(rules.queue, rules.options, serializer=settings.task_serializer, zone=zone)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise UsageError if one is no option for sending a task, with the nearest, or is wrong."""
    for name, value in options.items():
        if name not in OPTIONS:
            known = sorted(SendOptions.__annotations__)
            instead = did_you_mean(name, known, f"{', '.join(known)} are")
            raise UsageError(f"{name!r} is no option for sending a task; {instead}")
        kind, words = _KINDS.get(name, _ANYTHING)
        if value is None:
            continue
        if not isinstance(value, kind) or (kind == _NUMBER and not 0 <= value < math.inf):
            raise UsageError(f"{name} is {words}, not {value!r:.60}")
        if name == "task_id" and (len(value) > MAX_ID or not value.isprintable()):
            raise UsageError(
                f"a task_id has at most {MAX_ID} characters, all printable, not {value!r:.60}"
            )


_ANYTHING: Final[tuple[Any, str]] = (object, "")
_NUMBER: Final = int | float
MAX_ID: Final = 255
"""How many characters the id of a task may have: as many as a property of AMQP."""
_KINDS: Final[Mapping[str, tuple[Any, str]]] = {
    **dict.fromkeys(("exchange", "routing_key", "task_id"), (str, "a string")),
    **dict.fromkeys(("shadow", "reply_to"), (str, "a string")),
    **dict.fromkeys(("time_limit", "soft_time_limit"), (_NUMBER, "a number of seconds")),
    **dict.fromkeys(("ignore_result", "retry"), (bool, "True or False")),
    "queue": (str | Queue, "a name or a Queue"),
    "headers": (Mapping, "a mapping of names to values"),
}
"""Option -> what its value is unless it is None; what makes messages reads the others."""
