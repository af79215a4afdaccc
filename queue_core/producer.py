"""Publishing: encode, send, wait for the confirmation.

A producer is immutable and may be shared by threads; the messages of one thread keep their order.
Every publish has one of three ends: it returns a `Receipt` (the broker has the message), it raises
`Unroutable` or `Refused` (the broker certainly has not), or it raises `NotConfirmed` (nobody can
tell). While the broker is away the same message is sent again under the same id until the deadline,
so that a store keeps one copy.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from queue_core.arguments import (
    check_flags,
    check_kind,
    check_priority,
    check_texts,
    copy_headers,
    need_seconds,
    refuse_options,
)
from queue_core.errors import (
    ConfigError,
    ConnectionLost,
    NotConfirmed,
    PublishError,
    SessionLost,
    TooLarge,
)
from queue_core.identifiers import fresh_id
from queue_core.message import Properties, Publication
from queue_core.outgoing import Outgoing
from queue_core.policy import Deadline
from queue_core.receipt import Receipt, described, failure_of
from queue_core.recovery import Recovery
from queue_core.serialization import DEFAULT_CODECS, DEFAULT_LIMITS, Codecs, Limits, encode
from queue_core.topology import check_routing_key
from queue_core.transport import Outcome, Session, Transaction

MAX_TIME = 2.0**53


# Annotations are not postponed here: a TypedDict compiles postponed ones at each import, 2 ms.
class PublishOptions(TypedDict, total=False):
    """The options of `Producer.prepare` and of everything that calls it; described there."""

    exchange: str | None
    headers: Mapping[str, Any] | None
    priority: int
    ttl: float | None
    delay: float
    correlation_id: str | None
    reply_to: str | None
    message_id: str | None
    type: str | None
    app_id: str | None
    timestamp: float | None
    mandatory: bool
    durable: bool
    serializer: str | None
    compression: str | None
    content_type: str | None
    content_encoding: str


class Producer:
    """Sends messages to one exchange. Made by `Connection.producer`."""

    def __init__(
        self,
        recovery: Recovery,
        exchange: str = "",
        *,
        serializer: str | None = None,
        compression: str | None = None,
        codecs: Codecs = DEFAULT_CODECS,
        limits: Limits = DEFAULT_LIMITS,
        timeout: float = 10.0,
    ) -> None:
        """Keep the defaults of later publishes; nothing is sent."""
        check_kind(
            "the first argument of Producer()",
            recovery,
            Recovery,
            "for a connection to give; write connection.producer(exchange)",
        )
        self._recovery = recovery
        self._clock = recovery.options.clock
        self._exchange = exchange
        self._serializer = serializer
        self._compression = compression
        self._codecs = codecs
        self._limits = limits
        self._timeout = timeout

    @property
    def exchange(self) -> str:
        """The name of the exchange.

        Empty for the default exchange, which routes to the queue named by the key.
        """
        return self._exchange

    def publish(
        self,
        body: Any,
        routing_key: str = "",
        *,
        transaction: object | None = None,
        timeout: float | None = None,
        **options: Unpack[PublishOptions],
    ) -> Receipt:
        """Send one message and wait until the broker has it.

        Args:
            body: any value that the serializer takes; bytes with ``content_type`` are sent as they
                are.
            routing_key: up to 255 bytes.
            transaction: SQL only: a SQLAlchemy Session or Connection on the same database. The
                message is stored if and only if that transaction commits; the receipt is
                ``pending`` until then.
            timeout: seconds to wait for the confirmation; the connection's timeout if None.
            options: as in `prepare`: exchange, headers, priority, ttl, delay, correlation_id,
                reply_to, message_id, type, mandatory, serializer, compression, content_type,
                content_encoding.

        Raises:
            Unroutable: no queue wants it, and it is mandatory (the default).
            Refused: a queue that takes no more refused it.
            NotConfirmed: no answer in time; it may or may not be stored.
            QueueNotFound: the exchange does not exist.
            MessageError: the body cannot be encoded, or is too large.
            ConfigError: an option is not valid.
            Unsupported: the transport lacks what an option asks for.
            ConnectionLost: the broker could not be reached, and nothing was sent.
        """
        if options:
            _check_options("publish", options)
        publication = self.prepare(body, routing_key, **options)
        if transaction is not None:
            return self._publish_in(transaction, publication, timeout)
        return self._send([publication], timeout)[0]

    def publish_many(
        self,
        messages: Iterable[tuple[Any, str] | Publication],
        *,
        timeout: float | None = None,
        **options: Unpack[PublishOptions],
    ) -> list[Receipt]:
        """Send many messages, pipelined, and wait until the broker has every one.

        Not atomic as a whole.

        Args:
            messages: pairs of body and routing key, or publications made by `prepare`. Read in
                windows of 4,000 messages or 4 MiB, so that an endless iterable needs little memory.
                While one window is sent the next is read; what a slow iterable gave is sent after
                20 ms, whenever its next message comes.
            timeout: seconds for each window.
            options: as in `publish`, for all pairs.

        Returns:
            Receipts in the order of the input.

        Raises:
            PublishError: the first one that was not accepted; ``receipts`` has those of the
                messages before it in the input. Later ones of the same window may have been
                stored; what was read for the next window meanwhile was not sent.
        """
        if options:
            _check_options("publish_many", options)
        patient = isinstance(messages, list | tuple)
        if isinstance(messages, list | tuple) and len(messages) == 1:  # a window by itself
            return self._send([self._ready(messages[0], options)], timeout)
        check_kind("what publish_many takes", messages, Iterable, "an iterable of messages")
        outgoing = Outgoing(lambda window: self._send(window, timeout), patient=patient)
        try:
            with outgoing:
                try:
                    for item in messages:
                        outgoing.add(self._ready(item, options))
                except Exception:
                    outgoing.flush()  # what came before is sent; then the caller hears of it
                    raise
                outgoing.flush()
        except PublishError as error:
            error.receipts = (*outgoing.receipts, *error.receipts)
            raise
        return outgoing.receipts

    def prepare(
        self,
        body: Any,
        routing_key: str = "",
        *,
        exchange: str | None = None,
        headers: Mapping[str, Any] | None = None,
        priority: int = 0,
        ttl: float | None = None,
        delay: float = 0.0,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        message_id: str | None = None,
        type: str | None = None,  # noqa: A002 - AMQP's name
        app_id: str | None = None,
        timestamp: float | None = None,
        mandatory: bool = True,
        durable: bool = True,
        serializer: str | None = None,
        compression: str | None = None,
        content_type: str | None = None,
        content_encoding: str = "utf-8",
    ) -> Publication:
        """Encode a message without sending it; for `publish_many` and ``message.ack(then=[...])``.

        Does not block.

        Args:
            body: any value that the serializer takes; bytes with ``content_type`` are sent as they
                are.
            routing_key: up to 255 bytes.
            exchange: the producer's if None.
            headers: up to 1,000, with names of up to 255 bytes, 64 KiB together, nested at most 32
                levels deep.
            priority: 0 to 9; acts in queues that were declared with ``max_priority``.
            ttl: seconds from now after which it expires.
            delay: seconds from now before it becomes visible; must be less than ``ttl``.
            correlation_id, reply_to, message_id, type, app_id, timestamp: AMQP's properties,
                carried unchanged.
            mandatory: raise `Unroutable` if no queue wants it.
            durable: False lets a broker keep it in memory only.
            serializer: ``json``, ``msgpack``, ``text``, ``raw`` or ``pickle``; the producer's if
                None, and if that is None too ``raw`` for bytes and ``json`` for all else.
            compression: ``zlib``; the producer's if None.
            content_type, content_encoding: say what ``body``, already encoded as bytes, is.

        Raises:
            MessageError, ConfigError: see `publish`.
        """
        check_routing_key(routing_key)
        carried = copy_headers(headers)
        if priority.__class__ is not int or priority:
            check_priority(priority)
        if ttl is not None or delay.__class__ is not float or delay or timestamp is not None:
            _check_times(ttl, delay, timestamp)
        if not (correlation_id is reply_to is message_id is type is app_id is None):
            check_texts(
                correlation_id=correlation_id,
                reply_to=reply_to,
                message_id=message_id,
                type=type,
                app_id=app_id,
            )
        if (mandatory.__class__, durable.__class__) != (bool, bool):
            check_flags(mandatory=mandatory, durable=durable)
        if exchange is None:
            exchange = self._exchange
        else:
            check_routing_key(exchange, "name of an exchange")
        if content_type is not None:
            check_texts(content_type=content_type, content_encoding=content_encoding)
            encoded = self._as_is(body)
        else:
            product = encode(
                body,
                serializer or self._serializer,
                compression or self._compression,
                codecs=self._codecs,
                limits=self._limits,
            )
            encoded, content_type, content_encoding = (
                product.body,
                product.content_type,
                product.content_encoding,
            )
            if product.compression:
                carried["compression"] = product.compression
        properties = Properties(
            content_type,
            content_encoding,
            carried,
            priority,
            correlation_id,
            reply_to,
            ttl,
            message_id,
            timestamp,
            type,
            None,
            app_id,
            2 if durable else 1,
        )
        return Publication(exchange, routing_key, encoded, properties, fresh_id(), mandatory, delay)

    def _ready(self, item: tuple[Any, str] | Publication, options: PublishOptions) -> Publication:
        return item if isinstance(item, Publication) else self.prepare(*_pair(item), **options)

    def _as_is(self, body: Any) -> bytes:
        if not isinstance(body, bytes):
            raise ConfigError(
                "with content_type= the body must be bytes that are encoded already, not "
                f"{type(body).__name__}"
            )
        if len(body) > self._limits.max_bytes:
            raise TooLarge(f"the body has {len(body)} bytes; the limit is {self._limits.max_bytes}")
        return body

    def _send(self, publications: Sequence[Publication], timeout: float | None) -> list[Receipt]:
        """Publish until each is confirmed or refused.

        Those of unknown fate go again with the same id.
        """
        deadline = Deadline.after(self._timeout if timeout is None else timeout, self._clock)
        receipts: dict[int, Receipt] = {}
        waiting: Sequence[int] = range(len(publications))
        batch = publications
        sent = False

        def send(session: Session, left: float) -> Sequence[Outcome]:
            nonlocal sent
            sent = True
            return session.publish(batch, timeout=left)

        while True:
            try:
                outcomes = self._recovery.call(send, timeout=deadline)
            except (ConnectionLost, SessionLost) as error:
                if not sent:
                    raise
                raise NotConfirmed(
                    f"{described(batch[0])} was not confirmed in time: {error}",
                    _before(receipts, waiting[0]),
                    batch[0],
                ) from error
            if not receipts and all([outcome.status == "confirmed" for outcome in outcomes]):
                return [Receipt(publication, "confirmed") for publication in publications]
            unknown, why = [], ""
            for index, outcome in zip(waiting, outcomes, strict=True):
                if outcome.status == "confirmed":
                    receipts[index] = Receipt(publications[index], "confirmed")
                elif outcome.status == "unknown":
                    unknown.append(index)
                    why = why or outcome.detail
                else:
                    raise failure_of(publications[index], outcome, _before(receipts, index))
            if not unknown:
                return [receipts[index] for index in range(len(publications))]
            waiting, batch = unknown, [publications[index] for index in unknown]
            if deadline.expired:
                raise NotConfirmed(
                    f"{described(batch[0])} was not confirmed in time{why and f': {why}'}",
                    _before(receipts, waiting[0]),
                    batch[0],
                )

    def _publish_in(
        self, handle: object, publication: Publication, timeout: float | None
    ) -> Receipt:
        receipt = Receipt(publication, "pending")

        def ended(committed: bool) -> None:  # noqa: FBT001 - the contract's callback
            receipt.status = "confirmed" if committed else "discarded"

        # Only the connecting is repeated: what failed inside the caller's transaction is his to
        # roll back, and a second try in it could store the message twice.
        seconds = self._timeout if timeout is None else timeout
        session = self._recovery.call(lambda current, left: current, timeout=seconds)
        transaction = Transaction(handle, ended)
        (outcome,) = session.publish([publication], timeout=seconds, transaction=transaction)
        if outcome.status != "confirmed":
            raise failure_of(publication, outcome)
        return receipt


def _check_options(call: str, options: PublishOptions) -> None:
    """Raise ConfigError for one that there is not, by the name of what was called."""
    known = PublishOptions.__annotations__
    if unknown := options.keys() - known.keys():
        refuse_options(call, unknown, known)


def _check_times(ttl: float | None, delay: float, timestamp: float | None) -> None:
    if ttl is not None:
        need_seconds("ttl", ttl, zero=True)
    need_seconds("delay", delay, zero=True)
    if ttl is not None and ttl <= delay and delay:
        raise ConfigError(
            f"the message would expire (ttl {ttl:g} s) before it becomes visible (delay "
            f"{delay:g} s)"
        )
    if timestamp is not None:
        need_seconds("timestamp", timestamp, zero=True, limit=MAX_TIME)


def _pair(item: object) -> tuple[Any, str]:
    """Return body and routing key, so that a string is not taken apart into characters."""
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    raise ConfigError(
        "publish_many takes pairs (body, routing_key), or what prepare() returned, not "
        f"{type(item).__name__}"
    )


def _before(receipts: Mapping[int, Receipt], index: int) -> tuple[object, ...]:
    return tuple(receipts[place] for place in range(index) if place in receipts)
