"""``queue-core db``: the tables of a broker that is a database.

A program that opens such a broker makes the tables, or adds what an older version lacks, by itself.
These commands are for those who want to do it at a moment of their own, with a user who may: put
``upgrade=false`` into the programs' URL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from queue_core import Connection, Schema
from queue_core.worker.cli.errors import CommandError
from queue_core.worker.cli.options import broker_or_word, json_option, print_json, timeout_option

C = TypeVar("C", bound=Callable[..., Any])


def _options(command: C) -> C:
    return broker_or_word(json_option(timeout_option("10s", "How long to connect.")(command)))


@click.group()
def db() -> None:
    """Look at the tables of a database broker, and make or upgrade them.

    Exit code 76 if the tables are not ours or of another major version, 69 if the database cannot
    be reached, 77 if it refuses, 78 if the URL is wrong or the broker is no database.
    """


@db.command()
@_options
def version(broker: str, as_json: bool, timeout: float) -> None:
    """Show which version the tables have, and which one this queue_core wants."""
    _show(Connection.schema(broker, timeout=timeout), as_json)


@db.command()
@_options
def check(broker: str, as_json: bool, timeout: float) -> None:
    """Exit with 1 if there is something to make or to upgrade. Changes nothing."""
    found = Connection.schema(broker, timeout=timeout)
    if found.current or as_json:
        _show(found, as_json)
    if not found.current:
        raise CommandError(str(found), advice="queue-core db upgrade -b URL")


@db.command()
@_options
def upgrade(broker: str, as_json: bool, timeout: float) -> None:
    """Make the tables, or add what they lack.

    Programs may go on meanwhile, several may do it at once, and one that was interrupted is simply
    run again.
    """
    _show(Connection.schema(broker, upgrade=True, timeout=timeout), as_json)


def _show(found: Schema, as_json: bool) -> None:
    has = _number(found.found)
    if as_json:
        wanted = _number(found.wanted)
        print_json(database=found.place, found=has, wanted=wanted, current=found.current)
        return
    click.echo(f"database    {found.place}")
    click.echo(f"tables      {has or 'none'}")
    click.echo(f"queue_core  {_number(found.wanted)}")


def _number(version: tuple[int, int] | None) -> str | None:
    return None if version is None else f"{version[0]}.{version[1]}"


commands = {"db": db}
