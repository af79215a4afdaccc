"""What a caller does when somebody does not answer: a process is frozen by SIGSTOP.

"frozen": one of three nodes, for longer than its lease. A process that asks all for the first time
should return at the last answer of the others; the value is how long after it that was. (Within its
lease a frozen node is there as far as anybody can know, and is waited for until the timeout.)

"deadline": the only node, just now. The value is the 99th percentile of how much later than its
timeout a call returned, ``worst`` the longest; half of the calls name the node and half ask all.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from benchmarks.cases import SHARED, Case
from benchmarks.processes import Job, Processes, Reply
from benchmarks.questions.mailbox import DONE, settle
from benchmarks.rendezvous import Rendezvous, run_together
from benchmarks.timing import percentile

LEASE = 2.0
TO_NOTICE = 30.0
TIMEOUT = 10.0
CALLS = 104
THREADS = 4
NODES = ("a", "b", "c")
CASES = (
    Case(
        "silence",
        "one node frozen: return after the last answer",
        "ms",
        {"sides": ("serve a", "serve b", "serve c", "freeze", "fresh")},
        brokers=SHARED,
        contestants=("ours",),
        rounds=1,
    ),
    Case(
        "silence",
        "a silent node: return after the timeout",
        "ms p99",
        {"sides": ("serve a", "deadline")},
        brokers=SHARED,
        contestants=("ours",),
        rounds=1,
    ),
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return run_together(processes, [(contestant, {**job, "side": side}) for side in job["sides"]])


def measure(adapter: Any, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's processes."""
    side, _, name = job["side"].partition(" ")
    with Rendezvous(job["folder"]) as rendezvous:
        if side == "serve":
            return _serve(adapter, rendezvous, name, LEASE if "fresh" in job["sides"] else 60.0)
        if side == "freeze":
            return _freeze(adapter, rendezvous)
        if side == "fresh":
            return _fresh(adapter, rendezvous)
        return _deadlines(adapter, rendezvous)


def _serve(adapter: Any, rendezvous: Rendezvous, name: str, lease: float) -> dict[str, Any]:
    with adapter.mortal(name, lease):
        rendezvous.announce(f"serves-{name}", str(os.getpid()))
        rendezvous.wait_for(DONE)
    return {}


def _freeze(adapter: Any, rendezvous: Rendezvous) -> dict[str, Any]:
    """Stop the last node until the fresh process has asked."""
    pids = [int(rendezvous.wait_for(f"serves-{name}")) for name in NODES]
    caller = adapter.caller()
    settle(caller, None, len(NODES))
    caller.close()
    os.kill(pids[-1], signal.SIGSTOP)
    try:
        adapter.wait_until_gone(NODES[-1], TO_NOTICE)
        rendezvous.announce("frozen")
        rendezvous.wait_for("asked")
    finally:
        os.kill(pids[-1], signal.SIGCONT)
        rendezvous.announce(DONE)
    return {}


def _fresh(adapter: Any, rendezvous: Rendezvous) -> dict[str, Any]:
    rendezvous.wait_for("frozen")
    came = adapter.caller().ask(None, TIMEOUT, len(NODES))
    returned = time.monotonic()
    rendezvous.announce("asked")
    if set(came) != set(NODES[:-1]):
        raise RuntimeError(f"those that live are {NODES[:-1]}, and {sorted(came)} answered")
    return {"value": (returned - max(came.values())) * 1e3}


def _deadlines(adapter: Any, rendezvous: Rendezvous) -> dict[str, Any]:
    pid = int(rendezvous.wait_for(f"serves-{NODES[0]}"))
    caller = adapter.caller()
    settle(caller, None, 1)
    late: list[float] = []

    def work(first: int) -> None:
        for number in range(first, CALLS, THREADS):
            timeout = 0.1 + 0.2 * number / CALLS
            begun = time.monotonic()
            caller.ask([NODES[0]] if number // THREADS % 2 else None, timeout, 1)
            late.append(time.monotonic() - begun - timeout)

    os.kill(pid, signal.SIGSTOP)
    try:
        threads = [threading.Thread(target=work, args=(first,)) for first in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.kill(pid, signal.SIGCONT)
        rendezvous.announce(DONE)
    if len(late) != CALLS:
        raise RuntimeError(f"{CALLS - len(late)} calls failed; the log says why")
    return {"value": percentile(late, 0.99) * 1e3, "worst": max(late) * 1e3, "count": CALLS}
