"""Asking and telling nodes, on each transport: who is meant, what comes back, and until when."""

import threading
import time
from functools import partial

import pytest

from queue_core import (
    ConfigError,
    Connection,
    QueueNotFound,
    Unroutable,
)
from queue_core.mailbox import LamportClock
from queue_core.mailbox.sending import FEW, Sender
from queue_core.mailbox.wire import Address
from queue_core.testing.eventually import eventually

WAIT = 10.0


def test_a_node_answers(box, start):
    start("a")
    answers = box.call(["a"], "ping", timeout=WAIT)
    assert dict(answers) == {"a": "pong"}
    assert answers.complete


def test_arguments_arrive_and_defaults_hold(box, start):
    start("a")
    assert box.call(["a"], "add", {"x": 2, "y": 3}, timeout=WAIT)["a"] == 5
    assert box.call(["a"], "add", {"x": 2}, timeout=WAIT)["a"] == 3


def test_all_nodes_answer_and_nobody_waits_for_the_timeout(box, start):
    for name in "abc":
        start(name)
    eventually(lambda: set(box.nodes()) == set("abc"))
    begun = time.monotonic()
    answers = box.multi_call("ping", timeout=30)
    assert dict(answers) == dict.fromkeys("abc", "pong")
    assert time.monotonic() - begun < 10


def test_nodes_that_answer_and_leave_before_the_caller_looks_are_heard(box, start, monkeypatch):
    nodes = [start(name) for name in "ab"]
    for node in nodes:
        node.handler(leave)
    eventually(lambda: set(box.nodes()) == {"a", "b"})
    publish = Sender.send

    def send_slowly(sender, command, **options):
        unknown = publish(sender, command, **options)
        if command.method == "leave":
            assert all(node.wait(30) for node in nodes)
        return unknown

    monkeypatch.setattr(Sender, "send", send_slowly)
    assert dict(box.multi_call("leave", timeout=30)) == {"a": "gone", "b": "gone"}


@pytest.mark.parametrize("names", [None, ["a", "b"]])
def test_a_node_that_answers_and_leaves_while_it_is_looked_for_is_heard(
    box, start, monkeypatch, names
):
    asked, node, other = threading.Event(), start("a"), start("b")
    node.handler(lambda state: asked.wait(60) and leave(state), name="leave")
    other.handler(lambda state: "here", name="leave")
    eventually(lambda: set(box.nodes()) == {"a", "b"})
    peers = other._wiring.directory
    if peers.names() is None:  # then its answer says who else there is
        eventually(lambda: set(peers.peers(Address())) == {"a", "b"})
    gone = Sender.gone

    def look_late(sender, *args):
        asked.set()
        assert node.wait(30)
        return gone(sender, *args)

    monkeypatch.setattr(Sender, "gone", look_late)
    ask = box.multi_call if names is None else partial(box.call, names)
    assert dict(ask("leave", timeout=60)) == {"a": "gone", "b": "here"}


def leave(state):
    """A handler that ends its node, which answers first."""
    raise SystemExit("gone")


def test_a_limit_ends_the_waiting(box, start):
    start("a")
    gate = threading.Event()
    start("b", state={"gate": gate}).handler(lambda state: state["gate"].wait(WAIT), name="slow")
    eventually(lambda: set(box.nodes()) == {"a", "b"})
    start("c").handler(lambda state: "at once", name="slow")
    begun = time.monotonic()
    answers = box.multi_call("slow", timeout=30, limit=2)
    assert time.monotonic() - begun < WAIT
    assert dict(answers) == {"c": "at once"} and set(answers.errors) == {"a"}
    gate.set()


def test_nodes_are_addressed_by_name_glob_expression_and_label(box, start):
    start("web-1", labels={"role": "web"})
    start("web-2", labels={"role": "web", "zone": "b"})
    start("db-1", labels={"role": "db"})
    eventually(lambda: len(box.nodes()) == 3)

    def asked(**how):
        return set(box.multi_call("ping", timeout=WAIT, **how))

    assert asked(match="web-*") == {"web-1", "web-2"}
    assert asked(regex=r"\w+-1") == {"web-1", "db-1"}
    assert asked(labels={"role": "web"}) == {"web-1", "web-2"}
    assert asked(labels={"role": "web", "zone": "b"}) == {"web-2"}
    assert set(box.call(["web-1", "db-1"], "ping", timeout=WAIT)) == {"web-1", "db-1"}


def test_a_name_that_nobody_has_is_known_at_once(box, start):
    start("a")
    begun = time.monotonic()
    answers = box.call(["a", "nobody"], "ping", timeout=30)
    assert time.monotonic() - begun < 10
    assert answers.unknown == {"nobody"}
    assert dict(answers) == {"a": "pong"}
    with pytest.raises(KeyError, match="there is no node 'nobody'"):
        answers["nobody"]
    with pytest.raises(Unroutable, match="there is no node 'nobody'"):
        box.cast(["nobody"], "ping")


def test_of_many_names_those_that_nobody_has_are_known_soon(box, open_box, fleet):
    far = open_box()
    there = {f"n{number}" for number in range(FEW + 1)}
    for name in there:
        far.node(name, {}, panel=fleet).start()
    begun = time.monotonic()
    answers = box.call([*there, "nobody", "none"], "ping", timeout=30)
    assert time.monotonic() - begun < 10
    assert set(answers) == there
    assert answers.unknown == {"nobody", "none"} and not answers.missing


def test_a_node_that_does_not_answer_in_time_is_missing(box, start, machine):
    start("a")
    start("b")
    box.multi_call("ping", timeout=WAIT)  # it has a queue to be answered in
    begun = time.monotonic()
    with machine.within(0.5, 0.25):
        answers = box.call(["a", "b"], "nap", {"seconds": 3.0}, timeout=0.5)
    assert time.monotonic() - begun > 0.4
    assert answers.missing == {"a", "b"}
    assert not answers.complete


def test_the_timeout_is_total_whatever_comes_in_between(box, start, machine):
    for number in range(4):
        start(f"n{number}")
    eventually(lambda: len(box.nodes()) == 4)
    box.multi_call("ping", timeout=WAIT)
    threads = [
        threading.Thread(
            target=box.call, args=([f"n{number}"], "nap", {"seconds": 0.3 * number}, 5)
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    with machine.within(0.5, 0.25):
        box.multi_call("nap", {"seconds": 3}, timeout=0.5)
    for thread in threads:
        thread.join()


def test_a_handler_that_yields_is_seen_item_by_item(box, start):
    start("a")
    items = box.stream("numbers", {"count": 4}, timeout=WAIT, destinations=["a"])
    assert list(items) == [("a", number) for number in range(4)]
    assert box.call(["a"], "numbers", {"count": 3}, timeout=WAIT)["a"] == [0, 1, 2]
    assert box.call(["a"], "numbers", {"count": 0}, timeout=WAIT)["a"] == []


def test_a_callback_sees_each_answer(box, start):
    start("a")
    seen = []
    box.call(["a"], "ping", timeout=WAIT, callback=lambda node, value: seen.append((node, value)))
    assert seen == [("a", "pong")]


def test_a_cast_is_done_and_nobody_answers(box, start):
    first, second = start("a"), start("b")
    box.cast(["a"], "revoke", {"task_id": "1"})
    eventually(lambda: first.state.get("revoked") == ["1"])
    box.abcast("revoke", {"task_id": "2"})
    eventually(lambda: first.state["revoked"] == ["1", "2"])
    eventually(lambda: second.state.get("revoked") == ["2"])


def test_a_late_answer_does_not_disturb_the_next_call(box, start):
    start("a")
    box.call(["a"], "ping", timeout=WAIT)
    first = box.call(["a"], "nap", {"seconds": 2.0}, timeout=1.0)
    assert first.missing == {"a"}
    second = box.call(["a"], "nap", {"seconds": 1.5}, timeout=WAIT)
    assert dict(second) == {"a": 1.5}
    eventually(lambda: box.call(["a"], "ping", timeout=WAIT) and first.late == 1)
    assert box.unclaimed == 1


def test_sixteen_threads_get_their_own_answers_only(box, start):
    start("a")
    wrong = []

    def work(number):
        for step in range(5):
            value = box.call(["a"], "add", {"x": number * 100, "y": step}, timeout=30)["a"]
            if value != number * 100 + step:
                wrong.append((number, step, value))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_logical_time_passes_through_commands_and_answers(open_box, fleet):
    early, late = LamportClock(5), LamportClock(1000)
    open_box(clock=late).node("a", {}, panel=fleet).start()
    caller = open_box(clock=early)
    caller.call(["a"], "ping", timeout=WAIT)
    assert early.value > 1000
    assert late.value > 1000


def test_nodes_are_listed_with_their_labels(box, start):
    start("a", labels={"role": "web"})
    node = start("b")
    eventually(lambda: box.nodes() == {"a": {"role": "web"}, "b": {}})
    node.stop()
    eventually(lambda: box.nodes() == {"a": {"role": "web"}})


def test_a_node_that_has_left_is_not_waited_for(box, start):
    start("a")
    start("b").stop()
    begun = time.monotonic()
    assert dict(box.multi_call("ping", timeout=30)) == {"a": "pong"}
    assert time.monotonic() - begun < 10


def test_closing_a_mailbox_leaves_no_queue(any_url, open_box, start):
    start("a")
    box = open_box()
    box.call(["a"], "ping", timeout=WAIT)
    name = box.reply_queue
    box.close()
    with Connection(any_url) as connection, pytest.raises(QueueNotFound):
        connection.inspect(name)


def test_answers_that_trickle_in_do_not_stretch_the_timeout(box, start, machine):
    for number in range(5):
        start(f"n{number}", state={"step": 0.8 * number})
    eventually(lambda: len(box.nodes()) == 5)
    box.multi_call("ping", timeout=WAIT)
    with machine.within(1.0, 1.0):  # a second after the last answer would be 4.2
        answers = box.multi_call("late_by_its_step", timeout=1.0)
    assert set(answers) <= {"n0", "n1", "n2"}
    if box._who().names() is not None or answers:  # else nobody has said who there is
        assert answers.missing >= {"n3", "n4"}


def test_every_fresh_caller_is_answered(open_box, start):
    start("a")
    for _ in range(10):
        assert dict(open_box().multi_call("ping", timeout=WAIT)) == {"a": "pong"}


def test_a_mailbox_can_use_a_direct_exchange(open_box, fleet):
    open_box(type="direct").node("a", {}, panel=fleet).start()
    box = open_box(type="direct")
    assert dict(box.multi_call("ping", timeout=WAIT)) == {"a": "pong"}
    assert dict(box.call(["a"], "ping", timeout=WAIT)) == {"a": "pong"}


def test_names_can_be_kept_in_a_store_that_is_not_the_brokers(open_box, fleet, tmp_path):
    with Connection(f"sqlite:///{tmp_path}/names.db") as other:
        store = other.key_value()
        for name in "ab":
            open_box(store=store).node(name, {}, panel=fleet, labels={"n": name}).start()
        box = open_box(store=store)
        assert box.nodes() == {"a": {"n": "a"}, "b": {"n": "b"}}
        begun = time.monotonic()
        assert set(box.multi_call("ping", timeout=30)) == {"a", "b"}
        assert time.monotonic() - begun < 10


def test_a_pattern_that_cannot_be_compared_is_refused_here(box):
    with pytest.raises(ConfigError, match=r"\\1 is not supported"):
        box.multi_call("ping", regex=r"(a)\1")
