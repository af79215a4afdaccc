"""Every error that queue_core raises, in one tree.

A class exists only where a caller acts differently on it; everything else is in the message, which
says what failed, where, and what to do next. A password never appears in a message.

::

    QueueCoreError
      UsageError              the call is wrong; repeating it cannot help
        ConfigError             a URL, an option or a setting is not understood
        TopologyMismatch        the exchange or queue exists with other arguments
        Unsupported             this transport cannot do what was asked
        AlreadySettled          the message was acked, rejected or requeued before
        StaleDelivery           the delivery belongs to a lease or channel that has ended
        Closed                  the connection, consumer or producer is closed
      TransportError          the outside failed; ``retryable`` says whether waiting may help
        ConnectionLost          retryable: the broker went away or cannot be reached
        ConnectTimeout          retryable: no answer in time
        SessionLost             retryable: the session's lease ended; its messages went back
        AccessRefused           wrong user, password, or missing permission
        QueueNotFound           the queue or exchange does not exist
        StoreCorrupt            what the store holds is not ours, damaged, or of a newer version
        BrokerFull              retryable: no room (disk, memory, quota)
      PublishError            this message was not accepted
        Unroutable              no queue wants it
        NotConfirmed            no answer within the deadline: it may or may not be stored
        Refused                 certainly not stored, for example because a queue is full
      MessageError            this message cannot be read or sent as it is
        DecodeError             the body is not what its content type says
        ContentDisallowed       the content type or compression is not in the accept list
        TooLarge                beyond a limit of size, depth or compression ratio
      RemoteError             a handler failed on another node: its type name and text
"""

from __future__ import annotations

from collections.abc import Iterable


class QueueCoreError(Exception):
    """The base of every error of this package."""


class UsageError(QueueCoreError):
    """The call is wrong; repeating it unchanged cannot help."""


class ConfigError(UsageError):
    """A URL, an option or a setting is not understood; the message names the nearest valid one."""


class TopologyMismatch(UsageError):
    """An exchange or queue exists with other arguments; the message shows both sides."""


class Unsupported(UsageError):
    """The transport cannot do what was asked.

    Attributes:
        feature: the field of ``Features`` that would be needed.
        transport: the name of the transport that lacks it.
    """

    def __init__(self, feature: str, transport: str, advice: str = "") -> None:
        """Name the missing ``feature``, the ``transport``, and what to do instead."""
        self.feature = feature
        self.transport = transport
        message = f"the {transport} transport does not support {feature}"
        super().__init__(f"{message}; {advice}" if advice else message)


class AlreadySettled(UsageError):
    """The message was acked, rejected or requeued before."""


class StaleDelivery(UsageError):
    """The delivery belongs to a lease or channel that has ended; others have the message now."""


class Closed(UsageError):
    """The connection, consumer or producer is closed."""


class TransportError(QueueCoreError):
    """The outside failed.

    Attributes:
        retryable: whether the same call may succeed later.
    """

    retryable = False


class ConnectionLost(TransportError):
    """The broker went away or cannot be reached."""

    retryable = True


class ConnectTimeout(ConnectionLost):
    """The broker did not answer in time."""


class SessionLost(TransportError):
    """The session's lease ended and its messages went back to their queues."""

    retryable = True


class AccessRefused(TransportError):
    """Wrong user or password, or a permission is missing."""


class QueueNotFound(TransportError):
    """The queue or exchange does not exist.

    Attributes:
        ended: the queue whose subscription ended because of it; None outside of ``receive``.
    """

    def __init__(self, message: str, *, ended: str | None = None) -> None:
        """Name what is missing."""
        super().__init__(message)
        self.ended = ended


class StoreCorrupt(TransportError):
    """What the store holds is not ours, is damaged, or was written by a newer version."""


class BrokerFull(TransportError):
    """The broker has no room left: disk, memory or quota. Consumers can still drain it."""

    retryable = True


class PublishError(QueueCoreError):
    """A message was not accepted.

    Attributes:
        receipts: for ``publish_many``, those so far in input order; empty for one publish.
        publication: the message, as `Producer.prepare` returns it; None where that is not known.
    """

    def __init__(
        self, message: str, receipts: tuple[object, ...] = (), publication: object = None
    ) -> None:
        """Say which message was not accepted and why."""
        super().__init__(message)
        self.receipts = receipts
        self.publication = publication


class Unroutable(PublishError):
    """No queue wants the message."""


class NotConfirmed(PublishError):
    """No confirmation within the deadline: the message may or may not be stored."""


class Refused(PublishError):
    """The message is certainly not stored, for example because a queue is full."""


class MessageError(QueueCoreError):
    """A message cannot be read or sent as it is."""


class DecodeError(MessageError):
    """The body is not what its content type says."""


class ContentDisallowed(MessageError):
    """The content type or compression is not in the accept list."""


class TooLarge(MessageError):
    """A limit of size, depth or compression ratio was exceeded."""


class RemoteError(QueueCoreError):
    """A handler failed on another node.

    Attributes:
        type_name: the name of the exception's class over there.
        text: its text. The exception object itself never travels.
    """

    def __init__(self, type_name: str, text: str) -> None:
        """Carry the class name and text of the remote failure."""
        self.type_name = type_name
        self.text = text
        super().__init__(f"{type_name}: {text}")


def counted(number: int, one: str, many: str = "") -> str:
    """Return how many there are of what, for a message: ``1 queue``, ``0 queues``, ``2 queues``.

    ``many`` is for what is not ``one`` with an s.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return which of ``known`` a wrong ``name`` was probably meant to be, or None.

    ``cutoff`` is how alike they must be at least: 1 is equal, 0 has nothing in common.
    """
    import difflib  # noqa: PLC0415 - 1.5 ms that a program without mistakes need not pay

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)
