"""Closing a mailbox: all its nodes leave together, however long their handlers would take."""

import threading
import time

from queue_core import Connection
from queue_core.mailbox import Mailbox
from queue_core.testing.eventually import eventually


def test_nodes_whose_handlers_hang_are_waited_for_together_and_not_for_ever():
    gate, hanging = threading.Event(), []
    with Connection("memory://") as connection:
        box = Mailbox("closing", connection)
        nodes = [box.node(name).start() for name in "abcd"]
        for node in nodes:
            node.handler(lambda state: hanging.append(state) or gate.wait(60), name="hang")
        box.abcast("hang")
        eventually(lambda: len(hanging) == 4)
        begun = time.monotonic()
        box.close(timeout=0.5)
        assert 0.4 < time.monotonic() - begun < 10
        assert all(node.wait(30) for node in nodes)  # they left all the same
        gate.set()
