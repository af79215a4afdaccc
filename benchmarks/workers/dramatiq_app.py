"""dramatiq: acks after the task; two processes of one thread or of eight."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from benchmarks.workers.counter import count
from benchmarks.workers.environment import BROKER, QUEUE, URL

FACTS = {
    "ack": "after the task",
    "publish": "each confirmed" if BROKER == "amqp" else "each",
    "versions": f"dramatiq {dramatiq.__version__}",
}
broker: Any = (
    RabbitmqBroker(url=URL, confirm_delivery=True) if BROKER == "amqp" else RedisBroker(url=URL)
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=QUEUE)  # type: ignore[untyped-decorator]  # not in the environment of the check
def tick() -> None:
    count()


def prepare() -> None:
    """The broker declares by itself."""


def send(number: int) -> None:
    for _ in range(number):
        tick.send()


def remove() -> None:
    if BROKER == "amqp":
        for name in (QUEUE, f"{QUEUE}.DQ", f"{QUEUE}.XQ"):
            broker.channel.queue_delete(name)
    else:
        broker.flush(QUEUE)
    broker.close()
