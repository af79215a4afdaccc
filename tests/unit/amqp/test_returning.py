"""Returns by copy: what is sent, and what becomes of the original for each fate of the copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from queue_core.errors import (
    AccessRefused,
    ConnectionLost,
    ConnectTimeout,
    QueueNotFound,
    TooLarge,
    TransportError,
)
from queue_core.message import Delivery, Properties, Publication, Settlement
from queue_core.testing.eventually import eventually
from queue_core.topology import Queue
from queue_core.transport import Outcome
from queue_core.transports.amqp import returning as returning_module
from queue_core.transports.amqp.arrivals import Arrivals
from queue_core.transports.amqp.copies import NOTHING, Note, delayed
from queue_core.transports.amqp.ladder import OUT, Target
from queue_core.transports.amqp.properties import READER, encode_properties
from queue_core.transports.amqp.returning import Returning

KNOWN = {
    "plain": Queue("plain"),
    "limited": Queue("limited", max_deliveries=3, dead_letter_exchange="dead"),
    "dropping": Queue("dropping", max_deliveries=3),
}


class Broker:
    """Stands for everything that returning talks to, and notes what it was told."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, bool]] = []
        self.stale: list[str] = []
        self.sent: list[list[Publication]] = []
        self.fates: list[str | Exception] = []
        self.target_error: Exception | None = None
        self.forgotten = 0
        self.gate = threading.Event()
        self.gate.set()
        self.holds = True

    def held(self, delivery: Delivery) -> bool:
        return self.holds

    def settle(self, settlements: Sequence[Settlement]) -> None:
        self.settled += [(item.action, item.counted) for item in settlements]

    def note_stale(self, consumer: str) -> None:
        self.stale.append(consumer)

    def to_queue(self, name: str, *, at_once: bool = False) -> Target:
        return Target("queue", name, relayed=not at_once)

    def lead_to(self, target: Target, deadline: float) -> None:
        if self.target_error is not None and target.name != "limited":
            raise self.target_error

    def now(self) -> int:
        return 1000

    def forget(self) -> None:
        self.forgotten += 1

    def publish(self, publications: Sequence[Publication], timeout: float) -> list[Outcome]:
        self.gate.wait(20.0)
        self.sent.append(list(publications))
        if any("huge" in one.properties.headers for one in publications):
            raise TooLarge("the headers do not go into one frame")
        fate = self.fates.pop(0) if self.fates else "confirmed"
        if isinstance(fate, Exception):
            raise fate
        return [Outcome(fate, "because") for _ in publications]  # type: ignore[arg-type]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def returning(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Returning]:
    monkeypatch.setattr(returning_module, "SHORTEST_PAUSE", 0.01)
    made: Any = broker
    returning = Returning(made, made, broker.publish, KNOWN, user="me", timeout=1.0)
    yield returning
    broker.gate.set()
    returning.close(5.0)


def delivery(queue: str = "plain", note: Note = NOTHING, tag: int = 1, **headers: Any) -> Delivery:
    raw = encode_properties(Properties(headers=headers))
    return Delivery("c", queue, "x", "k", b"body", raw, READER, (1, tag, note))


def requeue(found: Delivery, delay: float = 0.0, *, counted: bool = True) -> list[Settlement]:
    return [Settlement(found, "requeue", delay, counted)]


def wait(returning: Returning) -> None:
    returning.wait("c", time.monotonic() + 20.0)


def settled(broker: Broker, *expected: tuple[str, bool]) -> None:
    """Wait until this, in whatever order, is what the broker was told."""
    eventually(lambda: sorted(broker.settled) == sorted(expected))


def test_what_the_broker_can_do_is_left_to_it(broker: Broker, returning: Returning) -> None:
    found = delivery("limited")
    plain: list[Settlement] = [
        Settlement(found),
        Settlement(found, "reject"),
        *requeue(found, counted=False),
        *requeue(delivery("plain")),
        *requeue(delivery("unknown")),
    ]
    assert list(returning.take(plain)) == plain
    assert broker.sent == []


def test_a_delayed_return_is_acked_once_its_copy_is_confirmed(
    broker: Broker, returning: Returning
) -> None:
    assert list(returning.take(requeue(delivery(), 0.3))) == []
    wait(returning)
    ((copy,),) = broker.sent
    assert (copy.exchange, copy.routing_key) == ("qc.delay.8", "k")
    assert broker.settled == [("ack", True)]


def test_a_counted_return_is_a_copy_where_failures_are_limited(
    broker: Broker, returning: Returning
) -> None:
    returning.take(requeue(delivery("limited", Note(1))))
    wait(returning)
    ((copy,),) = broker.sent
    assert copy.exchange == OUT
    assert copy.properties.headers["qc-deliveries"] == 2


@pytest.mark.parametrize("note", [Note(0, None, 10), NOTHING])
def test_a_message_that_came_back_often_is_copied_even_uncounted(
    broker: Broker, returning: Returning, note: Note
) -> None:
    found = delivery("limited", note, **{"x-delivery-count": 10})
    returning.take(requeue(found, counted=False))
    wait(returning)
    assert [[copy.exchange for copy in batch] for batch in broker.sent] == [[OUT]]


@pytest.mark.parametrize("fate", ["refused", "unknown", "unroutable", ConnectionLost("gone")])
def test_without_a_confirm_the_original_goes_back_and_flush_says_so(
    broker: Broker, returning: Returning, fate: str | Exception
) -> None:
    broker.fates = [fate]
    returning.take(requeue(delivery(), 0.05))
    with pytest.raises(TransportError, match="1 message that"):
        wait(returning)
    settled(broker, ("requeue", False))
    assert broker.forgotten
    wait(returning)


def test_who_never_flushes_is_told_of_the_first_failure_and_of_their_number(
    broker: Broker, returning: Returning
) -> None:
    broker.fates = ["refused", "unknown", "confirmed"]
    for tag in range(3):
        returning.take(requeue(delivery(tag=tag), 0.05))
        returning.settle_down(time.monotonic() + 20.0)
    with pytest.raises(TransportError, match="2 messages that .* its copy is refused"):
        wait(returning)
    wait(returning)
    assert not returning._pending and not returning._tokens
    eventually(lambda: not returning._kept)


@pytest.mark.parametrize("error", [QueueNotFound("no queue"), AccessRefused("no permission")])
def test_without_a_way_back_the_original_goes_back_after_its_delay(
    broker: Broker, returning: Returning, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """At once it would come again at once, for ever, where a permission is missing, say."""
    broker.target_error = error
    found, begun = delivery(), time.monotonic()
    returning.take(requeue(found, 0.3))
    with pytest.raises(TransportError, match=str(error)):
        wait(returning)
    assert str(error) in caplog.text
    settled(broker, ("requeue", False))
    assert time.monotonic() - begun >= 0.3
    assert broker.sent == []
    eventually(lambda: not returning.has(found))


def test_what_is_kept_until_it_goes_back_is_settled_and_holds_up_nobody(
    broker: Broker, returning: Returning
) -> None:
    broker.target_error = AccessRefused("no permission")
    kept = delivery(tag=1)
    returning.take(requeue(kept, 3600.0))
    returning.settle_down(time.monotonic() + 20.0)
    assert returning.has(kept)
    assert list(returning.take([Settlement(kept)])) == []
    assert broker.stale == ["c"]
    returning.take(requeue(delivery("limited", tag=2)))
    settled(broker, ("ack", True))


def test_what_went_back_with_its_channel_meanwhile_is_not_given_back(
    broker: Broker, returning: Returning
) -> None:
    broker.target_error = AccessRefused("no permission")
    found = delivery()
    returning.take(requeue(found, 0.2))
    returning.settle_down(time.monotonic() + 20.0)
    broker.holds = False
    eventually(lambda: not returning.has(found))
    assert (broker.settled, broker.stale) == ([], [])


@pytest.mark.parametrize(("delay", "pause"), [(0.0, 0.01), (5.0, 5.0), (3600.0, 60.0)])
def test_the_pause_is_the_delay_within_bounds(
    returning: Returning, delay: float, pause: float
) -> None:
    begun = time.monotonic()
    found = delivery("limited")
    returning._give_back(requeue(found, delay)[0], "because")
    kept = returning._kept[found.token]
    assert begun + pause <= kept.due <= time.monotonic() + pause


def test_the_last_failure_becomes_a_dead_letter(broker: Broker, returning: Returning) -> None:
    returning.take(requeue(delivery("limited", Note(2)), 5.0))
    wait(returning)
    ((letter,),) = broker.sent
    assert (letter.exchange, letter.routing_key) == ("dead", "k")
    assert letter.properties.headers["x-death"][0]["reason"] == "delivery_limit"
    assert broker.settled == [("ack", True)]


def test_an_uncounted_return_never_exhausts(broker: Broker, returning: Returning) -> None:
    returning.take(requeue(delivery("limited", Note(2)), 5.0, counted=False))
    wait(returning)
    assert broker.sent[0][0].properties.headers["qc-deliveries"] == 2


def test_an_exhausted_message_without_dead_letters_is_rejected(
    broker: Broker, returning: Returning
) -> None:
    returning.take(requeue(delivery("dropping", Note(2))))
    wait(returning)
    assert (broker.sent, broker.settled) == ([], [("reject", True)])


@pytest.mark.parametrize("fate", ["unroutable", QueueNotFound("no exchange")])
def test_a_dead_letter_that_nobody_wants_is_rejected(
    broker: Broker, returning: Returning, fate: str | Exception
) -> None:
    broker.fates = [fate]
    returning.take(requeue(delivery("limited", Note(2))))
    wait(returning)
    assert broker.settled == [("reject", True)]


def test_a_dead_letter_that_is_refused_keeps_the_original(
    broker: Broker, returning: Returning
) -> None:
    broker.fates = ["refused"]
    returning.take(requeue(delivery("limited", Note(2))))
    with pytest.raises(TransportError, match="refused"):
        wait(returning)
    settled(broker, ("requeue", False))


def test_dead_letters_are_sent_apart(broker: Broker, returning: Returning) -> None:
    """One to a missing exchange must not make the others unknown."""
    broker.gate.clear()
    returning.take(requeue(delivery(tag=9), 0.1))
    returning.take(
        [*requeue(delivery("limited", Note(2), 1)), *requeue(delivery("limited", NOTHING, 2))]
    )
    broker.gate.set()
    wait(returning)
    assert sum(len(batch) for batch in broker.sent) == 3
    for batch in broker.sent:
        assert len({copy.exchange == "dead" for copy in batch}) == 1


def test_a_copy_that_cannot_be_sent_leaves_the_others_alone(
    broker: Broker, returning: Returning
) -> None:
    broker.gate.clear()
    returning.take(requeue(delivery(tag=9), 0.1))  # the others wait meanwhile, and go as one batch
    for tag in range(1, 4):
        returning.take(requeue(delivery(tag=tag, **({"huge": True} if tag == 2 else {})), 0.1))
    broker.gate.set()
    with pytest.raises(TransportError, match="1 message that .* one frame"):
        wait(returning)
    settled(broker, *[("ack", True)] * 3, ("requeue", False))


def test_a_failure_that_nobody_foresaw_leaves_the_others_alone(
    broker: Broker, returning: Returning
) -> None:
    broker.gate.clear()
    broker.target_error = RuntimeError("unforeseen")
    returning.take(requeue(delivery("limited", tag=9)))
    returning.take([*requeue(delivery(tag=1), 0.1), *requeue(delivery("limited", tag=2))])
    broker.gate.set()
    with pytest.raises(TransportError, match="1 message that .* unforeseen"):
        wait(returning)
    settled(broker, *[("ack", True)] * 2, ("requeue", False))


def test_a_dead_letter_that_cannot_be_sent_is_left_to_the_broker(
    broker: Broker, returning: Returning
) -> None:
    """Given back it would come again at once, for ever."""
    returning.take(requeue(delivery("limited", Note(2), huge=True)))
    wait(returning)
    assert broker.settled == [("reject", True)]


def test_what_is_on_its_way_cannot_be_settled_again(broker: Broker, returning: Returning) -> None:
    broker.gate.clear()
    found = delivery()
    returning.take(requeue(found, 1.0))
    assert returning.has(found)
    assert list(returning.take([Settlement(found)])) == []
    assert list(returning.take(requeue(found, 1.0))) == []
    assert broker.stale == ["c", "c"]
    with pytest.raises(ConnectTimeout, match="1 message that"):
        returning.wait("c", time.monotonic() + 0.01)
    returning.settle_down(time.monotonic() + 0.01)
    broker.gate.set()
    wait(returning)
    assert not returning.has(found)
    assert len(broker.sent) == 1


def test_a_delivery_that_is_not_held_any_more_is_stale_and_not_copied(
    broker: Broker, returning: Returning
) -> None:
    broker.holds = False
    returning.take(requeue(delivery(), 1.0))
    wait(returning)
    assert (broker.sent, broker.stale) == ([], ["c"])


def test_it_can_be_closed_twice_and_without_having_begun(returning: Returning) -> None:
    returning.close(1.0)
    returning.close(1.0)


# arrivals


def arrivals(expired: list[Delivery], now: int = 1000) -> Arrivals:
    return Arrivals(KNOWN, lambda: now, expired.append)


def waited(queue: str = "plain", **properties: Any) -> Delivery:
    sent = Publication("x", "k", b"", Properties(**properties), "i", delay=1.0)
    copy = delayed(sent, 1000, Target("queue", queue, relayed=False), now=0)
    raw = encode_properties(copy.properties)
    return Delivery("c", queue, "qc.delay.3", "k", b"", raw, READER, (1, 7, NOTHING), 0)


def test_a_copy_arrives_as_it_was_published() -> None:
    expired: list[Delivery] = []
    (found,) = arrivals(expired).opened([waited(headers={"h": 1}, expiration=2.0)])
    assert (found.exchange, found.token) == ("x", (1, 7, Note(0, 2000)))
    assert READER.properties(found.raw) == Properties(headers={"h": 1}, expiration=2.0)
    assert found.attempts == 0
    assert expired == []


def test_what_is_too_late_is_not_handed_out() -> None:
    expired: list[Delivery] = []
    late = waited(expiration=0.9)
    assert arrivals(expired).opened([late]) == []
    assert expired == [late]


def test_attempts_are_told_where_failures_are_counted() -> None:
    found = [delivery("limited"), delivery("limited", Note(2)), delivery("plain", Note(2))]
    for one in found:
        one.attempts = 0
    assert [one.attempts for one in arrivals([]).opened(found)] == [1, 3, 0]


def test_bytes_that_nobody_can_read_are_handed_out_as_they_are() -> None:
    damaged = waited(headers={"h": 1})
    damaged.raw = damaged.raw[:-3]
    raw = damaged.raw
    (found,) = arrivals([]).opened([damaged])
    assert (found.raw, found.exchange) == (raw, "qc.delay.3")


def test_an_expired_message_is_buried_with_that_reason(
    broker: Broker, returning: Returning
) -> None:
    returning.expired(delivery("limited"))
    returning.expired(delivery("plain"))
    wait(returning)
    ((letter,),) = broker.sent
    assert letter.properties.headers["x-death"][0]["reason"] == "expired"
    assert sorted(broker.settled) == [("ack", True), ("reject", True)]
