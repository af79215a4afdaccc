"""Setting aside what nobody can read.

A message that cannot be decoded, or whose content type is not accepted, is never handed out and
never lost: it is copied, as it is, to where a person finds it, with the reason in the header
``qc-error`` and its queue in ``qc-queue``, and acked in the same step. That is the dead-letter
exchange of its queue or, where there is none or it does not take it, the queue ``<queue>.dlq``.
"""

from __future__ import annotations

import logging

from queue_core.errors import (
    AccessRefused,
    DecodeError,
    MessageError,
    PublishError,
    QueueNotFound,
    TopologyMismatch,
)
from queue_core.identifiers import fresh_id
from queue_core.message import Message, Properties, Publication
from queue_core.recovery import Recovery
from queue_core.topology import Queue

logger = logging.getLogger(__name__)

MAX_REASON = 1000
"""Characters of an error that are kept."""
MAX_NAME = 250
"""Characters of a queue's name that its ``.dlq`` begins with."""


def set_aside(
    recovery: Recovery, message: Message, queue: Queue | str, error: MessageError, timeout: float
) -> None:
    """Copy the message to its queue's dead letters and ack it, in one step.

    ``queue`` is its queue, or the name where no more is known. Blocks until both are certain, at
    most ``timeout`` seconds for each of its two or three calls. Raises what `Message.ack` does; the
    message is then as it was.
    """
    fallback = f"{message.queue[:MAX_NAME]}.dlq"
    logger.warning(
        "message %r cannot be read (%s); it goes to the dead letters of its queue, or to queue %r",
        message,
        error,
        fallback,
    )
    if isinstance(queue, Queue) and queue.dead_letter_target is not None:
        target, key = queue.dead_letter_target, queue.dead_letter_routing_key
        key = message.routing_key if key is None else key
        try:
            message.ack(then=[_copy(message, error, target, key)])
            return
        except (AccessRefused, PublishError, QueueNotFound) as failed:
            logger.warning("the dead-letter exchange %r did not take it: %s", target, failed)
    try:
        recovery.call(
            lambda session, left: session.declare(Queue(fallback), timeout=left), timeout=timeout
        )
    except TopologyMismatch as failed:
        logger.debug("%s is used as it is: %s", fallback, failed)
    message.ack(then=[_copy(message, error, "", fallback)])


def _copy(message: Message, error: MessageError, exchange: str, routing_key: str) -> Publication:
    try:
        properties = message.properties
    except DecodeError:
        properties = Properties()
    headers = dict(properties.headers)
    headers.pop("CC", None)  # RabbitMQ would send the copy to those queues again, without an end
    headers["qc-error"] = f"{type(error).__name__}: {error}"[:MAX_REASON]
    headers["qc-queue"] = message.queue
    copied = Properties(
        properties.content_type,
        properties.content_encoding,
        headers,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.type,
        app_id=properties.app_id,
    )
    return Publication(exchange, routing_key, message.body, copied, fresh_id())
