"""taskiq: acks after the task; two processes with an event loop each, a stream on Redis."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

import aio_pika
import redis
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika import Queue as RabbitQueue
from taskiq_aio_pika.queue import QueueType
from taskiq_redis import RedisStreamBroker

from benchmarks.workers.counter import count
from benchmarks.workers.environment import BROKER, QUEUE, URL

DEAD = f"{QUEUE}.dead"
FACTS = {
    "ack": "after the task",
    "publish": "each confirmed" if BROKER == "amqp" else "each",
    "versions": f"taskiq {version('taskiq')}",
}
broker: Any = (
    AioPikaBroker(
        URL,
        task_queues=[RabbitQueue(name=QUEUE, type=QueueType.CLASSIC)],
        dead_letter_queue=RabbitQueue(name=DEAD, type=QueueType.CLASSIC),
    )
    if BROKER == "amqp"
    else RedisStreamBroker(URL, queue_name=QUEUE)
)
_runner = asyncio.Runner()


@broker.task  # type: ignore[untyped-decorator]  # not in the environment of the check
async def tick() -> None:
    count()


def prepare() -> None:
    """The broker declares by itself when it starts."""
    _runner.run(broker.startup())


async def _send(number: int) -> None:
    for _ in range(number):
        await tick.kiq()


def send(number: int) -> None:
    _runner.run(_send(number))


async def _remove() -> None:
    connection = await aio_pika.connect(URL)
    channel = await connection.channel()
    for name in (QUEUE, DEAD):
        await channel.queue_delete(name)
    await channel.exchange_delete("taskiq")
    await connection.close()


def remove() -> None:
    _runner.run(broker.shutdown())
    if BROKER == "amqp":
        _runner.run(_remove())
    else:
        redis.Redis.from_url(URL).delete(QUEUE, f"autoclaim:taskiq:{QUEUE}")
    _runner.close()
