"""Edits of the topology table: what is refused, what is removed with what, and a random history."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.emulation import edits, entries
from queue_core.emulation.edits import Draft, Unread
from queue_core.emulation.entries import ExchangeEntry, QueueEntry, q, x
from queue_core.emulation.routing import Known
from queue_core.errors import AccessRefused, QueueNotFound, TopologyMismatch
from queue_core.topology import Binding, Exchange, Queue

T = TypeVar("T")


class Board:
    """A table in memory that runs edits as `Table.edit` does."""

    def __init__(self) -> None:
        self.entries: dict[str, ExchangeEntry | QueueEntry] = {}
        self.versions: dict[str, int] = {}
        self.dropped: list[str] = []
        self.count = 0

    def run(self, change: Callable[[Draft], T]) -> T:
        names: set[str] = set()
        while True:
            draft = Draft({name: self._known(name) for name in names})
            try:
                result = change(draft)
            except Unread as error:
                assert error.names - names, "an edit asks again for what it got"
                names |= error.names
                continue
            for item in draft.changes():
                self.count += 1
                if item.value is None:
                    del self.entries[item.name]
                else:
                    self.entries[item.name] = entries.decode(item.name, item.value)
                    self.versions[item.name] = self.count
            self.dropped += draft.dropped
            return result

    def _known(self, name: str) -> Known:
        entry = self.entries.get(name)
        if isinstance(entry, ExchangeEntry):
            return Known(self.versions[name], exchange=entry)
        if isinstance(entry, QueueEntry):
            return Known(self.versions[name], queue=entry)
        return Known(0)

    def exchange(self, name: str, **options: Any) -> None:
        self.run(lambda draft: edits.declare_exchange(draft, Exchange(name, **options)))

    def queue(self, name: str, *, session: str = "me", **options: Any) -> QueueEntry:
        queue = Queue(name, **options)
        return self.run(lambda draft: edits.declare_queue(draft, queue, uid="u", session=session))

    def bind(self, source: str, to: str, key: str = "", **options: Any) -> None:
        binding = Binding(source, to, key, **options)
        self.run(lambda draft: edits.bind(draft, binding, session="me"))

    def unbind(self, source: str, to: str, key: str = "", **options: Any) -> bool:
        binding = Binding(source, to, key, **options)
        return self.run(lambda draft: edits.unbind(draft, binding, session="me"))

    def check(self) -> None:
        """Every binding has its back reference and leads somewhere, and the other way round."""
        there, back = set(), set()
        for name, entry in self.entries.items():
            back |= {(x(source), name) for source in entry.sources}
            if isinstance(entry, ExchangeEntry):
                there |= {(name, binding.target) for binding in entry.bindings}
        assert there == back
        assert all(source in self.entries and to in self.entries for source, to in there)


@pytest.fixture
def board() -> Board:
    return Board()


def test_declaring_twice_changes_nothing(board: Board) -> None:
    board.exchange("e", type="topic")
    board.queue("q", exchange="e", routing_key="k", max_length=3)
    before = board.count
    board.exchange("e", type="topic")
    board.queue("q", exchange="e", routing_key="k", max_length=3)
    assert board.count == before


def test_another_definition_is_refused_and_both_sides_are_named(board: Board) -> None:
    board.exchange("e", type="topic")
    with pytest.raises(TopologyMismatch, match="type is 'topic' there and 'fanout' here"):
        board.exchange("e", type="fanout")
    board.queue("q", max_length=3)
    with pytest.raises(TopologyMismatch, match="max_length is 3 there and None here"):
        board.queue("q")


def test_what_a_client_says_about_queue_type_or_bindings_is_no_difference(board: Board) -> None:
    board.exchange("e")
    board.queue("q", exchange="e", routing_key="one")
    board.queue("q", exchange="e", routing_key="two", queue_type="classic")
    entry = board.entries[x("e")]
    assert isinstance(entry, ExchangeEntry)
    assert [item.routing_key for item in entry.bindings] == ["one", "two"]


def test_a_queue_brings_the_exchanges_that_it_holds(board: Board) -> None:
    board.queue("q", exchange=Exchange("e"), dead_letter_exchange=Exchange("dlx", type="fanout"))
    assert set(board.entries) == {x("e"), x("dlx"), q("q")}
    board.check()


def test_an_exchange_that_a_queue_only_names_must_exist(board: Board) -> None:
    with pytest.raises(QueueNotFound, match="dead-letter exchange 'dlx'"):
        board.queue("q", dead_letter_exchange="dlx")
    with pytest.raises(QueueNotFound, match="exchange 'e'"):
        board.queue("q", exchange="e")
    assert board.entries == {}


def test_the_default_exchange_is_a_dead_letter_exchange(board: Board) -> None:
    entry = board.queue("q", dead_letter_exchange="")
    assert entry.dead_letter_exchange == ""


def test_an_exclusive_queue_is_refused_to_others(board: Board) -> None:
    board.exchange("e")
    board.queue("q", session="owner", exclusive=True)
    board.queue("q", session="owner", exclusive=True)
    with pytest.raises(AccessRefused, match="exclusive"):
        board.queue("q", session="other", exclusive=True)
    with pytest.raises(AccessRefused):
        board.bind("e", "q")


def test_a_queue_that_deletes_itself_gets_a_new_version_by_each_declaration(board: Board) -> None:
    for options in ({"expires": 5.0}, {"auto_delete": True}):
        board.queue("q", **options)
        before = board.versions[q("q")]
        board.queue("q", **options)
        assert board.versions[q("q")] > before
        board.run(lambda draft: edits.delete_queue(draft, "q"))


def test_deleting_a_queue_removes_its_bindings_and_messages(board: Board) -> None:
    board.exchange("e")
    board.exchange("f")
    board.queue("q", exchange="e")
    board.bind("e", "q", "more")
    board.bind("f", "q")
    assert board.run(lambda draft: edits.delete_queue(draft, "q"))
    assert board.dropped == ["q"]
    assert set(board.entries) == {x("e"), x("f")}
    board.check()
    assert not board.run(lambda draft: edits.delete_queue(draft, "q"))


def test_deleting_an_exchange_removes_bindings_in_both_directions(board: Board) -> None:
    for name in "abc":
        board.exchange(name)
    board.queue("q", exchange="b")
    board.bind("a", "b", destination_type="exchange")
    board.bind("b", "c", destination_type="exchange")
    board.bind("b", "b", destination_type="exchange")
    assert board.run(lambda draft: edits.delete_exchange(draft, "b"))
    assert set(board.entries) == {x("a"), x("c"), q("q")}
    board.check()


def test_an_auto_delete_exchange_goes_with_its_last_binding_and_takes_others_along(
    board: Board,
) -> None:
    board.exchange("far", auto_delete=True)
    board.exchange("near", auto_delete=True)
    board.queue("q", exchange="near")
    board.bind("near", "q", "two")
    board.bind("far", "near", destination_type="exchange")
    assert board.unbind("near", "q", "two")
    assert x("near") in board.entries
    assert board.unbind("near", "q")
    assert set(board.entries) == {q("q")}
    board.check()


def test_an_auto_delete_exchange_that_never_had_a_binding_stays(board: Board) -> None:
    board.exchange("e", auto_delete=True)
    assert not board.unbind("e", "q")
    assert x("e") in board.entries


def test_bindings_with_other_arguments_are_other_bindings(board: Board) -> None:
    board.exchange("e", type="headers")
    board.queue("q")
    board.bind("e", "q", arguments={"a": (1, 2)})
    board.bind("e", "q", arguments={"a": [1, 2]})
    board.bind("e", "q", arguments={"a": 1})
    entry = board.entries[x("e")]
    assert isinstance(entry, ExchangeEntry)
    assert len(entry.bindings) == 2
    assert board.unbind("e", "q", arguments={"a": [1, 2]})
    board.check()


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.one_of(
    st.tuples(st.just("exchange"), NAMES, st.booleans()),
    st.tuples(st.just("queue"), NAMES, NAMES),
    st.tuples(st.just("bind"), NAMES, NAMES, st.sampled_from(["queue", "exchange"])),
    st.tuples(st.just("unbind"), NAMES, NAMES, st.sampled_from(["queue", "exchange"])),
    st.tuples(st.just("delete_queue"), NAMES),
    st.tuples(st.just("delete_exchange"), NAMES),
)


@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_bindings_and_back_references_agree(steps: list[tuple[Any, ...]]) -> None:
    board = Board()
    for kind, *arguments in steps:
        try:
            if kind == "exchange":
                board.exchange(arguments[0], auto_delete=arguments[1])
            elif kind == "queue":
                board.queue(arguments[0], exchange=arguments[1])
            elif kind == "bind":
                board.bind(arguments[0], arguments[1], destination_type=arguments[2])
            elif kind == "unbind":
                board.unbind(arguments[0], arguments[1], destination_type=arguments[2])
            elif kind == "delete_queue":
                board.run(partial(edits.delete_queue, name=arguments[0]))
            else:
                board.run(partial(edits.delete_exchange, name=arguments[0]))
        except (QueueNotFound, TopologyMismatch):
            pass
        board.check()
