"""A process's reply queue: one for all its threads, none of its parent's."""

import os
import threading
import time

import pytest

from queue_core import Connection, ConnectTimeout, Deadline, Queue, SystemClock
from queue_core.mailbox import Replies
from queue_core.testing.eventually import eventually


def soon(seconds=20.0):
    return Deadline.after(seconds, SystemClock())


@pytest.fixture
def connection(request):
    with Connection(f"memory://{request.node.name}") as made:
        yield made


@pytest.fixture
def replies(connection):
    made = Replies(
        connection,
        lambda own: Queue(f"replies.{own}"),
        ticket=lambda message: message.headers.get("ticket"),
        read=lambda message: message.payload,
    )
    yield made
    made.close()


@pytest.fixture
def reply(connection, replies):
    def send(ticket, body):
        headers = {"ticket": ticket}
        connection.producer().publish(body, replies.open(soon()).name, headers=headers)

    return send


def test_an_answer_finds_its_ticket(replies, reply):
    replies.open(soon())
    mine, other = replies.expect("mine"), replies.expect("other")
    reply("other", 1)
    reply("mine", 2)
    assert replies.next(mine, soon()) == 2
    assert replies.next(other, soon()) == 1
    assert replies.next(mine, soon(0.0)) is None


def test_an_answer_that_is_there_is_found_however_late_it_is_looked_for(replies, reply):
    replies.open(soon())
    ticket = replies.expect("mine")
    reply("mine", 1)
    assert replies.next(ticket, soon(0.0)) == 1


def test_what_comes_late_or_for_nobody_is_counted(replies, reply):
    replies.open(soon())
    past, waiting = replies.expect("past"), replies.expect("waiting")
    replies.forget(past)
    for ticket in ("past", "guess", None, "waiting"):
        reply(ticket, ticket)
    assert replies.next(waiting, soon()) == "waiting"
    assert past.late == 1
    assert replies.dropped == 3


def test_a_ticket_that_nobody_keeps_is_forgotten(replies, reply):
    replies.open(soon())
    replies.expect("dropped")
    assert replies.find("dropped") is None
    kept = replies.expect("kept")
    assert replies.find("kept") is kept


def test_a_thread_may_take_for_everybody(replies, reply):
    replies.open(soon())
    stopping, ticket = threading.Event(), replies.expect("mine")
    thread = threading.Thread(target=replies.serve, args=(stopping,))
    thread.start()
    reply("nobody", 0)
    reply("mine", 1)
    assert replies.wait(ticket, soon())
    assert list(ticket.arrived) == [1]
    assert replies.dropped == 1
    stopping.set()
    replies.close()
    thread.join(30)
    assert not thread.is_alive()


def test_who_waits_for_another_that_declares_does_so_until_the_deadline(
    replies, connection, monkeypatch
):
    declaring, go = threading.Event(), threading.Event()
    declare = connection.declare

    def slowly(queue):
        declaring.set()
        go.wait(30)
        return declare(queue)

    monkeypatch.setattr(connection, "declare", slowly)
    thread = threading.Thread(target=lambda: replies.open(soon()))
    thread.start()
    assert declaring.wait(20)
    begun = time.monotonic()
    with pytest.raises(ConnectTimeout):
        replies.open(soon(0.05))
    assert time.monotonic() - begun < 8
    go.set()
    thread.join(30)
    assert replies.queue


def test_a_child_has_locks_and_a_queue_of_its_own_even_if_forked_while_one_was_declared(
    replies, connection, monkeypatch
):
    declaring, go = threading.Event(), threading.Event()
    declare = connection.declare

    def slowly(queue):
        if not declaring.is_set():
            declaring.set()
            go.wait(30)
        return declare(queue)

    monkeypatch.setattr(connection, "declare", slowly)
    parent = os.getpid()
    thread = threading.Thread(target=lambda: replies.open(soon()))
    thread.start()
    assert declaring.wait(20)  # and the thread holds what it holds
    monkeypatch.setattr("queue_core.process._own", parent + 1)
    child = replies.open(soon(20.0)).name
    assert child.startswith(f"replies.{parent + 1}.")
    monkeypatch.setattr("queue_core.process._own", parent)
    go.set()
    thread.join(30)
    eventually(lambda: replies.queue not in ("", child))
