"""`SessionSuite`, part 7: one session used by many threads at once."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import queue as queues
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from queue_core.errors import QueueCoreError
from queue_core.message import Delivery, Settlement
from queue_core.policy import Deadline, SystemClock
from queue_core.testing.session_bench import Bench, SessionTests, timed

THREADS = 8


class ThreadTests(SessionTests):
    """A session is thread-safe; each consumer receives on one thread at a time."""

    def test_eight_threads_publish_at_once_and_each_keeps_its_order(self, bench: Bench) -> None:
        queue = bench.queue()
        rounds = 25

        def publish(thread: int) -> None:
            for number in range(rounds):
                bench.send(queue, b"%d:%d" % (thread, number))

        at_once(publish, THREADS, bench.patience * 3)
        bodies = [d.body for d in bench.tap(queue, prefetch=1000).take(THREADS * rounds)]
        for thread in range(THREADS):
            own = [body for body in bodies if body.startswith(b"%d:" % thread)]
            assert own == [b"%d:%d" % (thread, number) for number in range(rounds)]

    def test_other_threads_settle_while_one_receives(self, bench: Bench) -> None:
        queue = bench.queue()
        total = 200
        bench.send(queue, *[b"%d" % number for number in range(total)])
        tap = bench.tap(queue, prefetch=10)
        work: queues.SimpleQueue[Delivery | None] = queues.SimpleQueue()

        def settle() -> None:
            while (delivery := work.get()) is not None:
                tap.session.settle([Settlement(delivery)])

        threads = [threading.Thread(target=settle, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        seen: list[bytes] = []
        while len(seen) < total:
            delivery = tap.one()
            seen.append(delivery.body)
            work.put(delivery)
        for _ in threads:
            work.put(None)
        for thread in threads:
            thread.join(bench.patience)
        tap.flush()
        tap.cancel()
        assert sorted(seen) == sorted(b"%d" % number for number in range(total))
        bench.expect(queue, [])

    def test_many_consumers_of_one_session_share_the_work(self, bench: Bench) -> None:
        queue = bench.queue()
        total = 200
        bench.send(queue, *[b"%d" % number for number in range(total)])
        taps = [bench.tap(queue, prefetch=5) for _ in range(4)]
        seen: queues.SimpleQueue[bytes] = queues.SimpleQueue()
        deadline = Deadline.after(bench.patience * 2, SystemClock())

        def consume(index: int) -> None:
            tap = taps[index]
            while seen.qsize() < total and not deadline.expired:
                for delivery in tap.session.receive(tap.consumer, limit=2, wait=0.1):
                    tap.session.settle([Settlement(delivery)])
                    seen.put(delivery.body)
            tap.flush()

        at_once(consume, len(taps), bench.patience * 3)
        bodies = [seen.get() for _ in range(seen.qsize())]
        assert sorted(bodies) == sorted(b"%d" % number for number in range(total))

    def test_everything_at_once(self, bench: Bench) -> None:
        """Publishing, declaring, looking and consuming do not get in each other's way."""
        queue = bench.queue()
        tap = bench.tap(queue, prefetch=20)
        done = threading.Event()
        got: list[bytes] = []

        def run(thread: int) -> None:
            if thread == 0:
                while len(got) < 60 and not done.is_set():
                    deliveries = tap.session.receive(tap.consumer, wait=0.2)
                    tap.session.settle([Settlement(delivery) for delivery in deliveries])
                    got.extend(delivery.body for delivery in deliveries)
            elif thread < 4:
                for number in range(20):
                    bench.send(queue, b"%d:%d" % (thread, number))
            else:
                for _ in range(5):
                    other = bench.queue()
                    bench.session.inspect(queue.name)
                    bench.session.delete(other)

        try:
            at_once(run, 6, bench.patience * 3)
        finally:
            done.set()
        assert len(got) == len(set(got)) == 60

    def test_close_ends_a_receive_on_another_thread(self, bench: Bench) -> None:
        session = bench.open()
        tap = bench.tap(bench.queue(), session=session)
        ended = threading.Event()

        def receive() -> None:
            try:
                while not session.closed:
                    session.receive(tap.consumer, wait=1.0)
            except QueueCoreError:
                pass
            ended.set()

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        assert timed(session.close) < bench.patience
        assert ended.wait(bench.patience)
        thread.join(bench.patience)

    def test_a_session_leaves_no_thread_behind(self, bench: Bench) -> None:
        bench.open().close()
        before = set(threading.enumerate())
        session = bench.open()
        tap = bench.tap(bench.queue(session=session), session=session)
        tap.none()
        session.close()
        ended = "its threads have ended"
        bench.late(lambda: set(threading.enumerate()) <= before, bench.patience, ended)


def at_once(run: Callable[[int], None], threads: int, deadline: float) -> None:
    """Call ``run(0) .. run(threads - 1)`` on threads of their own, all begun together."""
    barrier = threading.Barrier(threads)

    def begin(index: int) -> None:
        barrier.wait(deadline)
        run(index)

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(begin, index) for index in range(threads)]:
            future.result(deadline)
