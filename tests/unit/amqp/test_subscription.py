"""Which frames settle what, on a channel that keeps books as a broker does."""

from __future__ import annotations

import struct
from concurrent.futures import Future
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from queue_core.transports.amqp import frames
from queue_core.transports.amqp.proof import KEPT_BACK_FROM, prove
from queue_core.transports.amqp.subscription import Inbox, Subscription

_SETTLE = struct.Struct(">BHIHHQBB")


class Books:
    """What a broker knows of one channel; it complains as a broker would."""

    number = 1

    def __init__(self, count: int) -> None:
        self.unacked = list(range(1, count + 1))
        self.fate: dict[int, str] = {}
        self.frames = 0
        self.requests: list[tuple[str, dict[str, Any], Future[Any]]] = []

    def read(self, data: bytes) -> None:
        for at in range(0, len(data), _SETTLE.size):
            *_, method, tag, flag, _ = _SETTLE.unpack_from(data, at)
            self.frames += 1
            assert tag in self.unacked, f"unknown delivery tag {tag}"
            gone = [n for n in self.unacked if n <= tag] if method == 80 and flag else [tag]
            for number in gone:
                self.unacked.remove(number)
                self.fate[number] = {80: "ack", 90: "reject" if not flag else "requeue"}[method]

    def request(self, method: str, arguments: dict[str, Any], future: Future[Any]) -> None:
        self.requests.append((method, arguments, future))


def subscription(books: Books) -> Subscription:
    found = Subscription(Inbox("consumer"), "queue", 100, 1)
    found.channel = books  # type: ignore[assignment]  # it has what is needed here
    for tag in sorted(books.unacked):
        found.deliver(tag)
    return found


def settle(found: Subscription, tag: int, action: str) -> None:
    found.unsettled.remove(tag)
    if action == "ack":
        found.acks.append(tag)
    else:
        found.others[tag] = frames.reject(1, tag, requeue=action == "requeue")


@given(st.data())
def test_every_delivery_gets_its_own_fate_in_whatever_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    books = Books(count)
    found = subscription(books)
    asked: dict[int, str] = {}
    order = data.draw(st.permutations(range(1, count + 1)))
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order = order[:size], order[size:]
        for tag in batch:
            asked[tag] = data.draw(st.sampled_from(["ack", "ack", "ack", "reject", "requeue"]))
            settle(found, tag, asked[tag])
        books.read(found.written())
        assert books.fate == asked
        assert books.unacked == sorted(order)
    assert found.unproved == count
    assert found.loose == books.frames


def test_acks_in_order_are_one_frame() -> None:
    books = Books(100)
    found = subscription(books)
    for tag in range(1, 100):
        settle(found, tag, "ack")
    books.read(found.written())
    assert books.frames == 1
    assert books.unacked == [100]


def test_a_few_settlements_are_proved_by_one_question() -> None:
    books = Books(5)
    found = subscription(books)
    settle(found, 1, "ack")
    books.read(found.written())
    done: Future[Any] = Future()
    prove([found], done)
    ((method, _, answer),) = books.requests
    assert method == "basic_qos"
    assert not done.done()
    answer.set_result(None)
    assert done.done()
    assert found.unproved == 0


def test_many_loose_settlements_are_proved_by_two_questions_one_after_the_other() -> None:
    books = Books(100)
    found = subscription(books)
    for tag in range(2, KEPT_BACK_FROM + 3):
        settle(found, tag, "ack")
    books.read(found.written())
    assert found.loose > KEPT_BACK_FROM
    done: Future[Any] = Future()
    prove([found], done)
    assert [method for method, _, _ in books.requests] == ["basic_consume"]
    assert books.requests[0][1]["arguments"]["x-credit"] == {"credit": 0, "drain": False}
    books.requests[0][2].set_result(None)
    assert [method for method, _, _ in books.requests] == ["basic_consume", "basic_cancel"]
    tags = {arguments["consumer_tag"] for _, arguments, _ in books.requests}
    assert len(tags) == 1
    assert not done.done()
    books.requests[1][2].set_result(None)
    assert done.done()
    assert (found.unproved, found.loose) == (0, 0)


def test_two_proofs_at_the_same_time_prove_nothing_twice() -> None:
    books = Books(100)
    found = subscription(books)
    proofs: list[Future[Any]] = [Future(), Future()]
    for begin, proof in zip((2, 60), proofs, strict=True):
        for tag in range(begin, begin + KEPT_BACK_FROM + 1):
            settle(found, tag, "ack")
        books.read(found.written())
        prove([found], proof)
    while not all(proof.done() for proof in proofs):
        for _, _, answer in list(books.requests):
            if not answer.done():
                answer.set_result(None)
    assert (found.unproved, found.loose) == (0, 0)
    settle(found, 40, "ack")
    found.written()
    assert (found.unproved, found.loose) == (1, 1)


def test_a_channel_that_ends_meanwhile_ends_the_wait_and_proves_nothing() -> None:
    books = Books(5)
    found = subscription(books)
    settle(found, 1, "ack")
    books.read(found.written())
    done: Future[Any] = Future()
    prove([found], done)
    books.requests[0][2].set_exception(ConnectionError("gone"))
    assert done.done()
    assert found.unproved == 1


def test_nothing_to_prove_is_proved_at_once() -> None:
    done: Future[Any] = Future()
    prove([], done)
    assert done.done()
