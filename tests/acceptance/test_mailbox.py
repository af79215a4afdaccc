"""Remote control as its users meet it, on each transport: asking and telling nodes, and what may go
wrong with them, with the network between, and with what others send."""

import logging
import threading
import time
import uuid
from asyncio import CancelledError

import msgspec
import pytest

from queue_core import (
    Connection,
    Deadline,
    Exchange,
    QueueNotFound,
    RemoteError,
    SystemClock,
    Unroutable,
)
from queue_core.mailbox import LamportClock, Mailbox, NameTaken, Panel, SigningKey
from queue_core.mailbox.pace import BURST
from queue_core.mailbox.wire import ReplyAddress
from queue_core.testing.eventually import eventually

OPS = SigningKey("ops", "a secret of the operators")
WAIT = 10.0


def hears_at(box):
    """Where answers reach a mailbox."""
    queue = box._replies.open(Deadline.after(WAIT, SystemClock()))
    return ReplyAddress(queue.exchange.name, queue.routing_key)


@pytest.fixture
def namespace():
    return f"qc-test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def open_box(any_url, namespace):
    """Make mailboxes, each on a connection of its own as if it were another machine."""
    opened = []

    def make(**options):
        connection = Connection(any_url, lease=2)
        box = Mailbox(namespace, connection, **options)
        opened.append((connection, box))
        return box

    yield make
    for connection, box in reversed(opened):
        box.close()
        connection.close()
    with Connection(any_url) as connection:
        for name in (
            f"{namespace}.pidbox",
            f"{namespace}.pidbox.peers",
            f"reply.{namespace}.pidbox",
        ):
            connection.delete(Exchange(name, durable=False))


@pytest.fixture
def fleet():
    """The commands of the nodes in these tests."""
    panel = Panel()

    @panel.inspect_command
    def ping(state):
        return "pong"

    @panel.inspect_command
    def add(state, x: int, y: int = 1):
        return x + y

    @panel.inspect_command(concurrency=8)
    def nap(state, seconds: float):
        time.sleep(seconds)
        return seconds

    @panel.inspect_command(concurrency=2)
    def wait_for_gate(state):
        state["waiting"] = state.get("waiting", 0) + 1
        state["gate"].wait(WAIT)
        return "open"

    @panel.inspect_command
    def fail(state):
        raise LookupError("nothing there")

    @panel.inspect_command
    def cancel(state):
        raise CancelledError("no Exception, but raised all the same")

    @panel.inspect_command
    def numbers(state, count: int):
        yield from range(count)

    @panel.inspect_command
    def secret(state):
        return {1, 2, object()}

    @panel.inspect_command
    def large(state):
        return "x" * (70 * 1024 * 1024)

    @panel.control_command(journal=600)
    def revoke(state, task_id: str):
        state.setdefault("revoked", []).append(task_id)
        return "ok"

    @panel.control_command(kind="admin")
    def shutdown(state):
        raise SystemExit("bye")

    return panel


@pytest.fixture
def start(open_box, fleet):
    """Start nodes; each has a mailbox and a state of its own."""

    def run(name, **options):
        box_options = {key: options.pop(key) for key in ("keys", "key") if key in options}
        box = open_box(**box_options)
        return box.node(name, options.pop("state", {}), panel=fleet, **options).start()

    return run


@pytest.fixture
def box(open_box):
    return open_box()


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


def test_a_limit_ends_the_waiting(box, start):
    for name in "abc":
        start(name)
    begun = time.monotonic()
    assert len(box.multi_call("ping", timeout=30, limit=1)) >= 1
    assert time.monotonic() - begun < 10


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


def test_a_node_that_does_not_answer_in_time_is_missing(box, start):
    start("a")
    start("b")
    begun = time.monotonic()
    answers = box.call(["a", "b"], "nap", {"seconds": 1.5}, timeout=0.5)
    assert 0.4 < time.monotonic() - begun < 1.0
    assert answers.missing == {"a", "b"}
    assert not answers.complete


def test_the_timeout_is_total_whatever_comes_in_between(box, start):
    for number in range(4):
        start(f"n{number}")
    eventually(lambda: len(box.nodes()) == 4)
    begun = time.monotonic()
    threads = [
        threading.Thread(
            target=box.call, args=([f"n{number}"], "nap", {"seconds": 0.3 * number}, 5)
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    box.multi_call("nap", {"seconds": 3}, timeout=0.5)
    assert time.monotonic() - begun < 1.5
    for thread in threads:
        thread.join()


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


@pytest.mark.parametrize(
    ("method", "arguments", "why"),
    [
        ("pign", {}, "no command 'pign'; did you mean 'ping'"),
        ("add", {"x": "two"}, "the argument 'x' is wrong"),
        ("add", {}, "needs the argument 'x'"),
        ("add", {"x": 1, "z": 1}, "takes no argument 'z'"),
        ("secret", {}, "the answer cannot be sent"),
        ("large", {}, "the answer cannot be sent"),
    ],
)
def test_a_wrong_command_says_what_is_wrong_and_the_node_lives_on(
    box, start, method, arguments, why
):
    start("a")
    answers = box.call(["a"], method, arguments, timeout=WAIT)
    assert why in str(answers.errors["a"])
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


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


def test_a_handler_that_hangs_does_not_keep_ping_waiting(box, start):
    start("a")
    box.cast(["a"], "nap", {"seconds": 3})
    begun = time.monotonic()
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
    assert time.monotonic() - begun < 2.5


def test_a_late_answer_does_not_disturb_the_next_call(box, start):
    start("a")
    first = box.call(["a"], "nap", {"seconds": 0.6}, timeout=0.2)
    assert first.missing == {"a"}
    second = box.call(["a"], "nap", {"seconds": 1.0}, timeout=WAIT)
    assert dict(second) == {"a": 1.0}
    assert first.late == 1
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


def test_a_command_that_comes_twice_is_run_once_and_answered_twice(any_url, box, start, namespace):
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
    assert node.counts["repeated"] == 1


def test_a_command_that_comes_too_late_is_not_done(box, start):
    gate = threading.Event()
    node = start("a", state={"gate": gate})
    for _ in range(2):
        box.cast(["a"], "wait_for_gate")
    eventually(lambda: node.state.get("waiting") == 2)
    answers = box.call(["a"], "wait_for_gate", timeout=0.5)
    assert answers.missing == {"a"}
    time.sleep(0.2)
    gate.set()
    eventually(lambda: node.counts["expired"] == 1)
    assert node.state["waiting"] == 2


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


@pytest.mark.parametrize(
    "options",
    [
        {"body": b"\x00\xff not json", "content_type": "application/json"},
        {"body": b"cos\nsystem\n", "content_type": "application/x-python-serialize"},
        {"body": [1, 2, 3]},
        {"body": {"method": 5}},
        {"body": {"method": "ping", "reply_to": {"exchange": "other", "routing_key": "x"}}},
    ],
    ids=["no json", "pickle", "a list", "no method", "a strange reply address"],
)
def test_what_is_no_command_is_counted_and_the_node_lives_on(
    any_url, box, start, namespace, options
):
    node = start("a")
    with Connection(any_url) as connection:
        options = dict(options)
        connection.producer().publish(options.pop("body"), f"a.{namespace}.pidbox", **options)
    eventually(lambda: node.counts["malformed"] == 1)
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_answers_for_nobody_are_dropped_and_counted(any_url, box, start):
    start("a")
    where = hears_at(box)
    with Connection(any_url) as connection:
        connection.producer().publish_many(
            connection.producer().prepare(
                {"a": "x" * 100_000},
                where.routing_key,
                exchange=where.exchange,
                headers={"ticket": f"guess-{number}"},
            )
            for number in range(50)
        )
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
    eventually(lambda: box.call(["a"], "ping", timeout=WAIT)["a"] and box.unclaimed == 50)


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


def test_a_node_that_comes_later_learns_what_was_revoked(box, start):
    old = start("a")
    box.abcast("revoke", {"task_id": "1"})
    box.call(["a"], "revoke", {"task_id": "for a alone"}, timeout=WAIT)
    box.abcast("revoke", {"task_id": "2"})
    eventually(lambda: len(old._wiring.directory.journal()) == 3)
    late = start("b")
    eventually(lambda: late.state.get("revoked") == ["1", "2"])
    assert late.counts["learned"] == 2


def test_of_two_nodes_with_one_name_the_newer_stays(box, start, caplog):
    with caplog.at_level(logging.WARNING):
        old = start("a", state={"life": 1})
        new = start("a", state={"life": 2})
        assert old.wait(10)
    assert "a newer one took its name" in caplog.text
    new.handler(lambda state: state["life"], name="life")
    assert box.call(["a"], "life", timeout=WAIT)["a"] == 2


def test_a_second_node_of_a_name_can_be_refused(box, start):
    start("a")
    with pytest.raises(NameTaken, match="another node is called 'a'"):
        start("a", on_duplicate="refuse")
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_a_shutdown_answers_before_the_node_leaves(box, start, any_url, namespace):
    node = start("a")
    assert box.call(["a"], "shutdown", timeout=WAIT)["a"] == "bye"
    assert node.wait(10)
    with Connection(any_url) as connection, pytest.raises(QueueNotFound):
        connection.inspect(f"a.{namespace}.pidbox")


def test_a_node_can_be_stopped_twice_and_without_having_started(start, open_box):
    node = start("a")
    node.stop()
    node.stop()
    open_box().node("b").stop()


def test_where_keys_are_known_changes_need_one_and_looking_does_not(
    open_box, start, caplog, namespace
):
    node = start("a", keys=[OPS])
    stranger, operator = open_box(), open_box(key=OPS)
    with caplog.at_level(logging.INFO, "queue_core.mailbox.audit"):
        assert stranger.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
        answers = stranger.call(["a"], "revoke", {"task_id": "1"}, timeout=WAIT)
        assert answers.refused == {"a": "it is not signed"}
        with pytest.raises(RemoteError, match="Refused: it is not signed"):
            answers["a"]
        assert operator.call(["a"], "revoke", {"task_id": "2"}, timeout=WAIT)["a"] == "ok"
    assert node.state["revoked"] == ["2"]
    lines = [record.getMessage() for record in caplog.records if "audit" in record.name]
    assert any("a refused revoke" in line for line in lines)
    assert any("a accepted revoke" in line and "by ops" in line for line in lines)


def test_a_captured_command_cannot_be_used_for_another_node(
    any_url, open_box, start, namespace, caplog
):
    first, second = start("a", keys=[OPS]), start("b", keys=[OPS])
    operator = open_box(key=OPS)
    captured = []
    publish = operator._sender._publish
    operator._sender._publish = lambda command, *rest, **more: (
        captured.append(command),
        publish(command, *rest, **more),
    )
    operator.cast(["a"], "revoke", {"task_id": "1"})
    eventually(lambda: first.state.get("revoked") == ["1"])
    [command] = captured
    with Connection(any_url) as connection:
        producer = connection.producer()
        moved = {**command.body(), "destination": ["b"]}
        producer.publish(moved, f"b.{namespace}.pidbox", headers=command.headers())
        again = {**command.body(), "ticket": "another"}
        producer.publish(again, f"a.{namespace}.pidbox", headers=command.headers())
        producer.publish(command.body(), f"a.{namespace}.pidbox", headers=command.headers())
    eventually(lambda: second.counts["refused"] == 1)
    eventually(lambda: first.counts["refused"] == 1 and first.counts["repeated"] == 1)
    assert first.state["revoked"] == ["1"]
    assert "revoked" not in second.state


def test_a_flood_of_commands_is_taken_at_a_bounded_rate(box, start):
    node = start("a")
    begun = time.monotonic()
    for _ in range(int(BURST) + 100):
        box.cast(["a"], "ping")
    eventually(lambda: node.counts["handled"] >= BURST + 100, 30)
    assert time.monotonic() - begun >= 0.4
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_closing_a_mailbox_leaves_no_queue(any_url, open_box, start):
    start("a")
    box = open_box()
    box.call(["a"], "ping", timeout=WAIT)
    name = box.reply_queue
    box.close()
    with Connection(any_url) as connection, pytest.raises(QueueNotFound):
        connection.inspect(name)
