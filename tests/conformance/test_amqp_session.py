"""The Session contract on RabbitMQ."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import settings

from queue_core.registry import find_transport
from queue_core.testing import SessionSuite
from queue_core.testing.session_bench import OpenSession
from queue_core.testing.session_machine import MACHINE_SETTINGS, SessionMachine
from queue_core.transport import Session, SessionOptions
from queue_core.transports.amqp.session import AmqpSession
from queue_core.transports.amqp.topology import BACKSTOP
from queue_core.url import parse


class TestAmqpSession(SessionSuite):
    transport = "amqp"
    strict = False
    quiet = 0.2
    spared = BACKSTOP + 1  # x-delivery-limit n lets a message be delivered n + 1 times

    @pytest.fixture
    def open_session(self, amqp_url: str) -> OpenSession:
        url = parse(amqp_url)
        transport = find_transport("amqp")
        return lambda **options: transport.open(url, SessionOptions(**options))

    def crash(self, session: Session) -> None:
        assert isinstance(session, AmqpSession)
        session.cut()


class AmqpMachine(SessionMachine):
    """Random use, against sets of message ids; counts are compared at the end only."""

    suite = TestAmqpSession()
    url: ClassVar[str]

    def open_session(self, **options: Any) -> Session:
        return find_transport("amqp").open(parse(self.url), SessionOptions(**options))


class TestAmqpMachine(AmqpMachine.TestCase):
    settings = settings(MACHINE_SETTINGS, max_examples=8, stateful_step_count=20)

    @pytest.fixture(autouse=True)
    def _url(self, amqp_url: str) -> None:
        AmqpMachine.url = amqp_url
