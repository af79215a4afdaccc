"""``queue-core demo``: see it work."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from queue_core import Connection
from queue_core.worker.cli.errors import CommandError
from queue_core.worker.demo.run import DemoFailed, run_demo
from queue_core.worker.demo.show import make_display

DEFAULT_FOLDER = ".queue-core"
DEFAULT_BROKER = f"sqlite:///{DEFAULT_FOLDER}/demo.db"
NEXT = (
    ("BROKER=amqp://guest:guest@localhost make demo", "the same on RabbitMQ"),
    ("{program} doctor {url}", "what this broker keeps, and can do"),
    ("{program} worker --help", "run your own tasks"),
)


@click.command()
@click.option(
    "-b",
    "--broker",
    default=DEFAULT_BROKER,
    show_default=True,
    envvar=["QUEUE_CORE_DEMO_BROKER"],
    metavar="URL",
    help="Where the tasks wait.",
)
@click.option("--limit", type=click.IntRange(4), help="Only the first modules. [all]")
def demo(broker: str, limit: int | None) -> None:
    """See it work: one task per module of Python's library, two workers, one of them killed.

    The results are compared with a direct count in one process. Exit code 1 if anything was lost or
    differs. Takes about half a minute.
    """
    if broker == DEFAULT_BROKER:
        Path(DEFAULT_FOLDER).mkdir(exist_ok=True)
    if broker.startswith("memory:"):
        raise CommandError(
            "the demo cannot run on memory://",
            "its workers are other processes, and memory:// exists in one only",
            f"queue-core demo --broker {DEFAULT_BROKER}",
            code=2,
        )
    try:
        run_demo(broker, make_display(), limit=limit)
    except DemoFailed as error:
        raise CommandError(
            f"the demo failed: {error}", advice="queue-core demo, once more"
        ) from None
    click.echo("next:")
    with Connection(broker) as connection:
        shown = [command.format(program=_program(), url=connection.url) for command, _ in NEXT]
    width = max(map(len, shown))
    for command, (_, words) in zip(shown, NEXT, strict=True):
        click.echo(f"  {command:<{width}}  {words}")


def _program() -> str:
    """Return how to call this program from here."""
    if shutil.which("queue-core"):
        return "queue-core"
    return os.path.relpath(Path(sys.executable).with_name("queue-core"))


commands = {"demo": demo}
