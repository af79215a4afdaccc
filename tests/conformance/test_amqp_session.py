"""The Session contract on RabbitMQ."""

from __future__ import annotations

import pytest

from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import OpenSession
from queue_core.transport import Session, SessionOptions
from queue_core.transports.amqp.session import AmqpSession
from queue_core.url import parse


class TestAmqpSession(SessionSuite):
    transport = "amqp"
    strict = False
    quiet = 0.2

    @pytest.fixture
    def open_session(self, amqp_url: str) -> OpenSession:
        url = parse(amqp_url)
        transport = find_transport("amqp")
        return lambda **options: transport.open(url, SessionOptions(**options))

    def crash(self, session: Session) -> None:
        assert isinstance(session, AmqpSession)
        session.cut()
