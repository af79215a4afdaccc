"""The arguments of remote commands as a terminal has them: words, NAME=TEXT, NAME:=JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from queue_core.worker.cli.errors import USAGE, CommandError

_ARGUMENT = re.compile(r"(\w+)(:?=)(.*)", re.DOTALL)


def read_arguments(given: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """Return the named arguments and the others."""
    named: dict[str, Any] = {}
    words = []
    for item in given:
        match = _ARGUMENT.fullmatch(item)
        if match is None:
            words.append(item)
            continue
        name, sign, text = match.groups()
        if sign == "=":
            named[name] = text
            continue
        try:
            named[name] = json.loads(text)
        except json.JSONDecodeError as error:
            raise click.UsageError(f"{item!r}: what follows := is no JSON: {error}") from error
    return named, words


def check_kind(kind: str, found: dict[str, Any]) -> None:
    """Raise CommandError if ``inspect`` is about to change something."""
    if kind == "inspect" and found["kind"] != "inspect":
        raise CommandError(
            f"{found['name']} changes something, and inspect only looks",
            advice=f"queue-core control {found['signature']}",
            code=USAGE,
        )


def in_order(found: dict[str, Any], words: list[str], named: dict[str, Any]) -> dict[str, Any]:
    """Give words the names of those of the command's arguments that have no value yet."""
    order = [name for name in found["arguments"] if name not in named]
    variadic = found.get("variadic")
    if words and variadic in order:
        place = order.index(variadic)
        return {**dict(zip(order[:place], words, strict=False)), variadic: words[place:]}
    if len(words) > len(order):
        raise click.UsageError(f"too many words; it is called as: {found['signature']}")
    return dict(zip(order, words, strict=False))
