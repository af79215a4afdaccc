"""Messages: what is sent, what is delivered, and what a handler holds.

`Publication` goes down to a session, `Delivery` comes up from one, `Message` is what a handler
gets. The first two are `msgspec.Struct`s, since one of each is made per message. A message never
reaches into a connection: it settles through the `Settler` that it was given. Properties and body
are decoded only when somebody asks for them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from queue_core.arguments import check_flags, check_kind
from queue_core.errors import AlreadySettled
from queue_core.serialization import DEFAULT_CODECS, DEFAULT_LIMITS, Codecs, Limits, decode

Headers = dict[str, Any]
Token = Any
"""Names one claim of one message. Opaque and hashable: whatever the transport finds handy."""

_DEATH: Final = ("queue", "reason")

Action = Literal["ack", "reject", "requeue"]


class Properties(msgspec.Struct, array_like=True, omit_defaults=True):
    """The properties of a message, named as in AMQP 0-9-1 (basic class).

    ``expiration`` is in seconds here (None: never); transports convert. ``compression`` lives in
    the headers, under ``compression``, as kombu's programs have it.
    """

    content_type: str = ""
    content_encoding: str = ""
    headers: Headers = msgspec.field(default_factory=dict)
    priority: int = 0
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: float | None = None
    message_id: str | None = None
    timestamp: float | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    delivery_mode: int = 2


class Publication(msgspec.Struct):
    """One message on its way to a session.

    Attributes:
        exchange: name of the exchange; ``""`` is the default exchange, which routes to the queue
            named by the key.
        routing_key: up to 255 bytes.
        body: encoded.
        properties: see `Properties`. ``properties.expiration`` is the message's ttl in seconds from
            now.
        id: fresh for each publish and the same when it is retried, so that a store keeps one copy.
        mandatory: report `Unroutable` if no queue wants it.
        delay: seconds before it becomes visible.
    """

    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
    id: str
    mandatory: bool = True
    delay: float = 0.0


def deaths(headers: Headers) -> list[Headers]:
    """Return the history of a dead letter, ``x-death``, the latest death first.

    What is none is left out: whoever publishes may write that header by hand.
    """
    rows = headers.get("x-death")
    return [row for row in rows if _is_death(row)] if isinstance(rows, list) else []


def _is_death(row: object) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), str) for name in _DEATH)


def read_count(value: object) -> int | None:
    """Return a count that a header holds; None if it is none, or more than anybody can count."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value
    return None


class PropertyReader(Protocol):
    """How one transport's raw property bytes are read.

    They stay undecoded until somebody asks, and may travel to another process before: `find_reader`
    finds the reader there by its ``home``.
    """

    @property
    def home(self) -> str:
        """``module:attribute`` where this reader stands; importing the module loads no driver."""

    def content(self, raw: bytes) -> tuple[str, str, str | None]:
        """Return content type, content encoding and compression, as cheaply as possible."""

    def find(self, raw: bytes, names: Sequence[str]) -> Headers:
        """Return those of the headers ``names`` that are there, as cheaply as possible.

        What else is there is not decoded. Raises DecodeError for bytes that are damaged before the
        last of them.
        """

    def properties(self, raw: bytes) -> Properties:
        """Decode everything. Raises DecodeError for damaged bytes."""


@functools.cache
def find_reader(home: str) -> PropertyReader:
    """Return the reader that is called ``home``, importing its module at the first use.

    Raises ImportError or AttributeError for a name that no `PropertyReader.home` ever was.
    """
    module, _, attribute = home.partition(":")
    reader: PropertyReader = getattr(importlib.import_module(module), attribute)
    return reader


class Delivery(msgspec.Struct):
    """One message as a session hands it up.

    Attributes:
        consumer: the consumer's name, as in ``Session.subscribe``.
        queue: where it was taken from.
        exchange, routing_key: as it was published.
        body: encoded.
        raw: the undecoded properties, readable by ``reader``.
        token: for settling; opaque.
        attempts: which delivery of this message it is, 1 for the first; 0 where the transport
            cannot count.
        redelivered: it was delivered before.
    """

    consumer: str
    queue: str
    exchange: str
    routing_key: str
    body: bytes
    raw: bytes
    reader: PropertyReader
    token: Token
    attempts: int = 1
    redelivered: bool = False


class Settlement(msgspec.Struct):
    """What becomes of one delivery: a value, applied in one place by the session.

    Attributes:
        delivery: which.
        action: ``ack`` forgets it, ``reject`` dead-letters it, ``requeue`` returns it to its queue.
        delay: seconds before a requeued message is visible again.
        counted: for ``requeue``: False for a polite return that does not count as a delivery.
        reason: for ``reject``: the reason in ``x-death``.
    """

    delivery: Delivery
    action: Action = "ack"
    delay: float = 0.0
    counted: bool = True
    reason: str = "rejected"


class Settler(Protocol):
    """Where messages send their settlements: `queue_core.settling.SessionSettler`."""

    @property
    def over(self) -> bool:
        """Whether the session that its messages came from has ended: they belong to others now."""

    def settle(self, settlement: Settlement) -> None:
        """Record the settlement; does not block. Raises StaleDelivery or Closed."""

    def settle_then(self, delivery: Delivery, then: Sequence[Any]) -> Sequence[Any]:
        """Publish ``then`` and ack ``delivery`` in one step; blocks until confirmed.

        Returns the receipts.
        """


class Message:
    """A delivered message: its content, and the three ways to settle it.

    Settling records the outcome and returns at once; ``Consumer.flush`` waits until the broker has
    it. Each message is settled once; a second time raises `AlreadySettled`. Safe to settle from any
    thread.
    """

    __slots__ = (
        "_accept",
        "_codecs",
        "_delivery",
        "_limits",
        "_payload",
        "_properties",
        "_settled",
        "_settler",
    )

    def __init__(
        self,
        delivery: Delivery,
        settler: Settler,
        *,
        accept: Sequence[str] | frozenset[str] | None = None,
        codecs: Codecs = DEFAULT_CODECS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Wrap ``delivery``; the other arguments are used when the payload is decoded."""
        self._delivery = delivery
        self._settler = settler
        self._accept = accept
        self._codecs = codecs
        self._limits = limits
        self._properties: Properties | None = None
        self._payload: Any = msgspec.UNSET
        self._settled = False

    @property
    def body(self) -> bytes:
        """The encoded body."""
        return self._delivery.body

    @property
    def payload(self) -> Any:
        """The decoded body.

        Raises DecodeError, ContentDisallowed or TooLarge, each time it is asked for.
        """
        if self._payload is msgspec.UNSET:
            content_type, content_encoding, compression = self._content()
            self._payload = decode(
                self._delivery.body,
                content_type,
                content_encoding,
                compression,
                accept=self._accept,
                codecs=self._codecs,
                limits=self._limits,
            )
        return self._payload

    def _content(self) -> tuple[str, str, str | None]:
        """Return content type, encoding and compression; the headers stay as they are."""
        known = self._properties
        if known is None:
            return self._delivery.reader.content(self._delivery.raw)
        compression = known.headers.get("compression")
        return (
            known.content_type,
            known.content_encoding,
            compression if isinstance(compression, str) else None,
        )

    @property
    def properties(self) -> Properties:
        """All properties, decoded at the first use. Raises DecodeError for damaged bytes."""
        if self._properties is None:
            self._properties = self._delivery.reader.properties(self._delivery.raw)
        return self._properties

    @property
    def headers(self) -> Headers:
        """The application's headers."""
        return self.properties.headers

    def find_headers(self, names: Sequence[str]) -> Headers:
        """Return those of the headers ``names`` that are there; the others stay undecoded.

        Raises DecodeError for damaged bytes.
        """
        if self._properties is None:
            return self._delivery.reader.find(self._delivery.raw, names)
        headers = self._properties.headers
        return {name: headers[name] for name in names if name in headers}

    @property
    def delivery(self) -> Delivery:
        """The delivery as the transport gave it: raw bytes and token."""
        return self._delivery

    @property
    def queue(self) -> str:
        """The queue that it was taken from."""
        return self._delivery.queue

    @property
    def exchange(self) -> str:
        """The exchange that it was published to."""
        return self._delivery.exchange

    @property
    def routing_key(self) -> str:
        """The routing key that it was published with."""
        return self._delivery.routing_key

    @property
    def redelivered(self) -> bool:
        """It was delivered before, perhaps to a consumer that died."""
        return self._delivery.redelivered

    @property
    def attempts(self) -> int:
        """Which delivery this is, 1 for the first; 0 where the transport cannot count."""
        return self._delivery.attempts

    @property
    def stale(self) -> bool:
        """The session that it came from has ended: it is delivered again, and settling raises."""
        return self._settler.over

    @property
    def settled(self) -> bool:
        """It was acked, rejected or requeued."""
        return self._settled

    def ack(self, then: Sequence[Any] | None = None) -> Sequence[Any]:
        """Say that the message was handled.

        It is never delivered again once `Consumer.flush` returned.

        Args:
            then: publications (see ``Producer.prepare``) to send together with the ack: one atomic
                step on stores, confirm and then ack on AMQP. With it, also with an empty list, the
                call blocks until all of that is certain (at most the connection's timeout) and
                returns the receipts. If it fails with a TransportError it may have happened, and
                the same call again finds out.

        Raises:
            AlreadySettled: it was settled before.
            StaleDelivery: its lease or channel ended; somebody else has it or will get it.
            Unroutable, Refused, NotConfirmed: one of ``then`` (the error's ``publication``) was not
                accepted; the message is not acked.
        """
        if self._settled:
            raise AlreadySettled(self._described("was settled before"))
        if then is not None:
            receipts = self._settler.settle_then(self._delivery, then)
            self._settled = True
            return receipts
        self._settler.settle(Settlement(self._delivery))
        self._settled = True
        return ()

    def reject(self, reason: str = "rejected") -> None:
        """Give the message up.

        It goes to the queue's dead-letter exchange, or is dropped where there is none. Does not
        block. ``reason`` is what ``x-death`` says, on stores. Raises AlreadySettled or
        StaleDelivery, as `ack` does, and ConfigError for a reason that is no string.
        """
        check_kind("reason", reason, str, "a string")
        self._settle(Settlement(self._delivery, "reject", reason=reason))

    def requeue(self, delay: float = 0.0, *, counted: bool = True) -> None:
        """Return the message to its queue.

        It goes to its old place where the transport can (`Features.requeue_in_place`).

        Args:
            delay: seconds before it is visible again.
            counted: False takes this delivery back from the count of ``max_deliveries``.

        Does not block. Raises AlreadySettled or StaleDelivery, as `ack` does, and ConfigError for
        an argument that is none.
        """
        check_flags(counted=counted)
        self._settle(Settlement(self._delivery, "requeue", delay, counted))

    def _settle(self, settlement: Settlement) -> None:
        if self._settled:
            raise AlreadySettled(self._described("was settled before"))
        self._settler.settle(settlement)
        self._settled = True

    def _described(self, what: str) -> str:
        return f"the message from queue {self.queue!r} with routing key {self.routing_key!r} {what}"

    def __repr__(self) -> str:
        """Name queue and key, never the body."""
        state = "settled" if self._settled else "unsettled"
        return (
            f"<Message {state} queue={self.queue!r} routing_key={self.routing_key!r} "
            f"bytes={len(self.body)}>"
        )
