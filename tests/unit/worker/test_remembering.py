"""What a worker remembers: revoked ids, timed calls, and the file that keeps them."""

import os
import threading
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core import ConfigError, StoreCorrupt
from queue_core.mailbox import LamportClock
from queue_core.testing.clocks import FakeClock
from queue_core.worker.revoked import KEPT, MAX_IDS, Revoked
from queue_core.worker.steps.state import VERSION, State, StateDB, StateFile
from queue_core.worker.timer import Timer


def test_an_id_is_forgotten_after_its_time():
    clock = FakeClock()
    revoked = Revoked(clock)
    revoked.add(["a"])
    clock.advance(KEPT - 1)
    assert "a" in revoked and list(revoked) == ["a"]
    clock.advance(2)
    assert "a" not in revoked and list(revoked) == []
    revoked.add(["b"])
    assert list(revoked.plain()) == ["b"]


def test_what_is_no_id_is_not_revoked():
    assert None not in Revoked() and 3 not in Revoked()


def test_the_oldest_are_forgotten_when_there_are_too_many():
    clock = FakeClock()
    revoked = Revoked(clock)
    revoked.add(["first"])
    clock.advance(1)
    revoked.add(f"{number}" for number in range(MAX_IDS))
    assert len(revoked) == MAX_IDS and "first" not in revoked and "0" in revoked


@given(st.dictionaries(st.text(), st.floats(-100, 100), max_size=20))
def test_what_was_kept_counts_as_before(entries):
    clock = FakeClock()
    until = {task_id: clock.time() + left for task_id, left in entries.items()}
    revoked = Revoked(clock)
    revoked.update(until)
    other = Revoked(clock)
    other.update(revoked.plain())
    assert set(other) == {task_id for task_id, moment in until.items() if moment > clock.time()}


def test_a_listener_hears_of_every_change():
    heard = []
    revoked = Revoked()
    revoked.listen(lambda: heard.append(list(revoked)))
    revoked.add(["a"])
    revoked.add(["b"])
    assert [sorted(ids) for ids in heard] == [["a"], ["a", "b"]]


def test_timed_calls_come_in_their_order_and_not_before_their_time():
    clock, called = FakeClock(), []
    timer = Timer(clock)
    timer.call_later(2.0, lambda: called.append("second"))
    timer.call_later(1.0, lambda: called.append("first"))
    assert timer.run_due() == pytest.approx(1.0)
    clock.advance(1.5)
    assert timer.run_due() == pytest.approx(0.5) and called == ["first"]
    clock.advance(5.0)
    assert timer.run_due() is None and called == ["first", "second"]


def test_a_timed_call_that_fails_does_not_end_the_timer(caplog):
    clock, called = FakeClock(), []
    timer = Timer(clock)
    timer.call_later(0.0, lambda: 1 / 0)
    timer.call_later(0.0, lambda: called.append(1))
    timer.run_due()
    assert called == [1] and "a timed call failed" in caplog.text


def test_a_stopped_timer_calls_nothing_and_may_be_stopped_twice():
    timer, called = Timer(), threading.Event()
    timer.start()
    timer.call_later(0.01, called.set)
    assert called.wait(30)
    timer.call_later(60.0, called.clear)
    timer.stop()
    timer.stop()
    assert called.is_set() and len(timer) == 0


def test_a_timer_wakes_for_a_call_that_is_due_before_the_others():
    timer, called = Timer(), threading.Event()
    timer.start()
    timer.call_later(600.0, called.clear)
    timer.call_later(0.05, called.set)
    assert called.wait(30) and len(timer) == 1
    timer.stop()


def test_a_timer_hears_of_an_earlier_call_that_comes_just_before_it_waits(monkeypatch):
    timer, called, first = Timer(), threading.Event(), iter([True])
    run_due = timer.run_due

    def run_due_and_be_late():
        left = run_due()
        if next(first, False):
            timer.call_later(0.0, called.set)
        return left

    monkeypatch.setattr(timer, "run_due", run_due_and_be_late)
    timer.call_later(600.0, called.clear)
    timer.start()
    assert called.wait(30)
    timer.stop()


def test_a_state_file_keeps_what_is_written(tmp_path):
    path = str(tmp_path / "state")
    file = StateFile(path)
    assert file.read() is None
    file.write(State(1, 7, {"a": 1.5}))
    file.write(State(1, 8, {"a": 1.5, "b": 2.5}))
    file.close()
    again = StateFile(path)
    assert again.read() == State(1, 8, {"a": 1.5, "b": 2.5})
    again.close()
    assert os.stat(path).st_mode & 0o077 == 0


def test_two_workers_do_not_share_a_state_file(tmp_path):
    path = str(tmp_path / "state")
    first, second = StateFile(path), StateFile(path)
    first.read()
    with pytest.raises(ConfigError, match="another worker uses the state file"):
        second.read()
    first.close()
    assert second.read() is None
    second.close()


@pytest.mark.parametrize("content", [b"SQLite format 3\0", b"", b"\x93\x01"])
def test_a_file_that_is_something_else_is_not_overwritten(tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    file = StateFile(str(path))
    with pytest.raises(StoreCorrupt, match="is no state file"):
        file.read()
    file.close()
    assert path.read_bytes() == content


def test_a_state_file_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "state"
    file = StateFile(str(path))
    file.write(State(2, 0, {}))
    with pytest.raises(StoreCorrupt, match="another version"):
        file.read()
    file.close()


def test_a_place_where_no_file_can_be_is_named():
    with pytest.raises(ConfigError, match="/nowhere/state cannot be used"):
        StateFile("/nowhere/state").read()


@pytest.mark.parametrize("why", ["another worker's", "damaged", "nowhere"])
def test_a_worker_that_could_not_use_the_file_leaves_it_alone_when_it_ends(tmp_path, caplog, why):
    path = tmp_path / "state"
    kept = StateFile(str(path))
    kept.read()
    kept.write(State(VERSION, 7, {"a": 1e12}))
    if why == "damaged":
        kept.close()
        path.write_bytes(b"something else")
    place = "/nowhere/state" if why == "nowhere" else str(path)
    before = path.read_bytes()
    worker = SimpleNamespace(statedb=place, revoked=Revoked(), clock=LamportClock(1))
    step = StateDB(worker)
    with pytest.raises((ConfigError, StoreCorrupt)):
        step.start(worker)
    step.stop(worker)
    step.shutdown(worker)
    kept.close()
    assert path.read_bytes() == before and not caplog.messages


def test_two_that_save_at_once_keep_what_the_later_one_knows(tmp_path, monkeypatch):
    """A revoke comes while the clock is written: it must not be overwritten by what was before."""
    worker = SimpleNamespace(
        statedb=str(tmp_path / "state"), revoked=Revoked(), clock=LamportClock(1), timer=Timer()
    )
    step = StateDB(worker)
    step.start(worker)
    writing, go = threading.Event(), threading.Event()
    write = StateFile.write

    def write_late(file, state):
        if not state.revoked:
            writing.set()
            go.wait(30)
        write(file, state)

    monkeypatch.setattr(StateFile, "write", write_late)
    worker.clock.forward()
    threads = [threading.Thread(target=step._save, args=(worker,))]
    threads[0].start()
    assert writing.wait(30)
    threads.append(threading.Thread(target=worker.revoked.add, args=(["a"],)))
    threads[1].start()
    threads[1].join(0.1)  # it waits for the other one
    go.set()
    for thread in threads:
        thread.join(30)
    kept = msgspec.msgpack.decode((tmp_path / "state").read_bytes(), type=State)
    assert list(kept.revoked) == ["a"], "as a worker finds it that is killed now"
    step.shutdown(worker)
