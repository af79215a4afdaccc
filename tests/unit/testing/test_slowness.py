"""A bound is the real one, and longer only by as much as the machine itself was slow."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tests.freezing import freeze


def test_what_ends_in_time_passes(machine):
    with machine.within(0.0, 20.0):
        time.sleep(0.01)


def test_what_ends_late_on_a_machine_that_is_quick_enough_fails(machine):
    with pytest.raises(
        AssertionError, match=r"^took 0\.\d+ s; 0 s and 0\.001 s of work are promis"
    ):
        with machine.within(0.0, 0.001):
            time.sleep(0.5)


def test_what_ends_late_while_the_machine_stood_still_passes(machine):
    with machine.within(0.0, 0.05):
        freeze(machine.pid)
        wake = threading.Timer(1.0, os.kill, (machine.pid, signal.SIGCONT))
        wake.start()
        time.sleep(0.5)
    wake.join()
