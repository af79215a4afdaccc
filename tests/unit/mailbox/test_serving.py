"""The loop of a thread that takes from a broker."""

import threading

import pytest

from queue_core import Closed, ConnectionLost
from queue_core.mailbox.serving import serve


class Stopping(threading.Event):
    """Waits no time, and remembers for how long it should have."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        return self.is_set()


def test_a_broker_that_is_away_is_waited_for_with_a_growing_delay(caplog):
    stopping, results = Stopping(), [ConnectionLost("gone")] * 6 + [None, ConnectionLost("again")]

    def step():
        if not results:
            stopping.set()
        elif (result := results.pop(0)) is not None:
            raise result

    serve(step, stopping, "no commands for now")
    assert len(stopping.waits) == 7
    assert caplog.text.count("no commands for now: gone") == 6
    assert stopping.waits[6] <= 0.5  # after a success it begins anew


def test_it_ends_when_what_it_uses_is_closed():
    def step():
        raise Closed("over")

    serve(step, threading.Event(), "")


def test_a_mistake_is_no_trouble_of_the_brokers():
    def step():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(step, threading.Event(), "")
