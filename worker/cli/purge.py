"""``queue-core purge``: delete what waits in a queue, after saying how much that is."""

from __future__ import annotations

import sys

import click

from queue_core import Connection, QueueNotFound, counted
from queue_core.worker.cli.errors import FAILED, NOTHING, USAGE, CommandError
from queue_core.worker.cli.options import broker_option, json_option, print_json, timeout_option
from queue_core.worker.cli.types import queue_name


@click.command()
@click.argument("queue", type=queue_name)
@click.option("--dry-run", is_flag=True, help="Count, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@broker_option
@timeout_option("10s", "How long the broker may take to count, and to delete.")
@json_option
def purge(queue: str, broker: str, timeout: float, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the messages that wait in QUEUE. Those that somebody works on stay.

    Says how many there are, and asks. Messages whose delay is not over count too, but on RabbitMQ
    they are not in the queue yet, and stay. Exit code 4 if there is no such queue.
    """
    with Connection(broker, timeout=timeout, connect_timeout=timeout, create=False) as connection:
        try:
            found = connection.inspect(queue)
        except QueueNotFound:
            raise CommandError(
                f"there is no queue {queue!r} at {connection.url}", code=NOTHING
            ) from None
        waiting, deleted = found.ready + (found.delayed or 0), 0
        shown = counted(waiting, "message waits", "messages wait")
        if not as_json:
            click.echo(f"{queue}: {shown}")
        if waiting and not dry_run:
            if not yes:
                _ask(queue, shown)
            deleted = connection.purge(queue)
            if not as_json:
                click.echo(f"{queue}: {counted(deleted, 'message')} deleted")
        if as_json:
            print_json(broker=connection.url, queue=queue, waiting=waiting, deleted=deleted)


def _ask(queue: str, waiting: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError(
            f"nothing was deleted from {queue}: there is no terminal to ask at",
            advice="--yes deletes without asking, --dry-run only counts",
            code=USAGE,
        )
    if not click.confirm(f"{queue}: {waiting}. Delete them for ever?", err=True):
        raise CommandError("nothing was deleted", code=FAILED)


commands = {"purge": purge}
