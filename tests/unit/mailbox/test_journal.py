"""Commands for nodes that come later, and where their names and those of the nodes are kept."""

import itertools

import msgspec
import pytest

from queue_core import Connection
from queue_core.mailbox import journal
from queue_core.mailbox.directory import PeerDirectory, SharedDirectory
from queue_core.mailbox.journal import MAX_ENTRIES, Entry, Journal, entry_of, read_entries
from queue_core.mailbox.wire import Address, Command, ReplyAddress
from queue_core.testing.clocks import FakeClock

numbers = itertools.count()


def entry(ticket, clock=1, until=100.0):
    command = Command("revoke", {"id": ticket}, ticket, reply_to=ReplyAddress("", "x"), clock=clock)
    return entry_of(command, until)


def test_entries_come_in_the_order_in_which_they_were_sent():
    journal = Journal([entry("b", 7), entry("a", 3), entry("c", 3)])
    assert [item.ticket for item in journal] == ["a", "c", "b"]


def test_an_entry_is_added_once_and_forgotten_when_it_is_over():
    journal = Journal()
    assert journal.add(entry("a", until=10), now=0)
    assert not journal.add(entry("a", until=99), now=0)
    assert not journal.add(entry("old", until=5), now=6)
    assert journal.add(entry("b", until=99), now=20)
    assert [item.ticket for item in journal.alive(now=20)] == ["b"]


def test_it_does_not_grow_without_bound():
    journal = Journal(entry(str(number), number) for number in range(MAX_ENTRIES + 5))
    assert journal.add(entry("new", MAX_ENTRIES + 9), now=0)
    assert len(list(journal)) == MAX_ENTRIES
    assert [item.ticket for item in journal][-1] == "new"


def test_adding_to_a_long_journal_does_not_put_it_in_order_each_time(monkeypatch):
    journal, looks = Journal(), []
    monkeypatch.setattr(Entry, "order", property(lambda self: looks.append(1) or (0, "")))
    for number in range(2000):
        journal.add(entry(str(number)), now=0)
    assert len(looks) <= 5 * 2000


def test_an_entry_is_the_command_without_the_caller():
    command = entry("a").command()
    assert (command.method, command.arguments, command.reply_to) == ("revoke", {"id": "a"}, None)


def test_commands_without_a_ticket_are_told_apart_by_what_they_say():
    """Celery's programs send none with a command that nobody answers."""

    def told(task, clock=1):
        return entry_of(Command("revoke", {"task_id": [task]}, "", clock=clock), 100.0)

    journal = Journal()
    assert journal.add(told("a"), 0) and journal.add(told("b"), 0)
    assert not journal.add(told("a"), 0)
    assert [item.command().arguments["task_id"] for item in journal] in (
        [["a"], ["b"]],
        [["b"], ["a"]],
    )
    assert told("a").ticket == told("a").ticket != told("a", 2).ticket


def test_what_is_no_entry_is_left_out_when_read():
    good = msgspec.to_builtins(entry("a"))
    assert [e.ticket for e in read_entries([good, 5, {}, {**good, "body": {}}])] == ["a"]
    assert read_entries("nonsense") == []


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=["shared", "peers"])
def directory(request, clock):
    if request.param == "peers":
        yield PeerDirectory(clock, lambda method, arguments: None)
    else:
        with Connection("memory://") as connection:
            yield SharedDirectory(lambda timeout: connection.key_value(), "test", clock)


def test_it_remembers_commands_once(directory, clock):
    now = clock.time()
    for ticket in ("b", "a", "b"):
        directory.record(entry(ticket, until=now + 60))
    assert [item.ticket for item in directory.journal()] == ["a", "b"]
    clock.advance(61)
    assert directory.journal() == []


def test_what_is_written_for_one_command_does_not_grow_with_the_journal(clock):
    class Counting:
        def __init__(self, store):
            self.key_get, self.sizes, self._set = store.key_get, [], store.key_set

        def key_set(self, key, value, **options):
            self.sizes.append(len(value))
            return self._set(key, value, **options)

    with Connection("memory://long-journal") as connection:
        store = Counting(connection.key_value())
        directory = SharedDirectory(lambda timeout: store, "test", clock)
        tickets = [f"{number:04}" for number in range(1000)]
        until = clock.time() + 600
        for number, ticket in enumerate(tickets):
            directory.record(entry(ticket, number, until=until))
        assert max(store.sizes) < 30_000
        assert sum(store.sizes) < 1000 * 15_000
        assert [item.ticket for item in directory.journal()] == tickets


def test_a_shared_journal_keeps_the_last_entries_and_those_that_last_longest(monkeypatch, clock):
    monkeypatch.setattr(journal, "MAX_ENTRIES", 200)
    with Connection("memory://parts") as connection:
        directory = SharedDirectory(lambda timeout: connection.key_value(), "test", clock)
        now = clock.time()
        for number in range(330):
            lasts = 600 if number % 10 == 0 else 10
            directory.record(entry(f"{number:04}", number, until=now + lasts))
        kept = [item.ticket for item in directory.journal()]
        assert len(kept) >= 200 and kept[-1] == "0329" and kept == sorted(kept)
        assert len(kept) < 330
        clock.advance(11)
        kept = directory.journal()
        assert kept and all(int(item.ticket) % 10 == 0 for item in kept)


def test_a_shared_directory_keeps_names_and_survives_damage():
    with Connection("memory://") as connection:
        store = connection.key_value()
        directory = SharedDirectory(lambda timeout: store, "test", FakeClock())
        directory.join("a", {"role": "web"})
        directory.join("b", {})
        directory.join("a", {"role": "web"}, again=True)
        assert directory.names() == {"a": {"role": "web"}, "b": {}}
        directory.leave("a", "never there")
        assert directory.names() == {"b": {}}
        store.key_set("qc.mailbox.test.nodes", b"\x00 not json")
        assert directory.names() == {}
        directory.join("c", {})
        assert directory.names() == {"c": {}}


@pytest.mark.parametrize("damage", [5, {}, {"until": "soon"}, {"body": {"method": ""}}])
def test_one_damaged_entry_of_a_shared_journal_loses_no_other(clock, damage):
    with Connection(f"memory://damaged-journal-{next(numbers)}") as connection:
        store, key = connection.key_value(), "qc.mailbox.test.journal"
        directory = SharedDirectory(lambda timeout: store, "test", clock)
        tickets = [f"{number:04}" for number in range(120)]
        for number, ticket in enumerate(tickets):
            directory.record(entry(ticket, number, until=clock.time() + 600))
        known = store.key_get(key)
        assert known is not None
        part = msgspec.json.decode(known.value)
        part["entries"].insert(1, damage)
        store.key_set(key, msgspec.json.encode(part))
        assert [item.ticket for item in directory.journal()] == tickets
        directory.record(entry("9999", 9999, until=clock.time() + 600))
        assert [item.ticket for item in directory.journal()] == [*tickets, "9999"]


def test_nodes_tell_one_another_what_they_know():
    told = []
    clock = FakeClock()
    old = PeerDirectory(clock, lambda method, arguments: told.append(method))
    new = PeerDirectory(clock, lambda method, arguments: told.append(method))
    old.join("a", {"role": "web"})
    old.record(entry("t", until=clock.time() + 60))
    new.join("b", {})
    new.learn(old.tell(), lambda entry: True)
    assert set(new.peers(Address())) == {"a", "b"}
    assert new.peers(Address(labels={"role": "web"})) == ("a",)
    assert [item.ticket for item in new.journal()] == ["t"]
    new.leave("b")
    assert told == ["qc.hello", "qc.hello", "qc.bye"]
    for nonsense in (None, [], {"nodes": 5}, {"nodes": {"a": 5}}, {"journal": {}}):
        new.learn(nonsense, lambda entry: True)
    assert set(new.peers(Address())) == {"a"}


def test_an_entry_that_was_changed_on_the_way_is_still_an_entry_only_if_it_is_a_command():
    assert read_entries([{"body": {"method": ""}, "headers": {}, "until": 1}]) == []
    assert isinstance(
        read_entries([{"body": {"method": "x"}, "headers": {}, "until": 1}])[0], Entry
    )
