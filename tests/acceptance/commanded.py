"""A node for the tests of the command line: ``python commanded.py URL NAMESPACE NAME [SECRET]``.

It prints a line when it is there, and leaves when it is told to.
"""

import sys
import time
from typing import Any

from queue_core import Connection
from queue_core.mailbox import Mailbox, Panel, SigningKey

panel = Panel()


@panel.inspect_command
def add(notes: list[str], x: int, y: int = 1) -> int:
    """Add two numbers."""
    return x + y


@panel.inspect_command(concurrency=4)
def count(notes: list[str], upto: int, pause: float = 0.0) -> Any:
    """Count, number by number."""
    for number in range(upto):
        yield number
        time.sleep(pause)


@panel.inspect_command
def noted(notes: list[str]) -> list[str]:
    """What was noted."""
    return notes


@panel.inspect_command
def paint(notes: list[str]) -> str:
    """Answer with what a terminal would obey."""
    return "\x1b[31mred\x9b0m"


@panel.inspect_command
def fail(notes: list[str]) -> None:
    """Fail."""
    raise ValueError("as\nasked \x1b[31m")


@panel.control_command(variadic="words")
def note(notes: list[str], place: str, words: list[str]) -> int:
    """Note some words."""
    notes.extend(f"{place}: {word}" for word in words)
    return len(notes)


@panel.control_command(kind="admin")
def shutdown(notes: list[str]) -> None:
    """Leave."""
    raise SystemExit("gone")


def main(url: str, namespace: str, name: str, secret: str = "") -> None:
    keys = [SigningKey("ops", secret)] if secret else []
    labels = {"role": name.partition("-")[0]}
    with Connection(url, lease=60) as connection, Mailbox(namespace, connection, keys=keys) as box:
        with box.node(name, [], panel=panel, labels=labels) as node:
            print(f"{name} is there", flush=True)
            node.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
