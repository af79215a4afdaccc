"""pika's exceptions and reply codes as our errors."""

from __future__ import annotations

import socket
import ssl
import struct

import pytest
from pika import exceptions
from pika.adapters.utils import connection_workflow

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
from queue_core.message import Properties, Publication
from queue_core.transports.amqp.errors import (
    blames,
    translate,
    translate_connect,
    wrong_exchange,
)


def test_what_does_not_exist_comes_with_what_to_do() -> None:
    missing = exceptions.ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q' in vhost '/'")
    assert str(translate(missing, "purge queue 'q'")).endswith("vhost '/'; declare it first")


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (403, "ACCESS_REFUSED - access to queue 'q' refused", AccessRefused),
        (404, "NOT_FOUND - no queue 'q' in vhost '/'", QueueNotFound),
        (405, "RESOURCE_LOCKED - cannot obtain exclusive access", AccessRefused),
        (406, "PRECONDITION_FAILED - inequivalent arg 'durable'", TopologyMismatch),
        (406, "PRECONDITION_FAILED - message size 200 is larger than 100", TooLarge),
        (406, "PRECONDITION_FAILED - user_id property set to 'a'", AccessRefused),
        (540, "NOT_IMPLEMENTED - if-empty", Unsupported),
        (541, "INTERNAL_ERROR", ConnectionLost),
    ],
)
def test_a_closed_channel_is_translated_by_code_and_keeps_the_brokers_text(
    code: int, text: str, kind: type[QueueCoreError]
) -> None:
    error = translate(exceptions.ChannelClosedByBroker(code, text), "declare queue 'q'")
    assert type(error) is kind
    assert text in str(error)
    assert "declare queue 'q'" in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (exceptions.StreamLostError("gone"), ConnectionLost, "gone"),
        (exceptions.AMQPHeartbeatTimeout("x"), ConnectionLost, "heartbeat"),
        (exceptions.ConnectionBlockedTimeout("x"), ConnectionLost, "alarm"),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), ConnectionLost, "320"),
        (exceptions.ConnectionClosedByBroker(540, "NOT_IMPLEMENTED"), Unsupported, "540"),
        (exceptions.ChannelClosedByClient(200, "x"), ConnectionLost, "closed meanwhile"),
        (exceptions.ChannelWrongStateError("x"), ConnectionLost, "closed meanwhile"),
        (exceptions.NoFreeChannels(), ConnectionLost, "all channels"),
        (TimeoutError(), ConnectTimeout, "in time"),
        (RuntimeError("boom"), ConnectionLost, "RuntimeError: boom"),
        (exceptions.UnsupportedAMQPFieldException([b"x"], {1}), UsageError, "the set {1}"),
        (struct.error("int too large"), UsageError, "int too large"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no surrogates"), UsageError, "no surrogates"),
    ],
)
def test_other_failures_are_told_by_what_may_help_and_say_why(
    error: Exception, kind: type[QueueCoreError], says: str
) -> None:
    translated = translate(error, "publish")
    assert type(translated) is kind
    assert says in str(translated)


def test_our_own_errors_pass_through() -> None:
    error = QueueNotFound("q")
    assert translate(error, "x") is error
    assert translate_connect(error, "host:1", "/", "u") is error


def workflow_failed(phase: type[Exception], cause: Exception) -> exceptions.AMQPConnectionError:
    """Wrap a cause as pika's connection workflow does."""
    failed = connection_workflow.AMQPConnectionWorkflowFailed([phase(cause)])
    return exceptions.AMQPConnectionError(failed)


def certificate_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("bad")
    error.verify_code, error.verify_message = 18, "self-signed certificate"
    return error


SOCKET = connection_workflow.AMQPConnectorSocketConnectError
SETUP = connection_workflow.AMQPConnectorTransportSetupError
HANDSHAKE = connection_workflow.AMQPConnectorAMQPHandshakeError


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (
            workflow_failed(SOCKET, ConnectionRefusedError(111, "refused")),
            ConnectionLost,
            "nothing listens",
        ),
        (workflow_failed(SOCKET, TimeoutError()), ConnectTimeout, "no answer"),
        (
            exceptions.AMQPConnectionError(socket.gaierror(-2, "x")),
            ConnectionLost,
            "cannot resolve",
        ),
        (
            workflow_failed(HANDSHAKE, exceptions.ProbableAuthenticationError("x")),
            AccessRefused,
            "refused user 'u'",
        ),
        (
            workflow_failed(HANDSHAKE, exceptions.ProbableAccessDeniedError("530 no vhost")),
            AccessRefused,
            "virtual host 'vh'",
        ),
        (
            workflow_failed(
                HANDSHAKE,
                exceptions.IncompatibleProtocolError("StreamLostError: (SSLEOFError(8, 'EOF'))"),
            ),
            ConnectionLost,
            "certfile and keyfile",
        ),
        (
            workflow_failed(HANDSHAKE, exceptions.ProbableAuthenticationError("StreamLostError()")),
            ConnectionLost,
            "ended while it was being made",
        ),
        (
            workflow_failed(HANDSHAKE, exceptions.IncompatibleProtocolError("x")),
            ConnectionLost,
            "does not speak AMQP",
        ),
        (workflow_failed(SETUP, certificate_error()), AccessRefused, "cafile"),
        (workflow_failed(SETUP, ssl.SSLError(1, "WRONG_VERSION")), ConnectionLost, "TLS"),
    ],
)
def test_a_failed_connect_says_where_and_what_to_check(
    error: Exception, kind: type[QueueCoreError], says: str
) -> None:
    translated = translate_connect(error, "host:5672", "vh", "u")
    assert type(translated) is kind
    assert says in str(translated)
    assert "host:5672" in str(translated)


def test_the_wrong_exchange_is_read_from_the_brokers_text() -> None:
    closed = exceptions.ChannelClosedByBroker
    assert wrong_exchange(closed(404, "NOT_FOUND - no exchange 'a'b' in vhost '/'")) == "a'b"
    refused = "ACCESS_REFUSED - access to exchange '{}' in vhost '/' refused for user 'u'"
    assert wrong_exchange(closed(403, refused.format("e"))) == "e"
    assert wrong_exchange(closed(403, refused.format("amq.default"))) == ""
    assert wrong_exchange(closed(406, "PRECONDITION_FAILED - x")) is None
    assert wrong_exchange(exceptions.StreamLostError("x")) is None


@pytest.mark.parametrize(
    ("text", "blamed"),
    [
        ("no exchange 'e' in vhost '/'", {"e"}),
        ("access to topic 'k' in exchange 'e' in vhost '/' refused", {"e"}),
        ("access to topic 'l' in exchange 'e' in vhost '/' refused", set()),
        ("access to topic 'k' in exchange 'f' in vhost '/' refused", {"f"}),
        ("message size 3 is larger than configured max size 2", {"e"}),
        ("user_id property set to 'u' but authenticated user was 'v'", {"f"}),
        ("what nobody foresaw", {"e", "f"}),
    ],
)
def test_whose_message_a_channel_was_closed_for_is_read_from_the_brokers_text(
    text: str, blamed: set[str]
) -> None:
    messages = [
        Publication("e", "k", b"123", Properties(), "1"),
        Publication("f", "k", b"1", Properties(user_id="u"), "2"),
    ]
    error = exceptions.ChannelClosedByBroker(406, f"WRONG - {text}")
    assert {one.exchange for one in messages if blames(error, one)} == blamed


def test_a_missing_permission_is_named() -> None:
    refused = exceptions.ChannelClosedByBroker(403, "ACCESS_REFUSED - access to queue 'q' refused")
    assert "read from it" in str(translate(refused, "subscribe to queue 'q'", "basic_consume"))
    assert "permission" not in str(translate(refused, "look", "basic_qos"))
    locked = exceptions.ChannelClosedByBroker(405, "RESOURCE_LOCKED - exclusive")
    assert "permission" not in str(translate(locked, "subscribe to queue 'q'", "basic_consume"))
