"""A node of a fleet: a counter that can be looked at, paused and ended from another machine.

Run it as often as you like, each with a name of its own, and then ``fleet_client.py``::

    python examples/fleet_node.py sqlite:///fleet.db web-1
    python examples/fleet_node.py sqlite:///fleet.db web-2
"""

import itertools
import socket
import sys
import threading
from typing import Any

from queue_core import Connection
from queue_core.mailbox import Mailbox, Panel

panel = Panel()


class Counter:
    """What this program does all day."""

    def __init__(self) -> None:
        self.count = 0
        self.running = threading.Event()
        self.running.set()

    def step(self) -> None:
        self.running.wait()
        self.count += 1


@panel.inspect_command
def stats(counter: Counter) -> dict[str, Any]:
    """How far the counter is, and whether it runs."""
    return {"count": counter.count, "running": counter.running.is_set()}


@panel.inspect_command
def next_steps(counter: Counter, count: int = 3) -> Any:
    """The numbers that come next, one by one."""
    yield from itertools.islice(itertools.count(counter.count), count)


@panel.control_command(journal=3600)
def pause(counter: Counter) -> str:
    """Stop counting. A node that starts within the next hour is paused too."""
    counter.running.clear()
    return "paused"


@panel.control_command(journal=3600)
def resume(counter: Counter) -> str:
    """Count on. The last word counts for nodes that start later."""
    counter.running.set()
    return "running"


@panel.control_command(kind="admin")
def shutdown(counter: Counter) -> None:
    """End the program; it answers first."""
    raise SystemExit("gone")


def main(url: str, name: str) -> None:
    """Count until somebody says shutdown."""
    counter = Counter()
    with Connection(url) as connection, Mailbox("fleet", connection) as box:
        with box.node(name, counter, panel=panel, labels={"role": "counter"}) as node:
            print(f"{name} is there", flush=True)
            while not node.wait(0.01):
                if counter.running.is_set():
                    counter.step()
    print(f"{name} has counted to {counter.count}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python fleet_node.py URL [NAME], such as sqlite:///fleet.db web-1")
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else socket.gethostname())
