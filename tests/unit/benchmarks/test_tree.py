"""What processes use as the benchmarks count it, and how tasks count themselves."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.tree import Tree, cost, cpu, memory, segments
from benchmarks.workers.counter import FOLDER, count, total

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
sys.stdin.read()
child.communicate()
"""
BUSY = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
one = socket.create_connection(server.getsockname())
one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
end = time.process_time() + 0.2
while time.process_time() < end:
    pass
for _ in range(5):
    one.send(b"x")
    time.sleep(0.01)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tree() -> Iterator[Tree]:
    """A process with a child that has used 0.2 s of CPU and sent five segments."""
    arguments = [sys.executable, "-c", PARENT, BUSY]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        yield Tree(process.pid)


def test_a_tree_is_a_process_and_its_descendants(tree: Tree) -> None:
    (child,) = tree.children()
    assert tree.everybody() == [tree.root, child]
    assert child in Tree(os.getpid()).children()


def test_the_cpu_and_the_memory_of_other_processes_are_known(tree: Tree) -> None:
    assert cpu(tree.children()) >= 0.2
    assert cpu(tree.everybody()) == pytest.approx(cpu([tree.root]) + cpu(tree.children()))
    assert 1.0 < memory(tree.everybody()) < 200.0


def test_the_segments_that_another_process_has_sent_are_counted(tree: Tree) -> None:
    assert segments(tree.children()) == 5
    assert segments([tree.root]) is None


def test_who_does_nothing_costs_nothing(tree: Tree) -> None:
    found = cost(lambda: time.sleep(0.1), tree.everybody())
    assert found["round_trips"] == 0.0 and found["value"] < 50.0


def test_a_process_that_is_gone_has_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert cpu([process.pid]) == 0.0 and memory([process.pid]) == 0.0
    assert segments([process.pid]) is None


def test_what_several_threads_count_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert total(tmp_path) == (0, 0.0)
    begun = time.monotonic()
    threads = [threading.Thread(target=lambda: [count() for _ in range(5_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found, latest = total(tmp_path)
    assert found == 20_000 and begun < latest < time.monotonic()
