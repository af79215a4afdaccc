"""Mailboxes and nodes on each transport, and the commands of the nodes in these tests."""

import itertools
import time
import uuid
from asyncio import CancelledError

import pytest

from queue_core import (
    Connection,
    Deadline,
    Exchange,
    SystemClock,
)
from queue_core.mailbox import Mailbox, Panel
from queue_core.mailbox.wire import ReplyAddress

WAIT = 10.0


@pytest.fixture
def namespace():
    return f"qc-test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def open_box(any_url, namespace):
    """Make mailboxes, each on a connection of its own as if it were another machine."""
    opened = []

    def make(**options):
        connection = Connection(any_url, lease=10)
        box = Mailbox(namespace, connection, **options)
        opened.append((connection, box))
        return box

    yield make
    for connection, box in reversed(opened):
        box.close()
        connection.close()
    with Connection(any_url) as connection:
        for name in (
            f"{namespace}.pidbox",
            f"{namespace}.pidbox.peers",
            f"reply.{namespace}.pidbox",
        ):
            connection.delete(Exchange(name, durable=False))


@pytest.fixture
def fleet():
    """The commands of the nodes in these tests."""
    panel = Panel()

    @panel.inspect_command
    def ping(state):
        return "pong"

    @panel.inspect_command
    def add(state, x: int, y: int = 1):
        return x + y

    @panel.inspect_command(concurrency=8)
    def nap(state, seconds: float):
        time.sleep(seconds)
        return seconds

    @panel.inspect_command(concurrency=2)
    def wait_for_gate(state):
        state["waiting"] = state.get("waiting", 0) + 1
        state["gate"].wait(WAIT)
        return "open"

    @panel.inspect_command
    def fail(state):
        raise LookupError("nothing there")

    @panel.inspect_command
    def cancel(state):
        raise CancelledError("no Exception, but raised all the same")

    @panel.inspect_command
    def numbers(state, count: int):
        yield from range(count)

    @panel.inspect_command(concurrency=4)
    def ticks(state, step: float = 0.02):
        try:
            for number in itertools.count():
                yield number
                time.sleep(step)
        finally:
            state["closed"] = state.get("closed", 0) + 1

    @panel.inspect_command
    def secret(state):
        return {1, 2, object()}

    @panel.inspect_command
    def late_by_its_step(state):
        time.sleep(state["step"])

    @panel.inspect_command
    def letters(state, count: int):
        return "x" * count

    @panel.inspect_command
    def hang(state):
        state["hanging"] = True
        state["gate"].wait(60)

    @panel.inspect_command
    def large(state):
        return "x" * (70 * 1024 * 1024)

    @panel.control_command(journal=600)
    def revoke(state, task_id: str):
        state.setdefault("revoked", []).append(task_id)
        return "ok"

    @panel.control_command(kind="admin")
    def shutdown(state):
        raise SystemExit("bye")

    return panel


@pytest.fixture
def start(open_box, fleet):
    """Start nodes; each has a mailbox and a state of its own."""

    def run(name, **options):
        box_options = {key: options.pop(key) for key in ("keys", "key", "time") if key in options}
        box = open_box(**box_options)
        return box.node(name, options.pop("state", {}), panel=fleet, **options).start()

    return run


@pytest.fixture
def box(open_box):
    return open_box()


@pytest.fixture
def hears_at():
    """Where answers reach a mailbox."""

    def where(box):
        queue = box._replies.open(Deadline.after(WAIT, SystemClock()))
        return ReplyAddress("", queue.name)

    return where
