"""How ``inspect``, ``control``, ``nodes`` and ``status`` print what nodes answered, and end.

Values go to stdout, and why a node gave none to stderr; as JSON all of it is in one object on
stdout. Nodes stand in the order of their names. What they sent is made printable: a terminal would
obey it.
"""

from __future__ import annotations

import json
from typing import Any, Final

import click

from queue_core.mailbox import Answers
from queue_core.worker.cli.errors import FAILED, NOTHING, PARTLY, REFUSED, CommandError
from queue_core.worker.cli.options import print_json, printable

WIDTH: Final = 100
"""Answers up to so long stay on one line."""


def described(told: Any) -> list[dict[str, Any]]:
    """Return the commands that a node told, if it told them as our nodes do."""
    fields = {"name", "kind", "signature", "help", "arguments"}
    if not isinstance(told, list):
        return []
    return [item for item in told if isinstance(item, dict) and fields <= item.keys()]


def commands_of(kind: str, told: Answers) -> list[dict[str, Any]]:
    """Return the commands that nodes told for ``inspect`` or ``control``, in their order."""
    kinds = ("inspect",) if kind == "inspect" else ("control", "admin")
    found = {
        command["name"]: command
        for commands in told.values()
        for command in described(commands)
        if command["kind"] in kinds
    }
    return [command for _, command in sorted(found.items())]


def print_commands(kind: str, told: Answers, place: dict[str, str] | None) -> None:
    """Print the commands that nodes have; as JSON if ``place`` is given."""
    ordered = commands_of(kind, told)
    if place is not None:
        print_json(**place, commands=ordered)
        return
    width = max((len(command["signature"]) for command in ordered), default=0)
    for command in ordered:
        click.echo(printable(f"{command['signature']:<{width}}  {command['help']}".rstrip()))
    _print_silent(told)


def print_answers_json(answers: Answers, method: str, place: dict[str, str]) -> None:
    """Print everything in one object."""
    print_json(
        **place,
        method=method,
        answers=dict(sorted(answers.items())),
        partial=answers.partial,
        errors={node: str(error) for node, error in sorted(answers.errors.items())},
        refused=answers.refused,
        expired=sorted(answers.expired),
        missing=sorted(answers.missing),
        unknown=sorted(answers.unknown),
    )


def print_answers(answers: Answers) -> None:
    """Print a line, or some, for each node."""
    for node, value in sorted(answers.items()):
        _print_value(node, value)
    for node, items in sorted(answers.partial.items()):
        _print_value(f"{node} (not all of it)", items)
    for node, error in sorted(answers.errors.items()):
        click.echo(printable(f"{node}: failed: {error}"), err=True)
    for node, why in sorted(answers.refused.items()):
        click.echo(printable(f"{node}: refused: {why}"), err=True)
    _print_silent(answers)


def _print_value(node: str, value: Any) -> None:
    """Print what a node answered: on one line if it fits, and a text of several lines as such."""
    said = value["ok"] if isinstance(value, dict) and value.keys() == {"ok"} else value
    if isinstance(said, str) and "\n" in said:
        text = "\n  ".join([f"{node}:", *said.splitlines()])
    elif len(text := f"{node}: {json.dumps(value, ensure_ascii=False)}") > WIDTH:
        text = f"{node}: {json.dumps(value, ensure_ascii=False, indent=2)}"
    click.echo("\n".join(printable(line) for line in text.splitlines()))


def _print_silent(answers: Answers) -> None:
    for words, group in (
        ("got it too late and did not do it", answers.expired),
        ("did not answer in time", answers.missing),
        ("is no node here", answers.unknown),
    ):
        for node in sorted(group):
            click.echo(printable(f"{node}: {words}"), err=True)


def nobody(place: dict[str, str], *, picked: bool = False) -> CommandError:
    """Return the error that there is no node, or none of those that were picked."""
    return CommandError(
        f"there is no {'such ' if picked else ''}node in the namespace {place['namespace']!r} at "
        f"{place['broker']}",
        advice="queue-core nodes lists the nodes; -N names another namespace",
        code=NOTHING,
    )


def end(
    answers: Answers, place: dict[str, str], *, first: int | None = None, picked: bool = False
) -> None:
    """End with the code that says how many answered; return if all did.

    With ``first`` so many are enough; ``picked`` says that not all nodes were meant.
    """
    if not (answers.heard or answers.partial):
        if answers.missing:
            raise CommandError(
                "no node answered in time", advice="a longer wait: -t 10s", code=NOTHING
            )
        raise nobody(place, picked=picked)
    if answers.complete and len(answers) >= (first or 0):
        return
    if answers or answers.missing or answers.unknown:
        raise click.exceptions.Exit(PARTLY)
    raise click.exceptions.Exit(REFUSED if len(answers.refused) == len(answers.heard) else FAILED)
