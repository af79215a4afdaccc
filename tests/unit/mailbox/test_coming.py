"""What a node that comes is told by the others, where no store keeps their names."""

from collections import Counter

import pytest

from queue_core import Connection, Exchange
from queue_core.mailbox import LamportClock, Panel
from queue_core.mailbox.builtin import Profile, builtin_commands
from queue_core.mailbox.directory import PeerDirectory
from queue_core.mailbox.journal import Entry
from queue_core.mailbox.outbox import Outbox
from queue_core.mailbox.wire import Address
from queue_core.mailbox.wiring import Wiring
from queue_core.testing.clocks import FakeClock

ENTRY = {"method": "revoke", "arguments": {}, "ticket": "t", "destination": None}


class Talk:
    """Nodes that hear one another at once; those in ``silent`` do not answer any more."""

    def __init__(self, connection):
        self.connection = connection
        self.clock = FakeClock()
        self.panels = {}
        self.directories = {}
        self.silent = set()
        self.said = Counter()

    def come(self, name):
        directory = self.directories[name] = PeerDirectory(self.clock, self.tell_all)
        exchange = Exchange("test.pidbox", "fanout")
        wiring = Wiring(
            *(self.connection, "test", exchange, exchange, exchange, LamportClock(), self.clock),
            *(directory, ("json",), self.cast, Outbox(self.connection)),
        )
        node = Profile(name, None, {"role": name}, Panel(), "life")
        self.panels[name] = builtin_commands(
            node, wiring, lambda entry: True, lambda: None, lambda ticket: None
        )
        directory.join(name, node.labels)
        return directory

    def cast(self, name, method, arguments):
        self.said[method] += 1
        if name not in self.silent and (entry := self.panels[name].find(method)):
            entry.handler(None, **arguments)

    def tell_all(self, method, arguments):
        for name in list(self.panels):
            self.cast(name, method, arguments)


def test_a_few_of_many_nodes_tell_their_journal_to_one_that_comes():
    with Connection("memory://coming") as connection:
        talk = Talk(connection)
        for number in range(20):
            talk.come(f"n{number}")
        entry = Entry(ENTRY, {"clock": 1}, talk.clock.time() + 60)
        for directory in talk.directories.values():
            directory.record(entry)
        talk.said.clear()
        new = talk.come("new")
        assert [item.ticket for item in new.journal()] == ["t"]
        assert set(new.peers(Address())) == set(talk.panels)
        assert new.peers(Address(labels={"role": "n7"})) == ("n7",)
        assert talk.said["qc.told"] == 3
        assert all("new" in known.peers(Address()) for known in talk.directories.values())


def test_nodes_that_do_not_answer_any_more_are_not_those_that_are_asked():
    with Connection("memory://coming") as connection:
        talk = Talk(connection)
        for number in range(8):
            talk.come(f"n{number}")
        talk.directories["n7"].record(Entry(ENTRY, {"clock": 1}, talk.clock.time() + 60))
        talk.silent.update(f"n{number}" for number in range(7))
        assert [item.ticket for item in talk.come("new").journal()] == ["t"]


def test_a_node_that_came_before_tells_nothing_when_it_says_again_that_it_is_there():
    with Connection("memory://coming") as connection:
        talk = Talk(connection)
        first, second = talk.come("a"), talk.come("b")
        talk.said.clear()
        second.join("b", {}, again=True)
        assert set(talk.said) == {"qc.hello"}
        assert set(first.peers(Address())) == {"a", "b"}


def test_a_node_that_comes_is_known_although_it_could_not_be_told_so():
    with Connection("memory://coming") as connection:
        talk = Talk(connection)
        known = talk.come("a")
        hello = talk.panels["a"].find("qc.hello")
        with pytest.raises(KeyError):  # there is nobody to be told
            hello.handler(None, name="b", labels={})
        assert set(known.peers(Address())) == {"a", "b"}


def test_a_farewell_is_heard_where_commands_are_taken_so_that_no_later_hello_overtakes_it():
    with Connection("memory://coming") as connection:
        talk = Talk(connection)
        talk.come("a")
        assert talk.panels["a"].find("qc.bye").meta.concurrency == 0
