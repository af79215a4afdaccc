"""How much of its throughput a consumer keeps whose process has a node that is flooded.

The consumer's messages take a millisecond each, as a short task does. It works alone for some
seconds, and then as long while another process sends commands to the node as fast as it can. The
value is what is left of the rate; ``alone`` is the rate before, ``commands`` how many were sent.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.cases import SHARED, Case
from benchmarks.desk import Desk, Job, Reply
from benchmarks.lane import Lane
from benchmarks.meeting import Meeting, hold
from benchmarks.names import named
from benchmarks.questions.mailbox import DONE

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


def ask(desk: Desk, contestant: str, job: Job) -> Reply:
    """In the runner."""
    return hold(desk, [(contestant, {**job, "side": side}) for side in ("flood", "work")])


def measure(lane: Lane, job: dict[str, Any]) -> dict[str, Any]:
    """In the contestant's processes."""
    with Meeting(job["folder"]) as meeting:
        return _flood(lane, meeting) if job["side"] == "flood" else _work(lane, meeting)


def _flood(lane: Lane, meeting: Meeting) -> dict[str, Any]:
    meeting.hear("serves")
    caller = lane.caller()
    begun, sent = 0.0, 0
    meeting.hear("flood me")
    while not (sent % 10 == 0 and meeting.said(DONE)):
        caller.tell(NODE)
        if not sent:
            begun = time.monotonic()
            meeting.say("flooding")
        sent += 1
    meeting.say("flooded", str(sent / (time.monotonic() - begun)))
    caller.close()
    return {}


def _work(lane: Lane, meeting: Meeting) -> dict[str, Any]:
    lane.clear(QUEUE)
    lane.publish_many(QUEUE, int(3 * SECONDS / TASK))
    nodes = lane.nodes([NODE])
    meeting.say("serves")
    courier = lane.courier(QUEUE, QUEUE)
    courier.take()
    alone = _rate(courier)
    meeting.say("flood me")
    meeting.hear("flooding")
    flooded = _rate(courier)
    meeting.say(DONE)
    commands = float(meeting.hear("flooded"))
    nodes.close()
    lane.drop(QUEUE)
    return {"value": flooded / alone, "alone": alone, "commands": commands}


def _rate(courier: Any) -> float:
    taken, begun = 0, time.monotonic()
    while time.monotonic() - begun < SECONDS:
        courier.take()
        time.sleep(TASK)
        taken += 1
    return taken / (time.monotonic() - begun)
