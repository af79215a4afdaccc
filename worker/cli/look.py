"""``queue-core features`` and ``queue-core explain``: what a URL means, without connecting."""

from __future__ import annotations

import click

from queue_core import Connection
from queue_core.worker.cli.options import broker_or_word, json_option, print_json


@click.command()
@broker_or_word
@json_option
def features(broker: str, as_json: bool) -> None:
    """Show what the broker at URL can and cannot do. Does not connect."""
    with Connection(broker) as connection:
        rows = connection.features.describe()
        if as_json:
            print_json(
                broker=connection.url,
                features={name: can for name, (can, _) in rows.items()},
                words={name: words for name, (_, words) in rows.items()},
            )
            return
    width = max(len(name) for name in rows)
    for name, (can, words) in rows.items():
        click.echo(f"{name:<{width}}  {'yes' if can else 'no ':<3}  {words}")


@click.command()
@broker_or_word
def explain(broker: str) -> None:
    """Say in words what a broker URL means, password masked. Does not connect."""
    click.echo(Connection.explain(broker))


commands = {"features": features, "explain": explain}
