"""How much of its throughput a consumer keeps whose process has a node that is flooded.

The consumer's messages take a millisecond each, as a short task does. It works alone for some
seconds, and then as long while another process sends commands to the node as fast as it can. The
value is what is left of the rate; ``alone`` is the rate before, ``commands`` how many were sent.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.adapter import Adapter
from benchmarks.cases import SHARED, Case
from benchmarks.names import named
from benchmarks.processes import Job, Processes, Reply
from benchmarks.questions.mailbox import DONE
from benchmarks.rendezvous import Rendezvous, run_together

QUEUE, NODE = named("beside"), "flooded"
SECONDS = 3.0
TASK = 0.001
CASES = (
    Case(
        "flood",
        "consumer beside a flood of commands",
        "of its rate",
        brokers=SHARED,
        contestants=("ours",),
        rounds=1,
    ),
)


def ask(processes: Processes, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return run_together(
        processes, [(contestant, {**job, "side": side}) for side in ("flood", "work")]
    )


def measure(adapter: Adapter, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's processes."""
    with Rendezvous(job["folder"]) as rendezvous:
        return _flood(adapter, rendezvous) if job["side"] == "flood" else _work(adapter, rendezvous)


def _flood(adapter: Adapter, rendezvous: Rendezvous) -> dict[str, Any]:
    rendezvous.wait_for("serves")
    caller = adapter.caller()
    begun, sent = 0.0, 0
    rendezvous.wait_for("flood me")
    while not (sent % 10 == 0 and rendezvous.announced(DONE)):
        caller.tell(NODE)
        if not sent:
            begun = time.monotonic()
            rendezvous.announce("flooding")
        sent += 1
    rendezvous.announce("flooded", str(sent / (time.monotonic() - begun)))
    caller.close()
    return {}


def _work(adapter: Adapter, rendezvous: Rendezvous) -> dict[str, Any]:
    adapter.clear(QUEUE)
    adapter.publish_many(QUEUE, int(3 * SECONDS / TASK))
    nodes = adapter.nodes([NODE])
    rendezvous.announce("serves")
    peer = adapter.peer(QUEUE, QUEUE)
    peer.take()
    alone = _rate(peer)
    rendezvous.announce("flood me")
    rendezvous.wait_for("flooding")
    flooded = _rate(peer)
    rendezvous.announce(DONE)
    commands = float(rendezvous.wait_for("flooded"))
    nodes.close()
    adapter.drop(QUEUE)
    return {"value": flooded / alone, "alone": alone, "commands": commands}


def _rate(peer: Any) -> float:
    taken, begun = 0, time.monotonic()
    while time.monotonic() - begun < SECONDS:
        peer.take()
        time.sleep(TASK)
        taken += 1
    return taken / (time.monotonic() - begun)
