"""Writers of one file take turns, and nobody waits at the gate without an end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from queue_core.errors import ConnectionLost
from queue_core.transport import Envelope
from queue_core.transports.sql.gate import Gate
from tests.freezing import freeze


@pytest.fixture
def new_gate(tmp_path: Path) -> Iterator[Callable[[float], Gate]]:
    gates = []

    def open_file(name: str) -> int:
        return os.open(tmp_path / name, os.O_RDWR | os.O_CREAT, 0o600)

    def make(patience: float = 5.0) -> Gate:
        gates.append(Gate(open_file, patience))
        return gates[-1]

    yield make
    for gate in gates:
        gate.close()


@pytest.mark.slow
def test_writers_of_four_processes_take_turns(tmp_path: Path, program: Any) -> None:
    """Counted in turns, not seconds: 9 to 43 of 400 with the gate, 82 to 272 without.

    A busy machine keeps a process from asking for its turn, now and then; hence more than one try.
    """

    def longest_wait(path: Path) -> int:
        writers = [program("turns", path, 400) for _ in range(4)]
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        return max(int(writer.communicate(timeout=60)[0]) for writer in writers)

    waits: list[int] = []
    while len(waits) < 6 and min(waits, default=99) > 50:
        waits.append(longest_wait(tmp_path / f"{len(waits)}.db"))
    assert min(waits) <= 50, waits


def test_the_second_writer_waits_for_the_first(new_gate: Any) -> None:
    first, second = new_gate(), new_gate(0.2)
    first.enter()
    before = time.monotonic()
    second.enter()
    assert 0.2 <= time.monotonic() - before < 10.0
    second.leave()
    first.leave()


def test_a_writer_whose_patience_ended_does_not_queue_for_a_while(new_gate: Any) -> None:
    first, second = new_gate(), new_gate(1.0)
    first.enter()
    second.enter()
    before = time.monotonic()
    second.enter()
    assert time.monotonic() - before < 0.9


def test_leaving_without_having_entered_lets_nobody_in(new_gate: Any) -> None:
    first, second = new_gate(), new_gate(0.1)
    first.enter()
    second.leave()
    second.enter()
    second.leave()
    third = new_gate(0.1)
    before = time.monotonic()
    third.enter()
    assert time.monotonic() - before >= 0.1, "the first was still inside"


def test_a_gate_can_be_closed_twice_and_used_again(new_gate: Any) -> None:
    gate, other = new_gate(), new_gate(5.0)
    gate.enter()
    gate.close()
    gate.close()
    before = time.monotonic()
    other.enter()
    assert time.monotonic() - before < 4.0
    other.leave()
    gate.enter()
    gate.leave()


def test_a_killed_writer_keeps_nobody_out(path: Path, open_handle: Any, program: Any) -> None:
    store = open_handle()
    holder = program("lock", path, 60)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    before = time.monotonic()
    store.put([Envelope("q", "a", b"", b"")], {})
    assert time.monotonic() - before < 4.0


def test_a_stopped_writer_costs_others_their_timeout_and_not_more(
    path: Path, open_handle: Any, program: Any
) -> None:
    store = open_handle("?timeout=0.6")
    holder = program("lock", path, 60)
    freeze(holder.pid)
    before = time.monotonic()
    with pytest.raises(ConnectionLost, match="locked"):
        store.put([Envelope("q", "a", b"", b"")], {})
    assert 0.5 < time.monotonic() - before < 10.0
    assert store.inspect("q").ready == 0, "reading is free meanwhile"
    holder.send_signal(signal.SIGCONT)
    holder.kill()
    holder.wait()
    assert not store.put([Envelope("q", "a", b"", b"")], {}).already


def test_a_forked_child_does_not_keep_its_dead_parents_turn(new_gate: Any) -> None:
    gate = new_gate()
    gate.enter()
    ready, leave = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(leave[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    descriptors = gate._a, gate._b
    for descriptor in descriptors:
        os.close(descriptor)  # what the kernel does when the parent dies
    gate._a = gate._b = -1
    other = new_gate(5.0)
    before = time.monotonic()
    other.enter()
    assert time.monotonic() - before < 4.0
    os.write(leave[1], b"x")
    os.waitpid(child, 0)
    for descriptor in (*ready, *leave):
        os.close(descriptor)
