"""A pipe that wakes the thread that waits for it."""

import select
import signal
import threading

from queue_core.worker.wake_pipe import WakePipe


def _awake(pipe: WakePipe, seconds: float = 0.0) -> bool:
    return bool(select.select([pipe.readable], [], [], seconds)[0])


def test_a_wake_ends_the_wait_that_begins_after_it_and_draining_forgets_it() -> None:
    pipe = WakePipe()
    assert not _awake(pipe)
    pipe.wake()
    pipe.wake()
    assert _awake(pipe)
    pipe.drain()
    assert not _awake(pipe)
    pipe.drain()  # there is nothing to forget: it does not block
    pipe.close()


def test_a_wake_ends_the_wait_of_another_thread() -> None:
    pipe = WakePipe()
    threading.Timer(0.02, pipe.wake).start()
    assert _awake(pipe, 30.0)
    pipe.close()


def test_wakes_that_nobody_drains_do_not_block() -> None:
    pipe = WakePipe()
    for _ in range(100_000):  # more than a pipe holds
        pipe.wake()
    assert _awake(pipe)
    pipe.close()


def test_a_signal_handler_may_wake_while_the_thread_that_it_interrupts_does() -> None:
    pipe = WakePipe()
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: pipe.wake())
    try:
        with pipe._lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert _awake(pipe)
    pipe.close()


def test_a_closed_pipe_is_not_written_to() -> None:
    pipe = WakePipe()
    pipe.close()
    pipe.wake()
    assert pipe.writable == -1
