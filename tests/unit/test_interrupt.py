"""An interrupt ends a wait from another thread, at once."""

from __future__ import annotations

import queue
import socket
import threading
import time
from pathlib import Path

from queue_core import Connection, Queue
from queue_core.interrupt import Interrupt


def _soon(wait: threading.Thread) -> bool:
    wait.start()
    wait.join(30.0)
    return not wait.is_alive()


def test_a_request_before_or_during_a_wait_ends_it() -> None:
    interrupt = Interrupt()
    interrupt.request()
    assert _soon(threading.Thread(target=interrupt.wait, args=(3600.0,), daemon=True))
    interrupt.clear()
    wait = threading.Thread(target=interrupt.wait, args=(3600.0,), daemon=True)
    threading.Timer(0.05, interrupt.request).start()
    assert _soon(wait) and interrupt.requested
    interrupt.close()
    interrupt.close()
    interrupt.request()


def test_a_wait_says_whether_the_other_descriptor_can_be_read() -> None:
    interrupt, (mine, theirs) = Interrupt(), socket.socketpair()
    with mine, theirs:
        theirs.send(b"x")
        assert interrupt.wait(3600.0, mine.fileno())
        interrupt.request()
        interrupt.clear()
        mine.recv(1)
        assert not interrupt.wait(3600.0, mine.fileno())  # for an earlier request, once
        before = time.monotonic()
        assert not interrupt.wait(0.05, mine.fileno())
        assert time.monotonic() - before >= 0.05
    interrupt.close()


def test_an_ack_makes_room_for_the_next_message_at_once_although_another_queue_is_awaited(
    tmp_path: Path,
) -> None:
    with Connection(f"sqlite:///{tmp_path}/q.db?poll=1") as connection:
        connection.declare(Queue("busy"), Queue("empty"))
        connection.producer().publish_many((number, "busy") for number in range(20))
        arrived: queue.SimpleQueue[object] = queue.SimpleQueue()
        with connection.consumer("busy", "empty", prefetch=1) as consumer:

            def receive() -> None:
                for _ in range(20):
                    arrived.put(consumer.receive(timeout=60.0))

            thread = threading.Thread(target=receive)
            thread.start()
            before = time.monotonic()
            for _ in range(20):
                arrived.get(timeout=60.0).ack()  # type: ignore[attr-defined]
            thread.join(60.0)
        assert time.monotonic() - before < 10.0, "each waited for the next look, a second later"
