"""What RabbitMQ delivers to a consumer that has been stopped, or was given up, meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from queue_core.transports.amqp import frames
from queue_core.transports.amqp.consuming import Consuming
from queue_core.transports.amqp.subscription import Inbox, Subscription


def consuming_of(sent: list[bytes]) -> Consuming:
    link: Any = SimpleNamespace(connection=SimpleNamespace(after_read=None, emit=sent.append))
    settling: Any = SimpleNamespace(lost=None, live={})
    return Consuming(link, settling, lambda queue: False, again=False)


def test_what_came_before_a_subscription_was_given_up_is_not_handed_out() -> None:
    """It goes back with the channel: the answer to the subscription came too late."""
    consuming = consuming_of([])
    inbox = Inbox("c")
    given_up, other = Subscription(inbox, "q", 10, 1), Subscription(inbox, "r", 10, 2)
    for subscription in (given_up, other):
        consuming._on_deliver(subscription, 1, False, "", subscription.queue, b"", b"")
    given_up.ended = True
    consuming._on_closed(given_up, ConnectionError("closed"))
    assert [item.queue for item in inbox.deliveries] == ["r"]


def test_what_comes_after_the_stop_goes_back_at_once_and_uncounted() -> None:
    sent: list[bytes] = []
    consuming = consuming_of(sent)
    inbox = Inbox("c")
    subscription = Subscription(inbox, "q", 10, 1)
    channel: Any = SimpleNamespace(number=3)
    subscription.channel = channel
    consuming._on_deliver(subscription, 6, False, "", "q", b"", b"before")
    assert [item.body for item in inbox.deliveries] == [b"before"]
    subscription.stopped = True
    consuming._on_deliver(subscription, 7, False, "", "q", b"", b"after")
    assert sent == [frames.nack(3, 7, requeue=True)]
    assert [item.body for item in inbox.deliveries] == [b"before"]
    assert subscription.unsettled == {6}
