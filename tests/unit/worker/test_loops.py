"""Coroutines on the event loop of the process."""

import asyncio
import contextvars
import signal
import threading

import pytest

from queue_core.worker import loops

NAME = contextvars.ContextVar("name", default="nobody")


class Interrupted(Exception):
    """What the alarm raises."""


@pytest.fixture
def alarm():
    """Raise `Interrupted` in the main thread once, a moment after it was called by any."""

    def ring(_number, _frame):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.2)
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


def test_values_and_errors_come_back():
    async def good():
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def bad():
        raise LookupError("nothing")

    assert loops.run(good()) == "event loop"
    with pytest.raises(LookupError, match="nothing"):
        loops.run(bad())


def test_all_run_on_one_loop_which_is_made_once():
    async def loop():
        return asyncio.get_running_loop()

    found, threads = [], []
    for _ in range(5):
        threads.append(threading.Thread(target=lambda: found.append(loops.run(loop()))))
        threads[-1].start()
    for thread in threads:
        thread.join(20.0)
    assert found == [loops.loop_here()] * 5


def test_what_awaits_need_not_be_a_coroutine():
    class Later:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return 7

    assert loops.run(Later()) == 7


def test_context_variables_of_the_caller_are_seen():
    async def name():
        await asyncio.sleep(0)
        return NAME.get()

    token = NAME.set("caller")
    try:
        assert loops.run(name()) == "caller"
    finally:
        NAME.reset(token)


def test_what_interrupts_the_caller_is_raised_where_the_coroutine_waits(alarm):
    async def waiting():
        alarm()
        try:
            await asyncio.sleep(30.0)
        except Interrupted:
            await asyncio.sleep(0)  # it may go on
            return "in order"

    assert loops.run(waiting()) == "in order"


def test_what_the_coroutine_does_not_catch_is_raised_in_the_caller(alarm):
    async def waiting():
        alarm()
        await asyncio.sleep(30.0)

    with pytest.raises(Interrupted):
        loops.run(waiting())


def test_an_interrupt_passes_through_timeouts_and_groups(alarm):
    async def waiting():
        alarm()
        try:
            async with asyncio.timeout(30.0):
                await asyncio.gather(asyncio.sleep(30.0), asyncio.sleep(30.0))
        except Interrupted:
            return asyncio.current_task().cancelling()

    assert loops.run(waiting()) == 0


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_coroutine_that_wants_to_leave_does_not_end_the_loop(error):
    async def leaving():
        raise error

    async def after():
        return "here"

    with pytest.raises(error):
        loops.run(leaving())
    assert loops.run(after()) == "here"


def test_what_is_interrupt_before_it_began_never_begins():
    begun = []

    async def body():
        begun.append(1)

    async def cut_first():
        run = loops.Run(body())
        run.interrupt(Interrupted())
        return await run.result()

    value, error = loops.run(cut_first())
    assert value is None and isinstance(error, Interrupted)
    assert not begun
