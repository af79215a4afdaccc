"""What a node writes down of handlers that do not do what was asked."""

import logging

from queue_core import Connection, UsageError
from queue_core.mailbox import Mailbox

WAIT = 10.0


def refuse(state) -> None:
    raise UsageError("not today")


def stumble(state) -> None:
    raise LookupError("nothing there")


def test_a_refusal_is_one_line_in_the_log_and_a_bug_has_its_traceback(caplog):
    caplog.set_level(logging.INFO, "queue_core.mailbox")
    with Connection("memory://handlers") as connection, Mailbox("test", connection) as box:
        node = box.node("a")
        for handler in (refuse, stumble):
            node.handler(handler)
        with node:
            assert "not today" in str(box.call(["a"], "refuse", timeout=WAIT).errors["a"])
            assert "nothing there" in str(box.call(["a"], "stumble", timeout=WAIT).errors["a"])
    told = {record.message: record.exc_info for record in caplog.records}
    assert told["node a does not do refuse: not today"] is None
    assert told["stumble failed on node a"][0] is LookupError
