"""Readers for option values that several commands have."""

from __future__ import annotations

from collections.abc import Iterable

import click

from queue_core import ConfigError, Queue
from queue_core.worker.suggestions import did_you_mean
from queue_core.worker.units import bytes_of, seconds_of

DAY = 86400.0


class OneOf(click.Choice[str]):
    """One of several words; a wrong one is told the nearest."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """Return what a person reads."""
        known = [str(choice) for choice in self.choices]
        there = f"there are {', '.join(known)}"
        return f"{value!r} is not there; {did_you_mean(str(value), known, there)}"


def one_of(words: Iterable[str]) -> OneOf:
    """Return the type of an option that is one of these words."""
    return OneOf(list(words))


def duration(value: str) -> float:
    """Read ``30``, ``250ms``, ``10s``, ``5m`` or ``2h`` as seconds."""
    seconds = seconds_of(value)
    if seconds is None:
        raise click.BadParameter(f"{value!r} is no duration; write 250ms, 10s, 5m or 2h")
    return seconds


def patience(value: str) -> float:
    """Read a duration to wait for something: more than nothing, at most a day."""
    seconds = duration(value)
    if not 0 < seconds <= DAY:
        raise click.BadParameter(f"{value!r} is no time to wait; write 1s, for example")
    return seconds


def size(value: str) -> int:
    """Read ``500M``, ``2G`` or ``300000K`` as bytes."""
    found = bytes_of(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no size; write 500M or 2G")
    return found


def some_name(value: str) -> str:
    """Read a name."""
    if not value:
        raise click.BadParameter("a name is not empty")
    return value


def queue_name(value: str) -> str:
    """Read the name of a queue, whoever made it."""
    if len(some_name(value).encode()) > 255:
        raise click.BadParameter(f"{value[:40]!r}... is longer than the 255 bytes of a name")
    return value


def queue_names(value: str) -> tuple[str, ...]:
    """Read names of queues of ours, separated by commas."""
    read = names(value)
    for name in read:
        try:
            Queue(name)
        except ConfigError as error:
            raise click.BadParameter(str(error)) from None
    return read


def names(value: str) -> tuple[str, ...]:
    """Read names separated by commas."""
    read = tuple(name.strip() for name in value.split(","))
    if not all(read):
        raise click.BadParameter(f"{value!r} has an empty name in it")
    return read
