"""Dead letters of tasks: what cannot be run or sent is kept for a person, with the reason.

They are copies of messages, made as these came: what is too much for us to send may have come from
others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from queue_core import (
    Connection,
    Exchange,
    Message,
    Properties,
    Publication,
    Queue,
    QueueNotFound,
    TopologyMismatch,
    Unroutable,
    fresh_id,
)
from queue_core.worker.failure import Failure
from queue_core.worker.messages import label
from queue_core.worker.sequel import Sequel

logger = logging.getLogger(__name__)

ERROR_HEADER: Final = "qc-error"
QUEUE_HEADER: Final = "qc-queue"
_MAX_REASON: Final = 1_000
_MAX_HEADERS: Final = 64_000
_MAX_HEADER: Final = 1_000
"""How much of headers, and of one of them if those are more, a dead letter has, in characters."""


class DeadLetters:
    """Where messages and what follows them go when nothing else can be done. Thread-safe."""

    def __init__(
        self, connection: Connection, sequel: Sequel, queues: Callable[[], Mapping[str, Queue]]
    ) -> None:
        """``queues`` returns those whose dead-letter exchanges are known."""
        self._connection = connection
        self._sequel = sequel
        self._queues = queues

    def bury(
        self, message: Message, properties: Properties, body: bytes, reason: str
    ) -> Publication:
        """Return a copy of the message, or of what follows it, for its queue's dead letters."""
        queue = self._queues().get(message.queue)
        target = None if queue is None else queue.dead_letter_target
        if queue is not None and target is not None:
            key = queue.dead_letter_routing_key
            key = message.routing_key if key is None else key
        else:
            target, key = "", self._last_resort(message)
        known = msgspec.structs.replace(properties, headers=_without_large(properties.headers))
        more = {ERROR_HEADER: reason[:_MAX_REASON], QUEUE_HEADER: message.queue}
        return copied(known, body, target, key, more)

    def set_aside(
        self,
        message: Message,
        error: Exception,
        then: list[Publication],
        dead: list[Publication],
    ) -> bool:
        """Put a dead letter in the place of what goes nowhere; return False if that is nothing.

        Whoever waits for such a follower gets a failure. A dead letter that goes nowhere itself is
        sent to the last resort.

        Args:
            message: whose followers they are.
            error: why they were not taken.
            then: what follows the message, which is changed.
            dead: dead letters that go with it, which are changed.
        """
        lost = self._nowhere(error, [*then, *dead])
        if lost is None or (lost in dead and not lost.exchange):
            return False
        if lost in dead:
            key = self._last_resort(message)
            dead[dead.index(lost)] = msgspec.structs.replace(lost, exchange="", routing_key=key)
            return True
        reason = str(error)
        if isinstance(error, QueueNotFound):
            reason = f"there is no exchange {lost.exchange!r} to send it to, with the routing key "
            reason += repr(lost.routing_key)
        logger.error("what follows %s is set aside: %s", label(message), reason)
        failure = Failure(type(error).__name__, type(error).__module__, [reason])
        then.remove(lost)
        dead.append(self.bury(message, lost.properties, lost.body, reason))
        then += self._sequel.of_lost(message, lost, failure)
        return True

    def _nowhere(self, error: Exception, sent: Sequence[Publication]) -> Publication | None:
        """Return the publication that no queue or no exchange took; None if that was not it."""
        if isinstance(error, QueueNotFound):
            return next((one for one in sent if not self._has(one.exchange)), None)
        lost = error.publication if isinstance(error, Unroutable) else None
        return next((one for one in sent if one is lost), None)

    def _has(self, exchange: str) -> bool:
        """Whether the broker has this exchange."""
        try:
            if exchange:
                self._connection.declare(Exchange(exchange), passive=True)
        except TopologyMismatch:
            return True
        except QueueNotFound:
            return False
        return True

    def _last_resort(self, message: Message) -> str:
        """Return the queue of dead letters that go nowhere else; it is there now."""
        name = f"{message.queue[:250]}.dlq"
        self._sequel.declare(Queue(name))
        return name


def copied(
    properties: Properties, body: bytes, exchange: str, key: str, more: Mapping[str, object]
) -> Publication:
    """Return the message again, with ``more`` headers.

    It goes there alone: RabbitMQ would send it to the queues in its header ``CC`` once more.
    """
    headers = {**properties.headers, **more}
    headers.pop("CC", None)
    known = msgspec.structs.replace(
        properties,
        content_type=properties.content_type or "application/octet-stream",
        headers=headers,
        expiration=None,
        user_id=None,
        delivery_mode=2,
    )
    return Publication(exchange, key, body, known, fresh_id())


def _without_large(headers: Mapping[str, Any]) -> dict[str, Any]:
    """So few headers that a broker has room for more."""
    sizes = {name: len(repr(value)) for name, value in headers.items()}
    whole = sum(sizes.values()) <= _MAX_HEADERS
    return {name: value for name, value in headers.items() if whole or sizes[name] <= _MAX_HEADER}
