"""Which process this is, also for one that was forked behind Python's back; what each has."""

import ctypes
import os
import threading

from queue_core import process
from queue_core.process import PerProcess, process_id


def end_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_process_knows_its_own_number():
    assert process_id() == os.getpid()
    child = os.fork()
    if not child:
        os._exit(process_id() != os.getpid())
    assert end_of(child) == 0
    assert process_id() == os.getpid()


def test_a_process_that_a_c_program_forks_knows_its_own_number():
    """Servers such as uWSGI fork themselves, and call none of Python's hooks unless told to."""
    assert process_id() == os.getpid()
    child = ctypes.PyDLL(None).fork()
    if not child:
        os._exit(process_id() != os.getpid())
    assert end_of(child) == 0
    assert process_id() == os.getpid()


def test_where_no_page_is_emptied_by_a_fork_the_system_is_asked(monkeypatch):
    monkeypatch.setattr(process, "_mark", bytes(1))
    monkeypatch.setattr(process, "_own", 0)
    assert process_id() == os.getpid()


def test_threads_that_ask_at_once_get_the_same_thing_and_it_is_made_once():
    made, go = [], threading.Barrier(8)

    def make():
        made.append(object())
        return made[-1]

    own, got = PerProcess(make), []

    def ask():
        go.wait()
        got.append(own.get())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [got[0]] and set(got) == {got[0]}


def test_a_forked_process_has_a_thing_of_its_own_even_while_its_parent_makes_one():
    entered, leave = threading.Event(), threading.Event()

    def make():
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            leave.wait(30)
        return [os.getpid()]

    own = PerProcess(make)
    thread = threading.Thread(target=own.get)
    thread.start()
    assert entered.wait(30)
    child = os.fork()
    if not child:
        os._exit(own.peek() is not None or own.get() != [os.getpid()])
    leave.set()
    thread.join()
    assert end_of(child) == 0
    assert own.get() == [os.getpid()]


def test_what_was_taken_is_made_anew_for_who_asks_next():
    own = PerProcess(list)
    first = own.get()
    assert own.peek() is first and own.take() is first
    assert own.peek() is None and own.take() is None
    assert own.get() is not first


def test_a_thing_that_cannot_be_made_is_tried_again_by_who_asks_next():
    found = iter([None, [1]])

    def make():
        value = next(found)
        if value is None:
            raise OSError("not yet")
        return value

    own = PerProcess(make)
    try:
        own.get()
    except OSError as error:
        assert str(error) == "not yet"
    assert own.peek() is None
    assert own.get() == [1]
