"""The exceptions of pika and the broker's reply codes as queue_core's errors; the only such place.

The text of the broker is kept: it names entity, virtual host and what differs. Passwords never
pass here, since neither the broker's texts nor pika's exceptions hold them, and addresses are
given as host and port only.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Final

from pika.adapters.utils import connection_workflow
from pika.exceptions import (
    AMQPConnectionError,
    AMQPHeartbeatTimeout,
    AuthenticationError,
    ChannelClosed,
    ChannelClosedByClient,
    ChannelWrongStateError,
    ConnectionBlockedTimeout,
    ConnectionClosed,
    ConnectionClosedByClient,
    IncompatibleProtocolError,
    NoFreeChannels,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
    UnsupportedAMQPFieldException,
)

from queue_core.errors import (
    AccessRefused,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    QueueNotFound,
    TooLarge,
    TopologyMismatch,
    Unsupported,
    UsageError,
)
from queue_core.message import Publication

ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
RESOURCE_LOCKED: Final = 405
PRECONDITION_FAILED: Final = 406
NOT_ALLOWED: Final = 530
NOT_IMPLEMENTED: Final = 540

# OpenSSL's X509_V_ERR_*: host name and address; no issuer, self-signed, untrusted and their like.
_WRONG_NAME: Final = (62, 64)
_UNKNOWN_AUTHORITY: Final = (2, 18, 19, 20, 21, 27)
# With TLS 1.3 this comes after the handshake, when pika keeps no more than its text.
_REFUSED_CERTIFICATE: Final = re.compile(
    r"ALERT_(CERTIFICATE_\w+|BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|UNKNOWN_CA)"
)
_PERMISSIONS: Final[Mapping[str, str]] = {
    "queue_declare": (
        "configure it, and to read from it and write to the exchange if it has dead letters"
    ),
    "queue_delete": "configure it",
    "exchange_declare": "configure it",
    "exchange_delete": "configure it",
    "queue_bind": "write to the queue and read from the exchange",
    "queue_unbind": "write to the queue and read from the exchange",
    "exchange_bind": "write to the destination and read from the source",
    "exchange_unbind": "write to the destination and read from the source",
    "basic_publish": "write to it",
    "basic_consume": "read from it",
    "queue_purge": "read from it",
}
_WRONG_EXCHANGE: Final = re.compile(r"exchange '(?P<name>.*)' in vhost '", re.DOTALL)
_WRONG_TOPIC: Final = re.compile(
    r"topic '(?P<key>.*)' in exchange '(?P<name>.*)' in vhost '", re.DOTALL
)
_WRONG_SIZE: Final = re.compile(r"message size (?P<size>\d+)")
_WRONG_USER: Final = re.compile(
    r"user_id property set to '(?P<name>.*)' but authenticated", re.DOTALL
)


def translate(error: BaseException, doing: str, method: str = "") -> QueueCoreError:
    """Return the error to raise ``from error``; ``doing`` is such as ``declare queue 'a'``.

    ``method`` is what was asked for, by pika's name: older versions of RabbitMQ do not tell which
    permission is missing.
    """
    if isinstance(error, QueueCoreError):
        return error
    if isinstance(error, UnsupportedAMQPFieldException):
        value = error.args[-1]
        text = f"the {type(value).__name__} {value!r:.60} cannot be carried in its arguments"
        return UsageError(f"{doing}: {text}; use strings, whole numbers, booleans, lists and dicts")
    if isinstance(error, struct.error | UnicodeEncodeError):
        return UsageError(f"{doing}: one of its arguments cannot be carried: {error}")
    if isinstance(error, ChannelClosedByClient):
        return ConnectionLost(f"{doing}: the channel was closed meanwhile")
    if isinstance(error, ChannelClosed):
        return _closed_channel(error.reply_code, error.reply_text, doing, method)
    if isinstance(error, ConnectionClosed) and "transient_nonexcl_queues" in error.reply_text:
        return Unsupported(
            "transient queues",
            "amqp",
            f"{doing}: use durable=True with expires=, or exclusive=True",
        )
    if isinstance(error, ConnectionClosed) and error.reply_code == NOT_IMPLEMENTED:
        return _closed_channel(error.reply_code, error.reply_text, doing, method)
    if isinstance(error, FutureTimeout | TimeoutError):
        return ConnectTimeout(f"{doing}: the broker did not answer in time")
    if isinstance(error, NoFreeChannels):
        return ConnectionLost(f"{doing}: all channels that the broker allows are in use")
    if isinstance(error, ChannelWrongStateError):
        return ConnectionLost(f"{doing}: the channel was closed meanwhile")
    if isinstance(error, AMQPConnectionError):
        return ConnectionLost(f"{doing}: {_lost(error)}")
    return ConnectionLost(f"{doing}: {type(error).__name__}: {error}")


def _closed_channel(code: int, text: str, doing: str, method: str) -> QueueCoreError:
    message = f"{doing}: the broker says {code} {text}"
    if code == NOT_FOUND:
        return QueueNotFound(f"{message}; declare it first")
    if code == ACCESS_REFUSED:
        needed = _PERMISSIONS.get(method)
        return AccessRefused(f"{message}; it needs permission to {needed}" if needed else message)
    if code == RESOURCE_LOCKED:
        locked = AccessRefused(message)
        locked.retryable = True  # it may be held for a connection that the broker takes for alive
        return locked
    if code == PRECONDITION_FAILED:
        if "message size" in text:
            return TooLarge(message)
        if "user_id property" in text:
            return AccessRefused(message)
        return TopologyMismatch(message)
    if code == NOT_IMPLEMENTED:
        return Unsupported("arguments", "amqp", message)
    return ConnectionLost(message)


def _lost(error: AMQPConnectionError) -> str:
    if isinstance(error, ConnectionBlockedTimeout):
        return "the broker blocked publishing for too long (memory or disk alarm)"
    if isinstance(error, AMQPHeartbeatTimeout):
        return "the broker sent nothing for longer than the heartbeat allows"
    if isinstance(error, ConnectionClosedByClient):
        return "the connection was closed"
    if isinstance(error, ConnectionClosed):
        return f"the broker closed the connection: {error.reply_code} {error.reply_text}"
    texts = ", ".join(str(argument) for argument in error.args) or type(error).__name__
    return f"the connection was lost: {texts}"


_GUESSES = (ProbableAuthenticationError, ProbableAccessDeniedError)


def translate_connect(error: BaseException, where: str, vhost: str, user: str) -> QueueCoreError:
    """Return the error for a connection that did not come up; ``where`` is ``host:port``."""
    if isinstance(error, QueueCoreError):
        return error
    cause = _root(error)
    return (
        _cut_short(cause, where)
        or _not_let_in(cause, where, vhost, user)
        or _without_tls(cause, where)
        or _not_reached(cause, where)
    )


def _cut_short(cause: BaseException, where: str) -> QueueCoreError | None:
    """It came to an end, or to none, and the broker did not say why."""
    if isinstance(cause, FutureTimeout | TimeoutError):
        return ConnectTimeout(
            f"no answer from the broker at {where} in time; check host, port and firewall"
        )
    if "SSLEOFError" in str(cause):
        # What a server says against our certificate comes after the handshake, or not at all.
        return ConnectionLost(
            f"the broker at {where} ended the TLS connection while it was being made; if it always "
            "does: does it ask for a certificate (options certfile and keyfile)?"
        )
    if isinstance(cause, _GUESSES) and "StreamLostError" in str(cause):
        # pika guesses from how far it had come. RabbitMQ says what it refuses; a connection that
        # just ended was cut, and may come up the next time.
        return ConnectionLost(
            f"the connection to the broker at {where} ended while it was being made; if it always "
            "does: does the port speak AMQP, without TLS for amqp:// and with it for amqps://?"
        )
    return None


def _not_let_in(cause: BaseException, where: str, vhost: str, user: str) -> QueueCoreError | None:
    """The broker refused the user, or the virtual host to that user."""
    code = cause.reply_code if isinstance(cause, ConnectionClosed) else None
    if code == ACCESS_REFUSED or isinstance(
        cause, ProbableAuthenticationError | AuthenticationError
    ):
        return AccessRefused(
            f"the broker at {where} refused user {user!r}; check user and password"
        )
    if code in (NOT_ALLOWED, NOT_FOUND) or isinstance(cause, ProbableAccessDeniedError):
        return AccessRefused(
            f"the broker at {where} does not let user {user!r} into the virtual host {vhost!r}; "
            f"check that it exists and that the user has permissions there ({_text(cause)})"
        )
    return None


def _without_tls(cause: BaseException, where: str) -> QueueCoreError | None:
    """One of the two did not accept the other's certificate, or does not speak TLS."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        code = getattr(cause, "verify_code", 0)
        if code in _WRONG_NAME:
            advice = "connect under a name that it is for"
        elif code in _UNKNOWN_AUTHORITY:
            advice = "give its authority as option cafile"
        else:  # too old, or not as Python (3.13 and newer: RFC 5280) wants certificates to be
            advice = "the server needs another one, or its authority does"
        return AccessRefused(
            f"the certificate of the broker at {where} was not accepted: "
            f"{cause.verify_message.rstrip('.')}; {advice}"
        )
    if found := _REFUSED_CERTIFICATE.search(str(cause)):
        return AccessRefused(
            f"the broker at {where} asks for a certificate that it trusts, and says {found[0]}; "
            "give one as options certfile and keyfile"
        )
    if isinstance(cause, ssl.SSLError):
        return ConnectionLost(
            f"TLS with the broker at {where} failed: {_text(cause)}; is it a TLS port?"
        )
    return None


def _not_reached(cause: BaseException, where: str) -> QueueCoreError:
    """There is no broker at that address, or what is there is none."""
    if isinstance(cause, socket.gaierror):
        return ConnectionLost(f"cannot resolve the host of the broker at {where}; check its name")
    if isinstance(cause, ConnectionRefusedError):
        return ConnectionLost(
            f"nothing listens at {where}; is the broker running, and on this port?"
        )
    if isinstance(cause, IncompatibleProtocolError | ProtocolSyntaxError):
        return ConnectionLost(
            f"what listens at {where} does not speak AMQP 0-9-1; check the port, and whether it is "
            "one for TLS (amqps://)"
        )
    return ConnectionLost(f"cannot connect to the broker at {where}: {_text(cause)}")


def _root(error: BaseException) -> BaseException:
    """Dig the cause out of what pika's connection workflow wraps around it."""
    seen = 0
    while seen < 10:
        seen += 1
        inner: BaseException | None = None
        if isinstance(error, connection_workflow.AMQPConnectionWorkflowFailed):
            inner = error.exceptions[-1] if error.exceptions else None
        elif isinstance(error, connection_workflow.AMQPConnectorPhaseErrorBase):
            inner = error.exception
        elif isinstance(error, AMQPConnectionError):
            inner = next((item for item in error.args if isinstance(item, BaseException)), None)
        if inner is None:
            return error
        error = inner
    return error


def _text(error: BaseException) -> str:
    if isinstance(error, ConnectionClosed):
        return f"{error.reply_code} {error.reply_text}"
    text = ", ".join(str(argument) for argument in error.args)
    return text or type(error).__name__


def why_ended(reason: ChannelClosed) -> str:
    """Say why a consumer's channel ended, and what can be done about it."""
    why = (
        f"the broker had ended its channel ({reason.reply_code} {reason.reply_text}); what was not "
        "acked is delivered again"
    )
    if "acknowledgement" in reason.reply_text:
        why += (
            "; a message must be acked within the broker's consumer_timeout: take less at once "
            "(prefetch), do the work in shorter pieces, or raise it in rabbitmq.conf"
        )
    return why


def blames(error: BaseException, publication: Publication) -> bool:
    """Whether a publishing channel may have been closed because of this publication.

    The broker's text tells of whose properties, size or target it speaks; if it does not, it may
    have been any.
    """
    text = error.reply_text if isinstance(error, ChannelClosed) else ""
    if found := _WRONG_TOPIC.search(text):
        return (publication.exchange, publication.routing_key) == (found["name"], found["key"])
    if found := _WRONG_SIZE.search(text):
        return len(publication.body) == int(found["size"])
    if found := _WRONG_USER.search(text):
        return publication.properties.user_id == found["name"]
    return wrong_exchange(error) in (None, publication.exchange)


def wrong_exchange(error: BaseException) -> str | None:
    """Return the exchange that a publish failed on, as far as the broker's text tells.

    It is missing, or we may not write to it.
    """
    if isinstance(error, ChannelClosed) and (found := _WRONG_EXCHANGE.search(error.reply_text)):
        name = found["name"]
        return "" if name == "amq.default" else name
    return None
