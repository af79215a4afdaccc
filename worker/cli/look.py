"""``queue-core features`` and ``queue-core explain``: what a URL means, without connecting."""

from __future__ import annotations

import click

from queue_core import Connection


@click.command()
@click.argument("url", envvar="QUEUE_CORE_URL")
def features(url: str) -> None:
    """Show what the broker at URL can and cannot do. Does not connect."""
    with Connection(url) as connection:
        rows = connection.features.describe()
    width = max(len(name) for name in rows)
    for name, (can, words) in rows.items():
        click.echo(f"{name:<{width}}  {'yes' if can else 'no ':<3}  {words}")


@click.command()
@click.argument("url", envvar="QUEUE_CORE_URL")
def explain(url: str) -> None:
    """Say in words what a broker URL means, password masked. Does not connect."""
    click.echo(Connection.explain(url))


commands = {"features": features, "explain": explain}
