"""procrastinate: each job is a row whose state changes; two processes of one job at a time."""

from __future__ import annotations

import procrastinate
import psycopg

from benchmarks.names import named
from benchmarks.workers.counter import count
from benchmarks.workers.environment import QUEUE, URL

SCHEMA = named("procrastinate")
FACTS = {
    "ack": "state of the row, after the task",
    "publish": "each",
    "versions": f"procrastinate {procrastinate.__version__}",
}
app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=URL, kwargs={"options": f"-c search_path={SCHEMA}"}
    )
)


@app.task(queue=QUEUE)  # type: ignore[untyped-decorator]  # not in the environment of the check
def tick() -> None:
    count()


def _execute(statement: str) -> None:
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(statement)


def prepare() -> None:
    remove()
    _execute(f"CREATE SCHEMA {SCHEMA}")
    app.open()
    app.schema_manager.apply_schema()


def send(number: int) -> None:
    for _ in range(number):
        tick.defer()


def remove() -> None:
    _execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
