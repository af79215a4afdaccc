"""Producers and consumers are killed and frozen at random; then their notes are compared.

What was confirmed must have been received. And no delivery may begin after its message's ack was
certain, not even in a process that stood still while another one acked.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from queue_core import Connection, Queue
from queue_core.testing import eventually

LEASE = 1.0
SECONDS = 8.0


class Note(NamedTuple):
    when: int
    event: str
    message: str


def notes_of(folder: Path) -> list[Note]:
    """Return what everybody wrote down, in the order in which it happened."""
    notes = []
    for path in folder.glob("*.notes"):
        whole = path.read_text().rpartition("\n")[0]
        for line in whole.splitlines():
            when, event, message = line.split()
            notes.append(Note(int(when), event, message))
    return sorted(notes)


def missing(notes: list[Note]) -> set[str]:
    """Return what was confirmed and never received."""
    seen = defaultdict(set)
    for note in notes:
        seen[note.event].add(note.message)
    return seen["confirmed"] - seen["received"] - seen["new"]


@pytest.mark.timeout(180)
def test_whoever_dies_or_stands_still_nothing_is_lost_and_no_certain_ack_is_undone(
    broker, scripts, tmp_path
):
    queue = Queue(broker.name("work"))
    with Connection(broker.url) as connection:
        connection.declare(queue)
    started = 0

    def start(role):
        nonlocal started
        started += 1
        name = f"{role}{started}"
        arguments = (role, broker.url, queue.name, LEASE, name, tmp_path / f"{name}.notes")
        return role, scripts("chronicler.py", *arguments)

    crowd = [start(role) for role in ["producer"] * 2 + ["consumer"] * 4]
    eventually(lambda: any(note.event == "certain" for note in notes_of(tmp_path)), 60.0)
    frozen = set()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(random.uniform(0.2, 0.6))
        place = random.randrange(len(crowd))
        role, script = crowd[place]
        if script in frozen:
            script.resume()
            frozen.remove(script)
        elif random.random() < 0.7:
            script.pause()
            frozen.add(script)
        else:
            script.kill()
            crowd[place] = start(role)
    for role, script in crowd:
        script.resume()
        if role == "producer":
            script.kill()
    eventually(lambda: not missing(notes_of(tmp_path)), 60.0)
    for _, script in crowd:
        script.kill()

    notes = notes_of(tmp_path)
    certain = {note.message: note.when for note in notes if note.event == "certain"}
    assert len(certain) > 20
    assert [
        note
        for note in notes
        if note.event == "received" and note.when > certain.get(note.message, note.when)
    ] == []
