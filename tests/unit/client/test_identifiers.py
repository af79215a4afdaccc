"""Ids: never the same twice, not in another thread and not in a forked process."""

import itertools
import os
import threading
import time
import uuid

import pytest

from queue_core.identifiers import fresh_id, fresh_uuid

MANY = 2000


@pytest.mark.parametrize("fresh", [fresh_id, fresh_uuid])
def test_no_id_comes_twice_whichever_threads_ask(fresh):
    found = []

    def ask():
        found.extend([fresh() for _ in range(MANY)])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert len(set(found)) == len(found) == 4 * MANY


@pytest.mark.parametrize("fresh", [fresh_id, fresh_uuid])
def test_a_forked_process_makes_ids_of_its_own(fresh):
    before = fresh()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, "\n".join(fresh() for _ in range(20)).encode())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(writing)
    with open(reading) as pipe:
        theirs = pipe.read().split()
    ours = [before, *(fresh() for _ in range(MANY))]
    assert len(theirs) == 20 and not set(theirs) & set(ours)


def test_the_ids_of_messages_begin_with_the_time(monkeypatch):
    monkeypatch.setattr(time, "time_ns", itertools.count(1_700_000_000_000_000_000).__next__)
    found = [fresh_id() for _ in range(1000)]
    assert found == sorted(found)
    assert {len(one) for one in found} == {32}


def test_the_ids_of_tasks_are_random_uuids():
    for _ in range(1000):
        made = uuid.UUID(fresh_uuid())
        assert (made.version, made.variant) == (4, uuid.RFC_4122)
