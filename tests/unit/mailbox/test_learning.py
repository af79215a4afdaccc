"""What a node takes over from the journal that another one tells, and what it does not."""

from collections import Counter

import msgspec
import pytest

from queue_core import Connection, Exchange
from queue_core.mailbox import LamportClock, Panel, SigningKey
from queue_core.mailbox.builtin import Profile
from queue_core.mailbox.directory import PeerDirectory
from queue_core.mailbox.journal import entry_of
from queue_core.mailbox.outbox import Outbox
from queue_core.mailbox.reception import Reception
from queue_core.mailbox.runner import Runner
from queue_core.mailbox.signing import Guard
from queue_core.mailbox.wire import Command
from queue_core.mailbox.wiring import Wiring
from queue_core.testing.clocks import FakeClock

OPS = SigningKey("ops", "the secret of the operators")
LASTS = 3600.0


class Newcomer:
    """A node that has just come, and what it has revoked."""

    def __init__(self, connection, clock):
        panel = Panel()
        panel.register(self.revoke, name="revoke", kind="control", journal=LASTS)
        self.revoked = []
        self.directory = PeerDirectory(clock, lambda method, arguments: None)
        exchange = Exchange("test.pidbox", "fanout")
        wiring = Wiring(
            *(connection, "test", exchange, exchange, exchange, LamportClock(), clock),
            *(self.directory, ("json",), lambda name, method, arguments: None, Outbox(connection)),
        )
        node = Profile("new", None, {}, panel, "life")
        guard, runner = Guard({"ops": OPS}, clock), Runner("test")
        self.reception = Reception(node, wiring, guard, runner, Counter(), lambda: None)

    def revoke(self, state, task: str) -> None:
        self.revoked.append(task)

    def hear(self, *entries):
        told = {"journal": [msgspec.to_builtins(entry) for entry in entries]}
        self.reception.find("qc.told").handler(None, told=told)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def node(clock):
    with Connection("memory://learning") as connection:
        yield Newcomer(connection, clock)


@pytest.fixture
def true(clock):
    command = OPS.sign(Command("revoke", {"task": "a"}, "ticket", clock=7), clock)
    return entry_of(command, clock.time() + LASTS)


@pytest.mark.parametrize("how", ["other words", "for ever"])
def test_what_a_stranger_made_of_an_entry_does_not_keep_the_true_one_away(node, clock, true, how):
    forged = msgspec.structs.replace(true, until=clock.time() + 1e9)
    if how == "other words":
        forged = msgspec.structs.replace(true, body={**true.body, "arguments": {"task": "b"}})
    node.hear(forged)
    assert node.revoked == [] and node.directory.journal() == []
    node.hear(forged, true)
    node.hear(true)
    assert node.revoked == ["a"]
    assert node.directory.journal() == [true]


def test_a_node_whose_clock_is_a_little_behind_learns_all_the_same(node, clock, true):
    clock.step(-5)
    node.hear(true)
    assert node.revoked == ["a"]
