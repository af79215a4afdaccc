"""What nodes promise, on each transport: once, in time, whatever handlers do; come, stay and go."""

import contextlib
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from queue_core import (
    Connection,
    Deadline,
    Exchange,
    Queue,
    QueueCoreError,
    QueueNotFound,
    RemoteError,
    SystemClock,
)
from queue_core.mailbox import BadArguments, Mailbox, NameTaken, SigningKey, answering, runner
from queue_core.mailbox.answering import MAX_BYTES
from queue_core.mailbox.inbox import Inbox, private_queue
from queue_core.mailbox.wire import Address
from queue_core.testing.clocks import FakeClock
from queue_core.testing.eventually import eventually

WAIT = 10.0
OPS = SigningKey("ops", "a secret of the operators")


def test_an_error_is_an_answer_and_the_node_lives_on(box, start):
    start("a")
    answers = box.call(["a"], "fail", timeout=WAIT)
    with pytest.raises(RemoteError, match="LookupError: nothing there"):
        answers["a"]
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_what_is_raised_and_no_exception_is_an_answer_too_and_the_command_goes_on(box, start):
    start("a")
    for _ in range(2):
        answers = box.call(["a"], "cancel", timeout=WAIT)
        assert "CancelledError" in str(answers.errors["a"])


def test_a_handler_that_hangs_for_a_minute_does_not_keep_ping_waiting(box, start):
    gate = threading.Event()
    node = start("a", state={"gate": gate})
    box.cast(["a"], "hang")
    eventually(lambda: node.state.get("hanging"))
    waits = []
    for _ in range(5):
        begun = time.monotonic()
        assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
        waits.append(time.monotonic() - begun)
    gate.set()
    assert min(waits) < 1.0


def test_what_waits_for_nothing_is_answered_even_when_every_thread_is_busy(
    box, start, hears_at, monkeypatch
):
    monkeypatch.setattr(runner, "MAX_THREADS", 1)
    gate = threading.Event()
    node = start("a", state={"gate": gate})
    hears_at(box)
    box.cast(["a"], "wait_for_gate")
    eventually(lambda: node.state.get("waiting") == 1)
    assert box.call(["a"], "add", {"x": 1}, timeout=1.0).missing == {"a"}
    assert "clock" in box.call(["a"], "clock", timeout=WAIT / 2)["a"]  # before the gate gives up
    gate.set()


def test_a_command_that_comes_twice_is_run_once_and_answered_twice(
    any_url, box, start, namespace, hears_at
):
    node = start("a")
    with Connection(any_url) as connection:
        replies = box._replies
        where = hears_at(box)
        ticket = replies.expect("the-ticket")
        body = {
            "method": "revoke",
            "arguments": {"task_id": "1"},
            "ticket": "the-ticket",
            "destination": ["a"],
            "reply_to": msgspec.to_builtins(where),
        }
        producer = connection.producer()
        answers = []
        for _ in range(2):
            producer.publish(body, f"a.{namespace}.pidbox", headers={"clock": 1})
            answers.append(replies.next(ticket, Deadline.after(WAIT, SystemClock())))
    assert [answer.value for answer in answers] == ["ok", "ok"]
    assert node.state["revoked"] == ["1"]
    eventually(lambda: node.counts["repeated"] == 1)  # counted when the answer is sent


def test_a_command_that_was_turned_away_as_busy_is_new_when_it_comes_again(
    any_url, box, start, namespace, hears_at, monkeypatch
):
    node = start("a")
    ticket = box._replies.expect("the-ticket")
    body = {
        "method": "revoke",
        "arguments": {"task_id": "1"},
        "ticket": "the-ticket",
        "reply_to": msgspec.to_builtins(hears_at(box)),
    }
    answers = []
    with Connection(any_url) as connection:
        for most in (0, 1000):
            monkeypatch.setattr(runner, "MAX_WAITING", most)
            connection.producer().publish(body, f"a.{namespace}.pidbox", headers={"clock": 1})
            answers.append(box._replies.next(ticket, Deadline.after(WAIT, SystemClock())))
    assert [answer.error for answer in answers] == ["Busy", ""]
    assert node.state["revoked"] == ["1"]


def test_a_command_that_comes_too_late_is_not_done(box, start):
    gate = threading.Event()
    node = start("a", state={"gate": gate})
    for _ in range(2):
        box.cast(["a"], "wait_for_gate")
    eventually(lambda: node.state.get("waiting") == 2)
    # The node must take it before the broker drops it.
    answers = box.call(["a"], "wait_for_gate", timeout=2.5)
    assert answers.missing == {"a"}
    time.sleep(0.2)
    gate.set()
    eventually(lambda: node.counts["expired"] == 1)
    assert node.state["waiting"] == 2


def test_a_command_that_waited_beyond_its_lifetime_never_comes(box, open_box, hears_at, namespace):
    connection = open_box()._connection
    queue = connection.declare(private_queue(connection, f"a.{namespace}.pidbox"))
    hears_at(box)
    box.cast(["a"], "revoke", {"task_id": "1"}, ttl=0.3)
    box.cast(["a"], "revoke", {"task_id": "2"}, ttl=None)
    assert box.call(["a"], "ping", timeout=1.0).missing == {"a"}
    time.sleep(0.3)
    with connection.consumer(queue) as consumer:
        assert consumer.receive(WAIT).payload["arguments"] == {"task_id": "2"}
        assert consumer.receive(0.2) is None
    connection.delete(queue)


def test_a_command_that_celery_says_is_too_old_is_not_done(any_url, start, namespace):
    node = start("a")
    with Connection(any_url) as connection:
        connection.producer().publish(
            {"method": "revoke", "arguments": {"task_id": "1"}, "destination": ["a"]},
            f"a.{namespace}.pidbox",
            headers={"clock": 1, "expires": time.time() - 5},
        )
    eventually(lambda: node.counts["expired"] == 1)
    assert "revoked" not in node.state


def test_a_command_that_came_while_the_process_stood_still_is_not_done(box, start, monkeypatch):
    monkeypatch.setattr("queue_core.mailbox.node._POLL", 0.2)
    node = start("a")
    receive, ready = node._inbox.receive, threading.Event()

    def stand_still(timeout):
        ready.set()
        message = receive(timeout)
        if message is not None and message.body:
            time.sleep(1.5)
        return message

    monkeypatch.setattr(node._inbox, "receive", stand_still)
    assert ready.wait(WAIT)
    box.cast(["a"], "revoke", {"task_id": "1"}, ttl=1.0)
    eventually(lambda: node.counts["expired"] == 1)
    assert "revoked" not in node.state


def test_clocks_that_differ_make_no_command_late(open_box, fleet):
    ahead = FakeClock()
    ahead.advance(time.time() - ahead.time() + 86_400)
    open_box(time=ahead).node("a", {}, panel=fleet).start()
    assert open_box().call(["a"], "ping", timeout=5)["a"] == "pong"


def test_a_long_journal_is_learned_once_however_many_nodes_tell_it(box, start, monkeypatch):
    monkeypatch.setattr(answering, "MAX_REMEMBERED", 5)
    first = start("a")
    tickets = [str(number) for number in range(12)]
    for ticket in tickets:
        assert box.multi_call("revoke", {"task_id": ticket}, timeout=WAIT)["a"] == "ok"
    assert len(first._reception._answers._before) == 5
    others = [start(name) for name in ("b", "c", "d")]
    for node in others:
        eventually(lambda node=node: len(node.state.get("revoked", ())) >= 12)
        eventually(lambda node=node: not node._runner._running)
        assert node.state["revoked"] == tickets


def test_a_node_that_comes_later_learns_what_was_revoked(box, start):
    old = start("a")
    box.abcast("revoke", {"task_id": "1"})
    box.call(["a"], "revoke", {"task_id": "for a alone"}, timeout=WAIT)
    box.abcast("revoke", {"task_id": "2"})
    eventually(lambda: len(old._wiring.directory.journal()) == 3)
    late = start("b")
    eventually(lambda: late.state.get("revoked") == ["1", "2"])
    eventually(lambda: late.counts["learned"] == 2)


def test_a_node_that_was_taken_for_gone_is_listed_again(box, start, monkeypatch):
    monkeypatch.setattr("queue_core.mailbox.node._REJOIN", 0.5)
    monkeypatch.setattr("queue_core.mailbox.node._POLL", 0.2)
    node = start("a", labels={"role": "web"})
    other = start("b")
    for directory in (other._wiring.directory, node._wiring.directory):
        directory.leave("a")
    eventually(lambda: box.nodes() == {"a": {"role": "web"}, "b": {}})
    peers = other._wiring.directory
    if peers.names() is None:  # then callers learn it from whoever answers first
        eventually(lambda: set(peers.peers(Address())) == {"a", "b"})


def test_of_two_nodes_with_one_name_the_newer_stays(box, start, caplog):
    with caplog.at_level(logging.WARNING):
        old = start("a", state={"life": 1})
        new = start("a", state={"life": 2})
        assert old.wait(30)
    assert "a newer one took its name" in caplog.text
    new.handler(lambda state: state["life"], name="life")
    assert box.call(["a"], "life", timeout=WAIT)["a"] == 2


def test_a_second_node_of_a_name_can_be_refused(box, start):
    start("a")
    with pytest.raises(NameTaken, match="another node is called 'a'"):
        start("a", on_duplicate="refuse")
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_a_name_is_one_nodes_also_among_those_of_one_connection(open_box, fleet, caplog):
    box = open_box()
    other = Mailbox(box.namespace, box._connection)
    old = box.node("a", panel=fleet).start()
    with pytest.raises(NameTaken, match="another node is called 'a'"):
        other.node("a", on_duplicate="refuse").start()
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
    new = other.node("a").start()
    assert old.wait(WAIT)
    assert "a newer one took its name" in caplog.text
    for _ in range(4):
        assert box.call(["a"], "ping", timeout=WAIT)["a"] == {"ok": "pong"}
    assert box.nodes() == {"a": {}}
    new.stop()
    assert box.nodes() == {}
    box.node("a", panel=fleet).start(timeout=WAIT)  # who has left leaves nothing that has the name
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
    other.close()


def test_of_nodes_that_start_in_the_same_moment_on_one_connection_one_stays(open_box, monkeypatch):
    meeting = threading.Barrier(2)

    class SlowInbox(Inbox):
        """Waits for another one that comes at the same time, if there is one."""

        def __init__(self, *args, **options):
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(0.3)
            super().__init__(*args, **options)

    monkeypatch.setattr("queue_core.mailbox.node.Inbox", SlowInbox)
    box = open_box()
    nodes = [box.node("a", number) for number in range(3)]
    for node in nodes:
        node.handler(lambda state: state, name="number")
    with ThreadPoolExecutor(len(nodes)) as threads:
        list(threads.map(lambda node: node.start(WAIT), nodes))
    eventually(lambda: sum(not node.wait(0.0) for node in nodes) == 1)
    stayed = next(node for node in nodes if not node.wait(0.0))
    for _ in range(4):
        assert box.call(["a"], "number", timeout=WAIT)["a"] == stayed.state


def test_a_shutdown_answers_before_the_node_leaves(box, start, any_url, namespace):
    node = start("a")
    assert box.call(["a"], "shutdown", timeout=WAIT)["a"] == "bye"
    assert node.wait(30)
    with Connection(any_url) as connection, pytest.raises(QueueNotFound):
        connection.inspect(f"a.{namespace}.pidbox")


def test_a_node_can_be_stopped_twice_and_without_having_started(start, open_box):
    node = start("a")
    node.stop()
    node.stop()
    open_box().node("b").stop()


def test_a_node_and_a_caller_whose_queues_were_deleted_have_them_again(box, start, caplog):
    node = start("a")
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
    lost = {node._inbox.queue.name, box.reply_queue}
    with caplog.at_level(logging.WARNING):
        node._wiring.connection.delete(Queue(node._inbox.queue.name))
        box._connection.delete(Queue(box.reply_queue))
        eventually(lambda: "a" in box.call(["a"], "ping", timeout=5.0), 60.0)
    # RabbitMQ says that a queue has ended before it has: who is quick declares it twice.
    assert set(re.findall("queue (.*) was lost, and is declared again", caplog.text)) == lost


def test_a_caller_that_is_gone_harms_no_node(open_box, box, start, hears_at):
    gate = threading.Event()
    node = start("a", state={"gate": gate})
    gone = open_box()
    hears_at(gone)
    assert gone.call(["a"], "wait_for_gate", timeout=1.0).missing == {"a"}
    gone.close()
    gate.set()
    eventually(lambda: node.counts["handled"] + node.counts["expired"] == 1)
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_a_large_answer_is_not_kept_for_a_command_that_comes_again(
    any_url, box, start, namespace, hears_at
):
    start("a")
    ticket = box._replies.expect("the-ticket")
    body = {
        "method": "letters",
        "arguments": {"count": MAX_BYTES + 1},
        "ticket": "the-ticket",
        "reply_to": msgspec.to_builtins(hears_at(box)),
    }
    answers = []
    with Connection(any_url) as connection:
        for _ in range(2):
            connection.producer().publish(body, f"a.{namespace}.pidbox", headers={"clock": 1})
            answers.append(box._replies.next(ticket, Deadline.after(WAIT, SystemClock())))
    assert [answer.kind for answer in answers] == ["value", "error"]
    assert "done before" in answers[1].value


def test_what_a_handler_yields_ends_when_its_callers_time_is_over(box, start, hears_at):
    node = start("a")
    hears_at(box)
    answers = box.call(["a"], "ticks", timeout=2.0)
    assert answers.missing == {"a"} and len(answers.partial["a"]) > 1
    eventually(lambda: node.state.get("closed") == 1)
    eventually(lambda: node.counts["left"] == 1)


def test_what_a_handler_yields_ends_soon_after_its_caller_stopped_listening(box, start):
    node = start("a")
    for _, number in box.stream("ticks", timeout=120):
        if number == 2:
            break
    eventually(lambda: node.state.get("closed") == 1)
    eventually(lambda: node.counts["left"] == 1)


def test_what_a_handler_yields_ends_when_its_caller_is_gone(any_url, namespace, start):
    node = start("a")
    with Connection(any_url) as connection:
        ticks = Mailbox(namespace, connection).stream("ticks", timeout=120)
        assert next(ticks) == ("a", 0)
    eventually(lambda: node.state.get("closed") == 1)
    with contextlib.suppress(QueueCoreError):
        ticks.close()


def test_a_node_that_stops_ends_what_its_handlers_yield_and_says_so(box, start):
    node = start("a")
    ticks = box.stream("ticks", timeout=60)
    assert next(ticks) == ("a", 0)
    begun = time.monotonic()
    node.stop(timeout=60)
    assert time.monotonic() - begun < 30
    assert node.state["closed"] == 1
    assert len(list(ticks)) < 1000  # it ends, and not at its timeout


def test_a_stranger_cannot_end_what_changes_something(any_url, open_box, start, namespace):
    node = start("a", keys=[OPS])
    gate = threading.Event()

    @node.handler(kind="control")
    def drain(state):
        yield "begun"
        gate.wait(WAIT)
        yield "half"
        yield "all"

    with Connection(any_url) as connection:
        commands = Exchange(f"{namespace}.pidbox", "fanout", durable=False)
        spied = connection.declare(Queue(f"{namespace}.spy", exchange=commands, expires=60.0))
        items = open_box(key=OPS).stream("drain", timeout=WAIT)
        assert next(items) == ("a", "begun")
        with connection.consumer(spied) as consumer:
            ticket = consumer.receive(WAIT).payload["ticket"]
        stranger = open_box()
        stranger.cast(["a"], "qc.left", {"ticket": ticket})
        assert stranger.call(["a"], "ping", timeout=WAIT)["a"] == "pong"  # it came before
        gate.set()
        assert list(items) == [("a", "half"), ("a", "all")]
        connection.delete(spied)


def test_what_nodes_say_among_themselves_cannot_be_replaced_and_ping_can(box, start):
    node = start("a", labels={"role": "web"})
    node.handler(lambda state: {"role": "king"}, name="qc.who")
    assert box.call(["a"], "qc.who", timeout=WAIT)["a"] == {"role": "web"}
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"  # the fleet's own


def test_commands_can_be_run_here_and_now(start):
    node = start("a")
    assert node.dispatch("add", {"x": 1, "y": 2}) == 3
    assert node.handle_call("add", {"x": 1}) == 2
    assert node.handle_cast("revoke", {"task_id": "1"}) is None
    assert node.state["revoked"] == ["1"]
    with pytest.raises(BadArguments, match="needs the argument 'x'"):
        node.handle_call("add")
    with pytest.raises(KeyError, match="no command 'nothing'"):
        node.handle_cast("nothing")
