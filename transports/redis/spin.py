"""Spinning: looking for an answer for a moment before sleeping until it comes.

Redis on the same machine or rack answers within some fifty microseconds. To fall asleep and to be
woken takes a processor core as long again, and more in a virtual machine. So whoever waits looks
for a tenth of a millisecond first. Between two looks it offers its core to others (sched_yield):
the server, or anybody who wants that core, gets it, so that looking takes nothing from a busy
machine.

A server that is further away is not looked for: after each answer that took longer the next one,
two, four ... up to a thousand answers are slept for, and then it is tried again.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

LONGEST: Final = 0.0001
"""Seconds; twice the time that an answer of a near server takes."""

_MOST_REST: Final = 1024


class Spin:
    """Looks at one connection; for the thread that uses it."""

    def __init__(
        self,
        has_answer: Callable[[], object],
        give_way: Callable[[], object],
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``has_answer`` and ``give_way`` return at once; ``now`` is a clock, in seconds."""
        self._has_answer = has_answer
        self._give_way = give_way
        self._now = now
        self._to_rest = 0
        self._rest = 1

    def wait(self) -> None:
        """Return when there is an answer, or when it is not worth while to look for it any more."""
        if self._to_rest:
            self._to_rest -= 1
            return
        has_answer, give_way, now = self._has_answer, self._give_way, self._now
        until = now() + LONGEST
        while not has_answer():
            if now() >= until:
                self._to_rest = self._rest
                self._rest = min(2 * self._rest, _MOST_REST)
                return
            give_way()
        self._rest = 1


def spin_on(connection: socket.socket) -> Spin | None:
    """Return what looks for answers on this connection; None where the system has no such calls."""
    if not hasattr(select, "poll") or not hasattr(os, "sched_yield"):
        return None
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    ask = poll.poll
    return Spin(lambda: ask(0), os.sched_yield)
