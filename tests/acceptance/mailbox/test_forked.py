"""A process that forks: the child asks for itself; its parent's nodes and queues are not its."""

import os
import time

import pytest

from queue_core import UsageError

WAIT = 10.0


@pytest.fixture
def in_a_child():
    """Do something in a forked child; return its text, and fail if the child raised."""

    def run(work):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.write(writer, str(work()).encode())
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        with os.fdopen(reader) as told:
            text = told.read()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return text

    return run


@pytest.fixture
def shared(box):
    """What only a program's own process can reach, no child reaches either."""
    return box._connection.features.shared


def test_a_child_hears_its_own_answers_and_leaves_its_parents_queue_alone(
    box, start, in_a_child, shared, caplog
):
    start("a")
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
    if not shared:
        return
    parents = box.reply_queue

    def ask():
        begun = time.monotonic()
        answers = dict(box.call(["a"], "ping", timeout=WAIT))
        refused = "could not be declared again" in caplog.text
        return answers, time.monotonic() - begun < WAIT, refused, box.reply_queue != parents

    assert in_a_child(ask) == "({'a': 'pong'}, True, False, True)"
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_a_child_that_closes_its_parents_mailbox_stops_no_node_and_waits_for_none(
    open_box, fleet, in_a_child, shared
):
    box = open_box()
    node = box.node("a", {}, panel=fleet).start()
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"  # there is a thread for handlers
    if not shared:
        return

    def close():
        begun = time.monotonic()
        box.close()
        node.stop()
        return time.monotonic() - begun

    assert float(in_a_child(close)) < 8.0
    assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"


def test_a_node_runs_in_the_process_that_started_it(open_box, box, fleet, in_a_child, shared):
    far = open_box()
    running, waiting = far.node("a", {}, panel=fleet).start(), far.node("b", {}, panel=fleet)
    if not shared:
        assert box.call(["a"], "ping", timeout=WAIT)["a"] == "pong"
        return

    def work():
        with pytest.raises(UsageError, match="runs in the parent process"):
            running.start()
        with waiting:
            answers = dict(box.call(["a", "b"], "ping", timeout=WAIT))
        return sorted(answers.items()), box.call(["b"], "ping", timeout=WAIT).unknown

    assert in_a_child(work) == "([('a', 'pong'), ('b', 'pong')], {'b'})"
