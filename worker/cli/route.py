"""``queue-core route``: where a task goes, and who says so."""

from __future__ import annotations

import click

from queue_core import Exchange
from queue_core.worker.cli.options import (
    config_option,
    json_option,
    needed_app_option,
    print_json,
)
from queue_core.worker.locate import load_app
from queue_core.worker.signature import Signature
from queue_core.worker.suggestions import hint


@click.group()
def route() -> None:
    """Explain where tasks go."""


@route.command("explain")
@click.argument("task")
@needed_app_option
@config_option
@json_option
def explain(app: str, task: str, as_json: bool) -> None:
    """Say which queue TASK goes to, and which rule sends it there. Nothing is connected.

    A route that is a function is asked as for a call without arguments.
    """
    found = load_app(app)
    settled = found.settled
    if found.find_task(task) is None:
        near = hint(task, found.tasks)
        click.echo(f"note: the app has no task {task!r}, it can only send it{near}", err=True)
    said = settled.rules.explain(Signature(task), settled.origins)
    letter = settled.composer.compose(Signature(task, options={"task_id": "explained"}))
    publication, queue = letter.publication, letter.queue
    if as_json:
        print_json(
            task=task,
            queue=None if queue is None else queue.name,
            exchange=publication.exchange,
            routing_key=publication.routing_key,
            options={one.option: {"value": str(one.value), "because": one.because} for one in said},
        )
        return
    if queue is not None:
        click.echo(f"queue     {queue.name}")
        source = queue.exchange
        name = source.name if isinstance(source, Exchange) else source
        bound = f", bound to exchange {name!r} by {queue.routing_key!r}" if name else ""
        click.echo(f"defined   {settled.rules.queues.origin(queue.name)}{bound}")
    click.echo(f"sent to   exchange {publication.exchange!r}, key {publication.routing_key!r}")
    for one in said:
        click.echo(f"because   {one.because}: {one.option} = {one.shown}")


commands = {"route": route}
