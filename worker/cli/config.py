"""``queue-core config``: which settings count, and where each was said."""

from __future__ import annotations

from collections.abc import Mapping

import click

from queue_core import counted
from queue_core.worker.app_settings import Settled
from queue_core.worker.celery_settings import why_needless
from queue_core.worker.cli.options import app_option, config_option, json_option, print_json
from queue_core.worker.configuration import (
    Configuration,
    Level,
    masked,
    misspelt_variables,
    shown,
    surroundings,
)
from queue_core.worker.locate import find_app


@click.group()
def config() -> None:
    """Show the settings of an app, or check them."""


@config.command("show")
@app_option
@config_option
@click.option("--origin", is_flag=True, help="With the place where each was said.")
@click.option("--all", "everything", is_flag=True, help="With those that nobody mentioned.")
@json_option
def show(app: str | None, origin: bool, everything: bool, as_json: bool) -> None:
    """Show the settings that count. Passwords are masked; nothing is connected."""
    settled = _settled(app)
    rows = [row for row in shown(settled.settings, settled.origins) if everything or row[2]]
    if as_json:
        print_json(
            settings={name: {"value": value, "origin": where} for name, value, where in rows},
            needless={one.name: why_needless(one.name) for one in settled.needless},
        )
        return
    if not rows and not settled.needless:
        click.echo("nothing was said; --all shows what is usual, -A what an app says", err=True)
    for name, value, where in rows:
        click.echo(f"{name} = {value}" + (f"    # {where or 'default'}" if origin else ""))
    for one in settled.needless:
        said = f" ({one.where})" if origin else ""
        click.echo(f"# {one.name} = {masked(one.value)}{said} is not needed: {_why(one.name)}")


@config.command("check")
@app_option
@config_option
def check(app: str | None) -> None:
    """Read all settings, and end with 0 if they can be used; with -A also those of an app.

    Then also the modules with tasks are imported, and the queues of all routes are looked up.
    """
    settled = _settled(app)
    if app is not None:
        for rule in settled.rules.router.rules:
            if rule.key and isinstance(rule.says, Mapping) and rule.says.get("queue"):
                with settled.explaining("task_routes"):
                    settled.rules.queues.find(rule.says["queue"])
    for name, near in misspelt_variables():
        click.echo(f"warning: {name} is no setting; did you mean {near}?", err=True)
    for one in settled.needless:
        click.echo(f"{one.name} ({one.where}) is not needed: {_why(one.name)}")
    click.echo(f"ok: {counted(len(settled.origins), 'setting')}")


def _settled(app: str | None) -> Settled:
    if app is not None:
        return find_app(app).settled
    configuration = Configuration()
    for level, given in zip((Level.FILE, Level.VARIABLE), surroundings(), strict=True):
        configuration.say(level, given)
    return Settled(configuration, lambda _name: {})


def _why(name: str) -> str:
    return why_needless(name)


commands = {"config": config}
