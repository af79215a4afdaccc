"""``queue-core doctor``: connect to a broker, try it, and say what it is worth."""

from __future__ import annotations

import time
import uuid
from typing import Any

import click

from queue_core import Connection, Durability, Queue
from queue_core.worker.cli.errors import CommandError
from queue_core.worker.cli.options import broker_or_word, json_option, print_json, timeout_option
from queue_core.worker.cli.types import queue_name


@click.command()
@broker_or_word
@click.option(
    "-Q",
    "--queue",
    type=queue_name,
    metavar="NAME",
    help="Look at the durability of this queue.",
)
@json_option
@timeout_option("10s", "How long each step may take.")
def doctor(broker: str, queue: str | None, as_json: bool, timeout: float) -> None:
    """Connect to a broker, send one message through it, and say what it keeps and can do.

    The message goes through a queue of its own, which is deleted. What weakens the broker's promise
    is listed with its remedy; that is no error. Exit code 0 if the broker works, 69 if it cannot be
    reached, 77 if it refuses, 78 if the URL or a driver is wrong.
    """
    with Connection(broker, timeout=timeout, connect_timeout=timeout) as connection:
        begun = time.perf_counter()
        connection.connect()
        connected = time.perf_counter()
        _send_one(connection, timeout)
        done = time.perf_counter()
        report = {
            "broker": connection.url,
            "server": connection.durability.broker,
            "connect_ms": round((connected - begun) * 1000, 1),
            "round_trip_ms": round((done - connected) * 1000, 1),
            "queue": queue,
            **_promise(connection.durability_of(queue) if queue else connection.durability),
            "features": {name: can for name, (can, _) in connection.features.describe().items()},
        }
    if as_json:
        print_json(**report)
    else:
        click.echo(_text(report))


def _send_one(connection: Connection, timeout: float) -> None:
    """Declare a queue, send a message through it, and delete it."""
    queue = Queue(f"qc.doctor.{uuid.uuid4().hex}", exclusive=connection.features.exclusive)
    connection.declare(queue)
    try:
        connection.producer().publish("are you well?", queue.name)
        with connection.consumer(queue, prefetch=1) as consumer:
            message = consumer.receive(timeout=timeout)
            if message is None:
                raise CommandError(
                    f"the broker confirmed a message and did not deliver it within {timeout:g} s"
                )
            message.ack()
            consumer.flush()
    finally:
        connection.delete(queue)


def _promise(found: Durability) -> dict[str, Any]:
    return {
        "survives": str(found.survives),
        "found": found.found,
        "warnings": [{"problem": item.problem, "remedy": item.remedy} for item in found.warnings],
        "notes": list(found.notes),
    }


def _text(report: dict[str, Any]) -> str:
    features: dict[str, bool] = report["features"]
    rows = [
        ("broker", report["broker"]),
        ("server", report["server"] or "(it does not tell)"),
        ("connect", f"ok, {report['connect_ms']} ms"),
        ("message", f"ok, {report['round_trip_ms']} ms: declared, sent, received, acked, deleted"),
        ("survives", f"{report['survives']}: {report['found']}"),
        ("can", ", ".join(name for name, can in features.items() if can)),
        ("cannot", ", ".join(name for name, can in features.items() if not can) or "-"),
    ]
    lines = [f"{label:<9} {words}" for label, words in rows]
    for warning in report["warnings"]:
        lines += [f"warning   {warning['problem']}", f"   try    {warning['remedy']}"]
    lines += [f"note      {note}" for note in report["notes"]]
    return "\n".join(lines)


commands = {"doctor": doctor}
