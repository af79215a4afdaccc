"""Proving that settlements took effect: from then on an acked message never comes again.

A broker handles what one channel sends in order, so an answer on that channel proves that every
settlement before it has left the channel for its queue, and it cannot be lost with the connection
any more. For that a basic.qos, which changes nothing, is enough.

Quorum queues need more. The broker's channel keeps back settlements while more than 32 commands
are on their way to such a queue [ran: RabbitMQ 3.10], and forgets those when the connection ends:
of 299 acks that were followed by an answered basic.qos, 266 were undone by cutting the connection.
Two requests that go through the queue itself bring them out, one after another: when the first is
answered, the commands before it were applied, and the channel sends what it kept back; when the
second is answered, that was applied too. They are the registration and the end of a consumer
without credit, which gets nothing. (A broker that ignores the credit hands it some messages; they
arrive as deliveries of the subscription, whose channel it shares, and are settled as such.) A
client cannot see which type a queue has, so both types are asked alike, once enough was written.

Everything here runs in the I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from queue_core.transports.amqp.io import answer, fail
from queue_core.transports.amqp.subscription import Subscription

KEPT_BACK_FROM: Final = 16
"""Frames since the last strong proof from which on some may be kept back: half that limit."""


def needs_two(subscription: Subscription) -> bool:
    """Whether an answer on the channel alone proves nothing."""
    return subscription.loose > KEPT_BACK_FROM and not subscription.cancelled


def prove(subscriptions: Sequence[Subscription], future: Future[Any]) -> None:
    """Answer ``future`` when everything written so far is proved, or its channel has ended.

    A channel that ends counts by itself what it could not prove.
    """
    left = len(subscriptions)
    if not left:
        answer(future, None)
        return

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            answer(future, None)

    for subscription in subscriptions:
        _prove_one(subscription, done)


def _prove_one(subscription: Subscription, done: Callable[[], None]) -> None:
    settled, frames = subscription.settlements, subscription.frames_written
    strong = needs_two(subscription)
    steps = _two(subscription) if strong else _one(subscription)

    def step(reply: Future[Any] | None) -> None:
        if reply is not None and reply.exception() is not None:
            done()
            return
        if not steps:
            _note(subscription, settled, frames if strong else 0)
            done()
            return
        method, arguments = steps.pop(0)
        request: Future[Any] = Future()
        request.add_done_callback(step)
        try:
            subscription.channel.request(method, arguments, request)
        except Exception as error:
            fail(request, error)

    step(None)


def _note(subscription: Subscription, settled: int, frames: int) -> None:
    """Note how far it is proved; several proofs may be under way, and end in any order."""
    subscription.settlements_proved = max(subscription.settlements_proved, settled)
    subscription.frames_proved = max(subscription.frames_proved, frames)


def _one(subscription: Subscription) -> list[tuple[str, dict[str, Any]]]:
    return [("basic_qos", {"prefetch_count": subscription.prefetch})]


def _two(subscription: Subscription) -> list[tuple[str, dict[str, Any]]]:
    subscription.proofs += 1
    tag = f"{subscription.tag}-proof-{subscription.proofs}"
    begin = {
        "queue": subscription.queue,
        "on_message_callback": _ignore,
        "consumer_tag": tag,
        "arguments": {"x-credit": {"credit": 0, "drain": False}, "x-priority": -1000},
    }
    return [("basic_consume", begin), ("basic_cancel", {"consumer_tag": tag})]


def _ignore(*arguments: Any) -> None:
    """Stand where pika wants a message callback."""
