"""What happens between two steps of a node or a caller on a slow machine: nothing is lost."""

import itertools
import threading

import pytest

from queue_core import (
    Closed,
    Connection,
    ConnectionLost,
    Deadline,
    Queue,
    QueueNotFound,
    SystemClock,
)
from queue_core.mailbox import Mailbox
from queue_core.mailbox import node as nodes
from queue_core.mailbox.directory import SharedDirectory, put_away
from queue_core.mailbox.inbox import Inbox
from queue_core.mailbox.journal import entry_of
from queue_core.mailbox.wire import Address, node_queue
from queue_core.testing.eventually import eventually

numbers = itertools.count()


@pytest.fixture
def connection():
    with Connection(f"memory://meanwhile-{next(numbers)}") as made:
        yield made


@pytest.fixture
def box(connection):
    with Mailbox("fleet", connection) as made:
        yield made


def test_a_node_says_again_that_it_is_there_however_soon_it_was_said(box, monkeypatch):
    monkeypatch.setattr(nodes, "_REJOIN", 0.0)
    node, said = box.node("n"), []
    submit = node._runner.submit

    def at_once(command, limit, job):
        if command == "qc.rejoin":
            job()
            return True
        return submit(command, limit, job)

    monkeypatch.setattr(node._runner, "submit", at_once)
    with node:
        monkeypatch.setattr(node._wiring.directory, "join", lambda *_, **__: said.append(1))
        for _ in range(5):
            box.call(["n"], "ping", timeout=20.0)
        eventually(lambda: len(said) >= 5)


def test_a_node_that_leaves_while_it_says_that_it_is_there_is_forgotten(box, monkeypatch):
    monkeypatch.setattr(nodes, "_REJOIN", 0.0)
    node = box.node("n").start()
    directory = node._wiring.directory
    join, leave = directory.join, directory.leave
    saying, left = threading.Event(), threading.Event()

    def join_late(*args, **options):
        saying.set()
        left.wait(0.5)
        join(*args, **options)

    def leave_first(*names):
        known = leave(*names)
        left.set()
        return known

    monkeypatch.setattr(directory, "join", join_late)
    monkeypatch.setattr(directory, "leave", leave_first)
    box.call(["n"], "ping", timeout=20.0)
    assert saying.wait(20)
    node.stop(20)
    assert node.wait(20)
    assert directory.names() == {}


def test_what_a_later_node_must_learn_is_kept_before_anybody_hears_that_it_is_done(
    box, monkeypatch
):
    node, order = box.node("n"), []
    node.handler(lambda state: "done", name="pause", kind="control", journal=60)
    answers, directory = node._reception._answers, node._wiring.directory
    record, reply = directory.record, answers.reply
    monkeypatch.setattr(directory, "record", lambda entry: order.append("kept") or record(entry))
    monkeypatch.setattr(answers, "reply", lambda *_, **__: order.append("told") or reply(*_, **__))
    with node:
        assert box.call(["n"], "pause", timeout=20.0) == {"n": "done"}
    assert order == ["kept", "told"]


def test_what_others_kept_just_after_a_node_came_is_learned_a_little_later(box, monkeypatch):
    monkeypatch.setattr(nodes, "_REJOIN", 0.0)
    node, done = box.node("n"), []
    node.handler(lambda state: done.append(1), name="pause", kind="control", journal=60)
    with node:  # its queue was not there yet when the others got this
        command = box._sender.command("pause", {}, Address(), 60.0)
        node._wiring.directory.record(entry_of(command, SystemClock().time() + 60))
        box.call(["n"], "ping", timeout=20.0)
        eventually(lambda: done)


def test_a_command_that_is_learned_while_it_is_judged_is_run_once(box, monkeypatch):
    node, done = box.node("n"), []
    node.handler(lambda state: done.append(1), name="pause", kind="control", journal=60)
    judge = node._reception._judge

    def learn_first(command, received):
        job = judge(command, received)
        node._reception._apply(command)
        return job

    monkeypatch.setattr(node._reception, "_judge", learn_first)
    with node:
        box.abcast("pause")
        eventually(lambda: node.counts["repeated"])
    assert done == [1]


def test_a_queue_that_could_not_be_declared_again_at_once_is_so_later(connection, monkeypatch):
    inbox = Inbox(connection, Queue("mine"), prefetch=1)
    connection.delete(inbox.queue)
    declare = connection.declare

    def away(*_):
        monkeypatch.setattr(connection, "declare", declare)
        raise ConnectionLost("the broker is away")

    monkeypatch.setattr(connection, "declare", away)
    with pytest.raises(ConnectionLost):
        inbox.receive(0.0)
    inbox.receive(0.0)
    connection.producer().publish("hello", "mine")
    eventually(lambda: (message := inbox.receive(0.0)) and message.payload == "hello")


@pytest.mark.parametrize("came", [True, False])
def test_a_node_that_comes_again_while_it_is_put_away_is_not_forgotten(connection, came):
    directory = SharedDirectory(lambda timeout: connection.key_value(), "fleet", SystemClock())
    directory.join("a", {"role": "web"})
    directory.join("b", {})
    put_away(directory, {"a"}, lambda names: set() if came else names)
    assert directory.names() == ({"a": {"role": "web"}} if came else {}) | {"b": {}}


def test_who_waits_for_an_answer_hears_that_the_mailbox_was_closed(box):
    deadline = Deadline.after(20.0, SystemClock())
    box._replies.open(deadline)
    ticket = box._replies.expect("t")
    box._replies.close()
    with pytest.raises(Closed):
        box._replies.wait(ticket, deadline)


def test_a_node_that_cannot_come_leaves_no_queue_in_which_it_would_be_waited_for(
    box, connection, monkeypatch
):
    node = box.node("n")

    def away(*_, **__):
        raise ConnectionLost("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(node._wiring.directory, "join", away)
        with pytest.raises(ConnectionLost):
            node.start()
    with pytest.raises(QueueNotFound):
        connection.inspect(node_queue("fleet", "n"))
    with node:
        assert box.call(["n"], "ping", timeout=20.0)
