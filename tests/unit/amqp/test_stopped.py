"""What RabbitMQ delivers to a consumer that has been stopped meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from queue_core.transports.amqp import frames
from queue_core.transports.amqp.consuming import Consuming
from queue_core.transports.amqp.subscription import Inbox, Subscription


def test_what_comes_after_the_stop_goes_back_at_once_and_uncounted() -> None:
    sent: list[bytes] = []
    link: Any = SimpleNamespace(connection=SimpleNamespace(after_read=None, emit=sent.append))
    settling: Any = SimpleNamespace(lost=None)
    consuming = Consuming(link, settling, lambda queue: False)
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
