"""RabbitMQ: what was tried once and failed, and is tried again."""

from __future__ import annotations

import pytest

from queue_core.errors import AccessRefused, ConnectTimeout
from queue_core.testing.eventually import eventually
from queue_core.transports.amqp import frames


def fail_once(monkeypatch, owner, method, error):
    """Let the next call of ``owner.method`` raise ``error``."""
    usual = getattr(owner, method)

    def fail(*arguments, **options):
        monkeypatch.setattr(owner, method, usual)
        raise error

    monkeypatch.setattr(owner, method, fail)


def test_other_messages_with_an_ack_that_was_tried_before_are_published(bench, monkeypatch):
    queue, first, second = bench.queue(), bench.queue(), bench.queue()
    bench.send(queue, b"1")
    session = bench.open()
    session.subscribe("c", queue, prefetch=1)
    (delivery,) = bench.take(session, "c", 1)
    fail_once(monkeypatch, session._settling, "_wait_proved", ConnectTimeout("no answer in time"))
    with pytest.raises(ConnectTimeout):
        session.settle_then(delivery, [bench.message(first, b"result")])
    outcomes = session.settle_then(delivery, [bench.message(second, b"failure")])
    assert [outcome.status for outcome in outcomes] == ["confirmed"]
    assert bench.rest(first) == [b"result"]
    assert bench.rest(second) == [b"failure"]
    assert bench.rest(queue) == []


def test_the_same_messages_with_an_ack_that_was_tried_before_are_not_published_again(
    bench, monkeypatch
):
    queue, following = bench.queue(), bench.queue()
    bench.send(queue, b"1")
    session = bench.open()
    session.subscribe("c", queue, prefetch=1)
    (delivery,) = bench.take(session, "c", 1)
    then = [bench.message(following, b"result")]
    fail_once(monkeypatch, session._settling, "_wait_proved", ConnectTimeout("no answer in time"))
    with pytest.raises(ConnectTimeout):
        session.settle_then(delivery, then)
    session.settle_then(delivery, then)
    assert bench.rest(following) == [b"result"]


def test_a_subscription_that_cannot_be_made_again_at_once_is_made_later(bench, monkeypatch):
    queue = bench.queue()
    session = bench.open()
    session.subscribe("c", queue, prefetch=1)
    (subscription,) = session._settling.live.values()
    fail_once(monkeypatch, session._consuming, "_subscribe", AccessRefused("not permitted now"))
    number = subscription.channel.number
    session._link.submit(lambda: session._link.connection.emit(frames.ack(number, 999_999)))
    eventually(lambda: subscription.channel.closed is not None)
    with pytest.raises(AccessRefused):
        session.receive("c", wait=5.0)
    bench.send(queue, b"1")
    assert [item.body for item in bench.take(session, "c", 1)] == [b"1"]
