"""Answers of several nodes on their way: what gathers while one is sent goes together."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from queue_core import Connection, ConnectionLost, Refused, Unroutable
from queue_core.mailbox.outbox import Outbox

PATIENCE = 30.0


class Slow:
    """A connection and its producer; each step lasts until it is let through."""

    def __init__(self):
        self.steps = []
        self.errors = {}
        self.begun = threading.Semaphore(0)
        self.through = threading.Semaphore(0)

    def producer(self):
        return self

    def publish_many(self, publications):
        self.steps.append([publication.body for publication in publications])
        self.begun.release()
        assert self.through.acquire(timeout=PATIENCE), "nobody let it through"
        for publication in publications:
            if publication.body in self.errors:
                raise self.errors[publication.body]


@pytest.fixture
def broker():
    return Slow()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def letter(body, *, mandatory=False):
    with Connection("memory://outbox") as connection:
        return connection.producer().prepare(body, "answers", mandatory=mandatory)


def send_while_busy(outbox, broker, pool, *bodies):
    """Send the first, and the others while the first is on its way; return what becomes of them."""
    letters = [letter(body) for body in bodies]
    sent = [pool.submit(outbox.send, letters[0])]
    assert broker.begun.acquire(timeout=PATIENCE)
    for count, later in enumerate(letters[1:], 1):
        sent.append(pool.submit(outbox.send, later))
        while len(outbox._letters) < count:
            assert not sent[-1].done()
    return sent


def test_what_comes_while_an_answer_is_sent_goes_together(broker, pool):
    sent = send_while_busy(Outbox(broker), broker, pool, b"1", b"2", b"3", b"4")
    broker.through.release(2)
    assert [item.result(PATIENCE) for item in sent] == [None] * 4
    assert broker.steps == [[b"1"], [b"2", b"3", b"4"]]


def test_nobody_returns_before_his_answer_is_sent(broker, pool):
    sent = send_while_busy(Outbox(broker), broker, pool, b"1", b"2")
    broker.through.release()
    sent[0].result(PATIENCE)
    assert broker.begun.acquire(timeout=PATIENCE)
    assert not sent[1].done()
    broker.through.release()
    sent[1].result(PATIENCE)


def test_those_whose_answers_went_together_hear_of_an_error_together(broker, pool):
    broker.errors = {b"2": ConnectionLost("away")}
    outbox = Outbox(broker)
    sent = send_while_busy(outbox, broker, pool, b"1", b"2", b"3")
    broker.through.release(3)
    assert [str(item.exception(PATIENCE)) for item in sent] == ["None", "away", "away"]
    outbox.send(letter(b"4"))
    assert broker.steps[-1] == [b"4"]


def test_an_answer_that_cannot_be_sent_takes_no_other_with_it(broker, pool):
    broker.errors = {b"3": Refused("its queue is full")}
    outbox = Outbox(broker)
    sent = send_while_busy(outbox, broker, pool, b"1", b"2", b"3", b"4")
    broker.through.release(5)
    told = [str(item.exception(PATIENCE)) for item in sent]
    assert told == ["None", "None", "its queue is full", "None"]
    assert broker.steps[1:] == [[b"2", b"3", b"4"], [b"2"], [b"3"], [b"4"]]


def test_what_must_find_its_queue_goes_alone_and_nobody_else_hears_that_it_did_not(broker, pool):
    broker.errors = {b"item": Unroutable("gone")}
    outbox = Outbox(broker)
    sent = send_while_busy(outbox, broker, pool, b"1", b"2")
    item = pool.submit(outbox.send, letter(b"item", mandatory=True))
    broker.through.release(3)
    assert str(item.exception(PATIENCE)) == "gone"
    assert [one.result(PATIENCE) for one in sent] == [None, None]
    assert sorted(broker.steps) == [[b"1"], [b"2"], [b"item"]]
