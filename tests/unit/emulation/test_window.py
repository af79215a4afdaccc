"""Windows: the prefetch holds at every step, and each settlement becomes certain exactly once."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from queue_core.emulation.stored import READER
from queue_core.emulation.window import Flight, Window
from queue_core.message import Action, Delivery, Settlement


def settlement(token: int, action: Action = "ack") -> Settlement:
    return Settlement(Delivery("c", "q", "", "q", b"", b"", READER, token), action)


def window(prefetch: int, *held: int) -> Window:
    made = Window("q", prefetch)
    made.held.update(held)
    return made


def test_room_is_what_is_not_held() -> None:
    assert window(3, 1).room() == 2
    assert window(1, 1).room() == 0


def test_a_pending_ack_takes_no_room_but_a_pending_requeue_does() -> None:
    one = window(2, 1, 2)
    one.settle(settlement(1))
    assert one.room() == 1
    one.settle(settlement(2, "requeue"))
    assert one.room() == 1


def test_an_ack_in_flight_by_itself_takes_room_until_it_is_certain() -> None:
    one = window(1, 1)
    one.settle(settlement(1))
    flight = one.take_acks(riding=False)
    assert flight is not None
    assert one.room() == 0
    assert one.acked(flight, []) == 0
    assert one.room() == 1


def test_settling_what_is_not_held_is_said() -> None:
    one = window(2, 1)
    assert one.settle(settlement(1))
    assert not one.settle(settlement(1))
    assert not one.settle(settlement(9))


def test_a_stale_ack_is_counted_unless_its_first_try_had_no_answer() -> None:
    one = window(5, 1, 2)
    one.settle(settlement(1))
    first = one.take_acks(riding=True)
    assert first is not None
    one.failed(first, [1])
    one.settle(settlement(2))
    second = one.take_acks(riding=False)
    assert second is not None
    assert second.acks == [1, 2]
    assert one.acked(second, [1, 2, 99]) == 1
    assert one.room() == 5
    assert not one.unsure


def test_verdicts_become_certain_one_by_one() -> None:
    one = window(3, 1, 2, 3)
    for token in (1, 2, 3):
        one.settle(settlement(token, "reject"))
    flight = one.take_verdicts()
    assert flight is not None
    assert one.judged(flight, flight.verdicts[0], stale=True) == 1
    one.failed(flight, [2])
    assert one.room() == 1
    again = one.take_verdicts()
    assert again is not None
    assert [item.delivery.token for item in again.verdicts] == [2, 3]
    assert one.judged(again, again.verdicts[0], stale=True) == 0
    assert one.judged(again, again.verdicts[0], stale=True) == 1
    assert one.room() == 3


def test_half_a_window_of_acks_is_urgent() -> None:
    one = window(4, 1, 2)
    one.settle(settlement(1))
    assert not one.urgent
    one.settle(settlement(2))
    assert one.urgent


class WindowMachine(RuleBasedStateMachine):
    """A window against a store that keeps a set of claimed tokens and loses replies."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window("q", 3)
        self.claimed: set[int] = set()
        self.flights: list[Flight] = []
        self.tokens = 0
        self.stolen: set[int] = set()
        self.late = 0

    @rule(lost=st.booleans(), effect=st.booleans())
    def claim(self, lost: bool, effect: bool) -> None:
        """Acks ride along; a lost reply is repeated at once with the same request."""
        flight = self.window.take_acks(riding=True)
        room = self.window.room()
        stale = []
        if flight is not None:
            stale = [token for token in flight.acks if token not in self.claimed]
        if not lost or effect:
            self.claimed -= set(flight.acks if flight else ())
        if flight is not None:
            if lost:
                self.window.failed(flight, list(flight.acks))
            else:
                self.late += self.window.acked(flight, stale)
        if not lost or effect:
            new = range(self.tokens, self.tokens + room)
            self.tokens += room
            self.claimed.update(new)
            self.window.held.update(new)

    @precondition(lambda self: self.window.held)
    @rule(data=st.data(), action=st.sampled_from(["ack", "requeue", "reject"]))
    def settle(self, data: st.DataObject, action: Action) -> None:
        token = data.draw(st.sampled_from(sorted(self.window.held)))
        assert self.window.settle(settlement(token, action))

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def steal(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.claimed)))
        self.claimed.remove(token)
        self.stolen.add(token)

    @rule(acks=st.booleans())
    def depart(self, acks: bool) -> None:
        take = self.window.take_verdicts
        flight = self.window.take_acks(riding=False) if acks else take()
        if flight is not None:
            self.flights.append(flight)

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), lost=st.booleans(), effect=st.booleans())
    def land(self, data: st.DataObject, lost: bool, effect: bool) -> None:
        flight = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
        tokens = flight.acks + [item.delivery.token for item in flight.verdicts]
        stale = [token for token in tokens if token not in self.claimed]
        if not lost or effect:
            self.claimed -= set(tokens)
        if lost:
            self.window.failed(flight, tokens)
            return
        if flight.acks:
            self.late += self.window.acked(flight, stale)
        for verdict in list(flight.verdicts):
            self.late += self.window.judged(flight, verdict, stale=verdict.delivery.token in stale)

    @invariant()
    def the_store_never_counts_more_than_the_prefetch(self) -> None:
        assert len(self.claimed) <= self.window.prefetch

    @invariant()
    def nothing_is_called_late_that_nobody_stole(self) -> None:
        assert self.late <= len(self.stolen)

    def teardown(self) -> None:
        """In the end everything is certain and the window is empty."""
        while self.flights:
            flight = self.flights.pop()
            tokens = flight.acks + [item.delivery.token for item in flight.verdicts]
            self.window.failed(flight, tokens)
        for token in sorted(self.window.held):
            self.window.settle(settlement(token))
        acks, verdicts = self.window.take_acks(riding=False), self.window.take_verdicts()
        if acks is not None:
            self.claimed -= set(acks.acks)
            self.window.acked(acks, [])
        if verdicts is not None:
            for verdict in list(verdicts.verdicts):
                self.claimed.discard(verdict.delivery.token)
                self.window.judged(verdicts, verdict, stale=False)
        assert not self.claimed
        assert self.window.room() == self.window.prefetch
        assert not self.window.unsure


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
