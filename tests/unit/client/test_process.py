"""Which process this is, also for one that was forked behind Python's back."""

import ctypes
import os

from queue_core import process
from queue_core.process import process_id


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
