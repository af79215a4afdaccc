"""What the messages of one task have in common: `MessageTemplate`. Pure.

Nearly everything in the message of a task follows from the task's name and its options, which are
the same each time; only the run differs: its ids, its arguments, its moments. So the first part is
made once, and `queue_core.worker.composing.Composer` keeps it as long as the options stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from queue_core import (
    ConfigError,
    MessageError,
    Properties,
    Publication,
    Queue,
    TooLarge,
    UsageError,
    copy_headers,
    encode,
    fresh_id,
)
from queue_core.worker.envelopes import BINARY, opened
from queue_core.worker.failure import short_repr
from queue_core.worker.outcome import Letter
from queue_core.worker.protocol import (
    NOTHING_FOLLOWS,
    STANDARD_HEADERS,
    Call,
    Embed,
    task_body,
    task_headers,
)
from queue_core.worker.signature import MakesSignatures, Signature, as_list, plain

MAX_PRIORITY = 9

OF_A_RUN: Final = frozenset(
    [
        "task_id",
        "root_id",
        "parent_id",
        "group_id",
        "group_index",
        "reply_to",
        "countdown",
        "eta",
        "expires",
    ]
)
"""The options that are the run's and not the template's."""


class Moments(NamedTuple):
    """When a run may take place.

    Attributes:
        delay: seconds until it may start.
        expires: when it is not worth starting any more, ISO 8601; None: it always is.
        eta: when it may start, if that is later than after the delay.
    """

    delay: float = 0.0
    expires: str | None = None
    eta: str | None = None


ANY_TIME: Final = Moments()


class Destination(NamedTuple):
    """Where messages go, and the queue that must be there; None: it is not known which."""

    queue: Queue | None
    exchange: str
    routing_key: str


class MessageTemplate:
    """Makes the messages of one task with the same options. Immutable, thread-safe."""

    def __init__(
        self, task: str, options: Mapping[str, Any], serializer: str, to: Destination, origin: str
    ) -> None:
        """Take what does not change.

        Args:
            task: its name.
            options: those that are not `OF_A_RUN`, which are not looked at; none is None.
            serializer: for what names none.
            to: where its messages go.
            origin: who sends, as celery's programs write it.

        Raises:
            ConfigError, UsageError: an option is wrong.
        """
        call = call_of(Signature(task), {**options, "task_id": ""})
        self._task = task
        self._embed = task_body(call)[2]
        self._headers = task_headers(call, origin=origin)
        custom = options.get("headers")
        if custom:
            self._headers.update(_checked(custom))
        self._serializer = options.get("serializer") or serializer
        self._compression = options.get("compression")
        self._priority = _priority(options.get("priority"))
        self._to = to

    def letter(self, run: Signature[Any], when: Moments = ANY_TIME) -> Letter:
        """Return the message of one run, and the queue that it needs.

        Raises:
            MessageError: an argument cannot be written; says which.
        """
        said = run.options.get
        task_id = run.options["task_id"]
        args = [plain(value) for value in run.args] if run.args else []
        kwargs = {name: plain(item) for name, item in run.kwargs.items()} if run.kwargs else {}
        headers = self._headers.copy()
        headers["id"] = task_id
        headers["root_id"] = said("root_id") or task_id
        for name, value in (
            ("parent_id", said("parent_id")),
            ("group", said("group_id")),
            ("group_index", said("group_index")),
            ("expires", when.expires),
            ("eta", when.eta),
        ):
            if value is not None:
                headers[name] = value
        if args:
            headers["argsrepr"] = short_repr(tuple(args))
        if kwargs:
            headers["kwargsrepr"] = short_repr(kwargs)
        encoded = self._encoded(args, kwargs)
        if encoded.compression:
            headers["compression"] = encoded.compression
        properties = Properties(
            encoded.content_type,
            encoded.content_encoding,
            headers,
            self._priority,
            task_id,
            said("reply_to"),
        )
        queue, exchange, key = self._to
        publication = Publication(
            exchange, key, encoded.body, properties, fresh_id(), True, when.delay
        )
        return Letter(publication, queue)

    def _encoded(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        serializer = self._serializer
        body: Any = [args, kwargs, self._embed]
        if serializer == "msgpack":  # which has a form for bytes
            body = opened(body, BINARY)
        elif serializer != "json":
            body = opened(body)
        try:
            return encode(body, serializer, self._compression)
        except TooLarge:
            raise
        except MessageError as error:
            culprit = _culprit(args, kwargs, serializer)
            raise MessageError(f"task {self._task}: {culprit}{error}") from error


def call_of(signature: Signature[Any], options: Mapping[str, Any]) -> Call:
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
        None,  # the broker holds it back
        None,
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


def _culprit(args: list[Any], kwargs: Mapping[str, Any], serializer: str) -> str:
    """Name the argument that cannot be written."""
    named = [(f"argument {at}", value) for at, value in enumerate(args)]
    named += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in named:
        try:
            encode([value], serializer)
        except MessageError:
            return f"{name} ({type(value).__name__}) cannot be sent: "
    return ""


def _checked(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in headers:
        if name in STANDARD_HEADERS:
            raise ConfigError(f"the header {name!r} is the protocol's own; use another name")
    return copy_headers(headers)


def _priority(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_PRIORITY:
        raise ConfigError(f"priority is a whole number from 0 to {MAX_PRIORITY}, not {value!r}")
    return value
