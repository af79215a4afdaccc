"""celery: acks late as everybody else, its default prefetch of four per task that runs at once."""

from __future__ import annotations

import celery
import kombu

from benchmarks.workers.counter import count
from benchmarks.workers.environment import BROKER, QUEUE, RESULTS, URL, url_for

FACTS = {
    "ack": "after the task (acks_late)",
    "publish": "each, not confirmed (its default)" if BROKER == "amqp" else "each",
    "versions": f"celery {celery.__version__}, kombu {kombu.__version__}",
}
app = celery.Celery(
    "bench",
    broker=url_for(
        {
            "amqp": "amqp",
            "redis": "redis",
            "sqlite": "sqla+sqlite",
            "postgresql": "sqla+postgresql+psycopg",
            "mariadb": "sqla+mysql+pymysql",
        }
    ),
)
app.conf.update(
    task_acks_late=True,
    task_default_queue=QUEUE,
    task_ignore_result=not RESULTS,
    broker_connection_retry_on_startup=True,
)
if RESULTS:
    app.conf.result_backend = {"amqp": "rpc://", "redis": URL}.get(BROKER)


@app.task  # type: ignore[untyped-decorator]  # not in the environment of the check
def tick() -> int:
    count()
    return 1


def prepare() -> None:
    remove()


def send(number: int) -> None:
    for _ in range(number):
        tick.delay()


def send_later(number: int) -> None:
    """To run in an hour."""
    for _ in range(number):
        tick.apply_async(countdown=3600.0)


def remove() -> None:
    with app.connection() as connection:
        queue = kombu.Queue(QUEUE).bind(connection.default_channel)
        queue.declare()
        queue.delete()
