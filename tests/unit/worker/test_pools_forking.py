"""Children that a template forks share what the app imported, and nothing that would harm them."""

import errno
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from queue_core.testing.eventually import eventually
from queue_core.worker.absent import AppNotFound
from queue_core.worker.outcome import Crashed
from queue_core.worker.pools import processes, template
from queue_core.worker.pools.frames import Setup, pack
from queue_core.worker.pools.launching import can_fork
from queue_core.worker.pools.processes import ProcessPool

APP = """
import os, random, socket, subprocess, sys, threading
from queue_core.worker import App

{first}
app = App("forked", settings={{"worker_pool_start_method": "{method}"}})
imported_by = os.getpid()

@app.task(name="importer")
def importer():
    return [imported_by, os.getpid()]

@app.task(name="roll")
def roll():
    return random.random()

@app.task(name="toss")
def toss():
    return sys.modules["numpy.random"].toss()

@app.task(name="die")
def die():
    os.abort()
"""


@pytest.fixture
def start(tmp_path, monkeypatch, ending):
    """Start a pool for an app that does something first when it is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def started(reports, size=2, first="", method="forkserver"):
        write(tmp_path, first, method)
        pool = ending(ProcessPool(size, Setup("forked:app", list(sys.path), None, "WARNING")))
        pool.start(reports)
        eventually(lambda: len(pool.pids) == size, 30.0)
        return pool

    return started


def write(folder, first="", method="forkserver"):
    (folder / "forked.py").write_text(APP.format(first=first, method=method))


def value_of(pool, reports, name):
    return reports.value(reports.submit(pool, name))


def template_of(pool):
    """The process id of the parent of the children."""
    (status,) = {
        line
        for pid in pool.pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("PPid:")
    }
    return int(status.split()[1])


def test_the_app_is_imported_once_for_all_children(start, reports):
    pool = start(reports)
    importer, child = value_of(pool, reports, "importer")
    assert importer == template_of(pool) != os.getpid()
    assert child in pool.pids


@pytest.mark.parametrize(
    ("first", "method", "why"),
    [
        ("pair = socket.socketpair()", "forkserver", r"leaves socket:\[\d+\] open"),
        ("file = open(__file__)", "forkserver", "leaves .*forked.py open"),
        (
            "threading.Thread(target=threading.Event().wait, daemon=True).start()",
            "forkserver",
            "starts threads",
        ),
        ("left = subprocess.Popen(['true'])", "forkserver", "starts processes"),
        (
            "import tempfile; folder = tempfile.TemporaryDirectory()",
            "forkserver",
            "makes a temporary directory",
        ),
        ("", "spawn", "worker_pool_start_method is spawn"),
    ],
)
def test_an_app_that_is_not_fit_for_it_is_imported_by_each_child(
    start, reports, caplog, first, method, why
):
    caplog.set_level(logging.INFO, "queue_core")
    pool = start(reports, first=first, method=method)
    importer, child = value_of(pool, reports, "importer")
    assert importer == child
    assert template_of(pool) == os.getpid()
    assert re.search(f"each child imports the app by itself, since .*{why}", caplog.text)


def test_children_go_on_when_what_forks_them_dies_and_new_ones_come(start, reports, caplog):
    pool = start(reports)
    before = pool.pids
    os.kill(template_of(pool), signal.SIGKILL)
    assert value_of(pool, reports, "importer")[1] in before
    for child in before:
        os.kill(child, signal.SIGKILL)
    eventually(lambda: len(pool.pids) == 2 and not set(before) & set(pool.pids), 30.0)
    assert "is gone (SIGKILL); children are fresh interpreters from now on" in caplog.text
    assert len(set(value_of(pool, reports, "importer"))) == 1


def test_a_restart_imports_the_app_anew_and_the_old_children_end_as_always(
    start, reports, tmp_path
):
    pool = start(reports, size=1)
    first, template = pool.pids, template_of(pool)
    write(tmp_path, "pass  # another")
    pool.restart()
    eventually(lambda: pool.pids and pool.pids != first and len(pool.pids) == 1, 30.0)
    assert template_of(pool) != template
    eventually(lambda: not Path(f"/proc/{template}").exists())
    job = reports.submit(pool, "die")
    assert reports.outcome(job) == Crashed("SIGABRT")


def test_a_restart_whose_import_hangs_is_given_up_and_said(
    start, reports, tmp_path, monkeypatch, caplog
):
    pool = start(reports, size=1)
    before = pool.pids
    monkeypatch.setattr(processes, "START_TIMEOUT", 0.2)
    write(tmp_path, "threading.Event().wait()")
    pool.restart()
    eventually(lambda: "the app was not imported within 0.2 s" in caplog.text)
    assert pool._children._candidate is None
    assert value_of(pool, reports, "importer")[1] in before


def test_a_child_that_leaves_does_what_was_to_be_done_at_its_end(start, reports, tmp_path):
    first = f"""
import atexit, pathlib
def last():
    pathlib.Path({str(tmp_path)!r}, f"{{os.getpid()}}.done").touch()
atexit.register(last)
"""
    pool = start(reports, size=1, first=first)
    child = value_of(pool, reports, "importer")[1]
    assert pool.stop(20.0)
    assert (tmp_path / f"{child}.done").exists()


def test_children_do_not_roll_the_same_dice(start, reports):
    pool = start(reports, size=1, first="random.random()")
    rolls = set()
    for _ in range(3):
        rolls.add(value_of(pool, reports, "roll"))
        (child,) = pool.pids
        os.kill(child, signal.SIGKILL)
        eventually(lambda gone=child: (pids := pool.pids) and gone not in pids)
    assert len(rolls) == 3


NUMPY = """
import itertools, os
_seed = itertools.count()

def seed():
    global _seed
    _seed = iter(lambda: os.getpid(), None)

def toss():
    return next(_seed)
"""


def test_children_do_not_share_what_numpy_rolls(start, reports, tmp_path):
    package = tmp_path / "numpy"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "random.py").write_text(NUMPY)
    pool = start(reports, size=1, first="import numpy.random")
    assert [value_of(pool, reports, "toss")] == pool.pids


def test_a_generator_of_numpy_that_takes_no_seed_ends_no_child(monkeypatch):
    def seed():
        raise TypeError("can only re-seed a MT19937 BitGenerator")

    monkeypatch.setitem(sys.modules, "numpy.random", SimpleNamespace(seed=seed))
    template._roll_anew()


def test_a_child_waits_for_work_whatever_timeout_the_app_gives_sockets(start, reports):
    pool = start(reports, size=1, first="socket.setdefaulttimeout(0.1)")
    before = pool.pids
    time.sleep(0.5)
    assert value_of(pool, reports, "importer")[1] in before
    assert socket.getdefaulttimeout() is None


def test_children_are_forked_although_there_is_no_stdout(start, reports):
    pool = start(reports, size=1, first="sys.stdout = None")
    importer, child = value_of(pool, reports, "importer")
    assert importer != child


def test_replacing_children_leaves_no_descriptors_and_no_processes(start, reports):
    pool = start(reports, size=1)
    before, template = len(os.listdir("/proc/self/fd")), template_of(pool)
    there = len(os.listdir(f"/proc/{template}/fd"))
    for _ in range(5):
        (child,) = pool.pids
        os.kill(child, signal.SIGKILL)
        eventually(lambda gone=child: (pids := pool.pids) and gone not in pids)
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    eventually(lambda: len(os.listdir(f"/proc/{template}/fd")) <= there)
    children = Path(f"/proc/{template}/task/{template}/children")
    eventually(lambda: [int(pid) for pid in children.read_text().split()] == pool.pids)
    assert pool.stop(20.0)
    assert not Path(f"/proc/{template}").exists()


def test_an_import_that_is_of_no_use_is_undone_as_the_app_wants_it(start, reports, tmp_path):
    first = (
        "import atexit, pathlib, tempfile; folder = tempfile.TemporaryDirectory(dir={0!r});"
        "atexit.register(lambda: pathlib.Path({0!r}, f'ended-{{os.getpid()}}').touch())"
    )
    pool = start(reports, size=1, first=first.format(str(tmp_path)))
    value_of(pool, reports, "roll")
    eventually(lambda: len(list(tmp_path.glob("ended-*"))) == 1)
    assert len(list(tmp_path.glob("tmp*"))) == 1
    assert pool.stop(20.0)
    assert len(list(tmp_path.glob("ended-*"))) == 2 and not list(tmp_path.glob("tmp*"))


def test_a_child_that_cannot_be_held_leaves_no_process(start, reports, monkeypatch):
    pool = start(reports, size=1)
    forks = template_of(pool)
    opened, refused = os.pidfd_open, []

    def pidfd_open(pid):
        if len(refused) < 2:
            refused.append(pid)
            raise OSError(errno.EMFILE, "too many open files")
        return opened(pid)

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    (child,) = pool.pids
    os.kill(child, signal.SIGKILL)
    eventually(lambda: (pids := pool.pids) and child not in pids)
    assert len(refused) == 2
    children = Path(f"/proc/{forks}/task/{forks}/children")
    eventually(lambda: [int(pid) for pid in children.read_text().split()] == pool.pids)


@pytest.mark.parametrize(
    ("module", "function"), [(os, "pidfd_open"), (signal, "pidfd_send_signal")]
)
def test_a_python_that_was_built_for_older_systems_does_without(monkeypatch, module, function):
    assert can_fork()
    monkeypatch.delattr(module, function)
    assert not can_fork()


def test_an_app_whose_import_ends_the_process_is_reported(start, reports):
    with pytest.raises(AppNotFound, match="while it imported the app: SIGABRT"):
        start(reports, first="os.abort()")


def test_a_pool_that_was_launched_and_never_started_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path)
    pool = ProcessPool(1, Setup("forked:app", list(sys.path), None, "WARNING"))
    pool.launch()
    template = pool._children._candidate._process.pid
    assert Path(f"/proc/{template}").exists()
    assert pool.stop(0.0)
    assert not Path(f"/proc/{template}").exists()


@pytest.mark.parametrize("module", ["template", "child"])
def test_a_worker_that_ends_while_they_import_its_app_makes_them_leave_without_a_traceback(
    tmp_path, module
):
    (tmp_path / "plain.py").write_text(APP.format(first="", method="forkserver"))
    ours, theirs = socket.socketpair()
    grants, granted = socket.socketpair()
    lifeline, held = os.pipe()
    fds = [theirs.fileno(), lifeline]
    if module == "child":
        fds.insert(1, granted.fileno())
    process = subprocess.Popen(
        [sys.executable, "-m", f"queue_core.worker.pools.{module}", *map(str, fds)],
        pass_fds=fds,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ours.sendall(pack(Setup("plain:app", [str(tmp_path), *sys.path], None, "WARNING")))
        ours.close()
        theirs.close()
        _, said = process.communicate(timeout=30.0)
        assert (process.returncode, said) == (0, "")
    finally:
        process.kill()
        for end in (grants, granted):
            end.close()
        for fd in (lifeline, held):
            os.close(fd)
