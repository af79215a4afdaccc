"""`SessionSuite`, part 6: crashes, closing, and what lives as long as somebody uses it."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import threading
import time

import pytest

from queue_core.errors import (
    AccessRefused,
    QueueCoreError,
    StaleDelivery,
    TransportError,
)
from queue_core.testing.session_bench import Bench, SessionTests, exists, timed
from queue_core.testing.session_features import needs
from queue_core.testing.session_tap import Tap
from queue_core.topology import Queue


class LifetimeTests(SessionTests):
    """Sessions end politely or not; queues end with them or on their own."""

    # close

    def test_close_gives_back_what_is_unsettled_uncounted(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1", b"2", b"3")
        session = bench.open()
        tap = bench.tap(queue, session=session)
        deliveries = tap.take(3)
        tap.ack(deliveries[0], flush=False)
        session.close()
        again = bench.tap(queue).take(2)
        assert [delivery.body for delivery in again] == [b"2", b"3"]
        if bench.features.attempts and bench.features.atomic_settle:
            assert [delivery.attempts for delivery in again] == [1, 1]

    def test_close_flushes_what_was_settled(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, *[b"%d" % number for number in range(20)])
        session = bench.open()
        tap = bench.tap(queue, session=session)
        tap.ack(*tap.take(20), flush=False)
        session.close()
        bench.holds(queue, 0)
        bench.expect(queue, [])

    def test_close_may_be_called_twice_and_is_quick(self, bench: Bench) -> None:
        session = bench.open()
        bench.tap(bench.queue(), session=session)
        states = [session.closed]
        for limit in (8.0, 4.0):
            assert timed(session.close) < limit
            states.append(session.closed)
        assert states == [False, True, True]

    def test_a_closed_session_does_nothing_more(self, bench: Bench) -> None:
        queue = bench.queue()
        session = bench.open()
        session.close()
        for call in (
            lambda: session.publish([bench.publication(queue, b"x")]),
            lambda: session.declare(Queue(bench.name("queue"))),
            lambda: session.inspect(queue.name),
            lambda: session.subscribe("c", queue.name, prefetch=1),
        ):
            with pytest.raises(QueueCoreError):
                call()
        bench.expect(queue, [])

    def test_one_session_can_open_after_another(self, bench: Bench) -> None:
        queue = bench.queue()
        for number in range(5):
            session = bench.open()
            bench.send(queue, b"%d" % number, session=session)
            assert bench.tap(queue, session=session).one().body == b"0"
            session.close()
        bench.holds(queue, 5)

    # stop

    def test_a_stopped_consumer_keeps_what_it_received_and_gives_the_rest_back(
        self, bench: Bench
    ) -> None:
        queue = bench.queue()
        bench.send(queue, *[b"%d" % number for number in range(10)])
        session = bench.open(lease=30.0)
        tap = bench.tap(queue, session=session, prefetch=10)
        held = tap.take(3)
        session.stop(tap.consumer)
        session.stop(tap.consumer)
        other = bench.tap(queue)
        rest = other.take(7)
        assert sorted(delivery.body for delivery in rest) == [b"%d" % n for n in range(3, 10)]
        if bench.features.attempts:
            assert [delivery.attempts for delivery in rest] == [1] * 7
        tap.none()
        tap.ack(*held[:2])
        tap.requeue(held[2], counted=False)
        assert other.one().body == b"2"
        other.ack_all()
        tap.cancel()
        bench.holds(queue, 0)

    def test_stop_ends_a_receive_that_waits_and_later_ones_are_empty(self, bench: Bench) -> None:
        queue = bench.queue()
        tap = bench.tap(queue)
        tap.none()
        timer = threading.Timer(0.2, tap.session.stop, [tap.consumer])
        timer.start()
        assert timed(tap.none) < bench.patience
        assert timed(lambda: tap.session.receive(tap.consumer, wait=20.0)) < 10.0
        timer.join()
        bench.send(queue, b"for others")
        tap.none()
        assert bench.tap(queue).one().body == b"for others"

    def test_a_consumer_cancelled_after_its_stop_may_begin_again(self, bench: Bench) -> None:
        queue = bench.queue()
        tap = bench.tap(queue)
        tap.session.stop(tap.consumer)
        tap.cancel()
        bench.send(queue, b"again")
        tap.subscribe(queue, 5)
        assert tap.one().body == b"again"

    # crash

    def test_a_crashed_sessions_messages_come_back_within_the_lease(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1", b"2", b"3")
        session = bench.open_mortal()
        bench.tap(queue, session=session).take(3)
        other = bench.tap(queue)
        other.none()
        bench.crash(session)
        again = other.take(3, within=bench.lease + bench.patience)
        assert sorted(delivery.body for delivery in again) == [b"1", b"2", b"3"]
        assert all(delivery.redelivered for delivery in again)
        if bench.features.attempts:
            assert [delivery.attempts for delivery in again] == [2, 2, 2]

    def test_a_living_session_keeps_its_messages_far_beyond_the_lease(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"long work")
        lease = 3 * bench.lease  # a busy machine may keep a session from its heartbeat
        session = bench.open(lease=lease)
        tap = bench.tap(queue, session=session)
        delivery = tap.one()
        other = bench.tap(queue)
        other.none(2 * lease)
        tap.ack(delivery)
        tap.cancel()
        other.none()

    @needs("atomic_settle")
    def test_a_session_given_up_for_dead_changes_nothing_any_more(self, bench: Bench) -> None:
        """The emulated kind comes back to life after its messages were given to somebody else."""
        queue = bench.queue()
        bench.send(queue, b"1")
        session = bench.open_mortal()
        tap = bench.tap(queue, session=session)
        delivery = tap.one()
        bench.crash(session)
        other = bench.tap(queue)
        other.one(within=bench.lease + bench.patience)
        with pytest.raises((TransportError, QueueCoreError)):
            tap.ack(delivery)
        other.requeue(*other.held)
        other.cancel()
        bench.expect(queue, [b"1"])

    @needs("atomic_settle")
    def test_a_session_given_up_for_dead_publishes_no_results(self, bench: Bench) -> None:
        """What it would publish together with an ack that comes too late is not stored."""
        work, following = bench.queue(), bench.queue()
        bench.send(work, b"job")
        session = bench.open_mortal()
        delivery = bench.tap(work, session=session).one()
        bench.crash(session)
        other = bench.tap(work)
        other.one(within=bench.lease + bench.patience)
        with pytest.raises((StaleDelivery, TransportError)):
            session.settle_then(delivery, [bench.publication(following, b"too late")])
        bench.expect(following, [])
        other.ack_all()

    @needs("atomic_settle")
    def test_a_node_that_returns_ends_its_older_session_at_once(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1")
        node = bench.name("node")
        older = bench.open(node=node, lease=60.0)
        tap = bench.tap(queue, session=older)
        tap.one()
        newer = bench.open(node=node, lease=60.0)
        assert bench.tap(queue, session=newer).one().body == b"1"
        assert _ends(tap)

    @needs("atomic_settle")
    def test_a_session_opened_again_ends_its_own_earlier_ones_and_no_others_of_its_node(
        self, bench: Bench
    ) -> None:
        """Else two processes that were given one name would end each other for ever."""
        queue, node = bench.queue(), bench.name("node")

        def open_tap(origin: str, *, again: bool) -> Tap:
            session = bench.open(node=node, origin=origin, again=again, lease=60.0)
            return bench.tap(queue, session=session)

        first = open_tap("0a1", again=False)
        other = open_tap("0b2", again=False)
        assert _ends(first)
        second = open_tap("0a1", again=True)
        third = open_tap("0a1", again=True)
        assert _ends(second)
        for tap in (third, other):
            assert not tap.session.receive(tap.consumer, wait=0.0)
            assert not tap.session.closed

    # exclusive

    @needs("exclusive")
    def test_an_exclusive_queue_refuses_other_sessions(self, bench: Bench) -> None:
        owner, other = bench.open(), bench.open()
        queue = bench.queue(session=owner, exclusive=True, durable=False)
        owner.declare(queue)
        bench.send(queue, b"from outside", session=other)
        for call in (
            lambda: other.subscribe("c", queue.name, prefetch=1),
            lambda: other.declare(queue),
            lambda: other.declare(Queue(queue.name), passive=True),
        ):
            with pytest.raises(AccessRefused, match=queue.name):
                call()
        assert bench.tap(queue, session=owner).one().body == b"from outside"

    @needs("exclusive")
    def test_an_exclusive_queue_goes_with_its_session(self, bench: Bench) -> None:
        owner = bench.open()
        queue = bench.queue(session=owner, exclusive=True, durable=False)
        bench.send(queue, b"x")
        owner.close()
        bench.soon(lambda: not bench.exists(Queue(queue.name)))
        assert bench.publish(bench.publication(queue, b""))[0].status == "unroutable"

    @needs("exclusive")
    def test_an_exclusive_queue_goes_with_a_crashed_session(self, bench: Bench) -> None:
        owner = bench.open_mortal()
        queue = bench.queue(session=owner, exclusive=True, durable=False)
        with pytest.raises(AccessRefused):
            bench.session.subscribe("c", queue.name, prefetch=1)
        bench.crash(owner)
        bench.late(lambda: _gone(bench, queue), bench.lease + bench.patience)

    @needs("exclusive")
    def test_the_name_of_an_exclusive_queue_is_free_afterwards(self, bench: Bench) -> None:
        owner = bench.open()
        queue = bench.queue(session=owner, exclusive=True, durable=False)
        bench.send(queue, b"old")
        owner.close()
        bench.soon(lambda: not bench.exists(Queue(queue.name)))
        bench.declare(Queue(queue.name))
        bench.expect(queue, [])

    # auto_delete

    @needs("auto_delete")
    def test_an_auto_delete_queue_goes_with_its_last_consumer(self, bench: Bench) -> None:
        queue = bench.queue(auto_delete=True)
        one, two = bench.tap(queue), bench.tap(queue, session=bench.open())
        one.cancel()
        time.sleep(bench.suite.quiet)
        assert bench.exists(queue)
        two.cancel()
        bench.soon(lambda: not bench.exists(queue))

    @needs("auto_delete")
    def test_an_auto_delete_queue_waits_for_its_first_consumer(self, bench: Bench) -> None:
        maker = bench.open()
        queue = bench.queue(session=maker, auto_delete=True)
        maker.close()
        time.sleep(bench.suite.quiet)
        bench.send(queue, b"kept")
        tap = bench.tap(queue)
        assert tap.one().body == b"kept"

    @needs("auto_delete")
    def test_an_auto_delete_queue_goes_with_its_consumers_session(self, bench: Bench) -> None:
        queue = bench.queue(auto_delete=True)
        session = bench.open()
        bench.tap(queue, session=session)
        session.close()
        bench.soon(lambda: not bench.exists(queue))

    @needs("auto_delete")
    def test_an_auto_delete_queue_goes_with_a_crashed_consumer(self, bench: Bench) -> None:
        queue = bench.queue(auto_delete=True)
        session = bench.open_mortal()
        bench.tap(queue, session=session)
        assert bench.exists(queue)
        bench.crash(session)
        bench.late(lambda: not bench.exists(queue), bench.lease + bench.patience)

    # expires

    @needs("queue_expiry")
    def test_a_queue_expires_when_nobody_uses_it(self, bench: Bench) -> None:
        fanout = bench.exchange("fanout")
        queue = bench.queue((fanout, ""), expires=1.5)
        bench.send(fanout, b"x")
        time.sleep(0.2)
        assert bench.publish(bench.publication(fanout, b""))[0].status == "confirmed"
        bench.late(
            lambda: bench.unroutable(fanout),
            1.5 + bench.patience,
            "publishing does not keep it alive",
        )
        assert not bench.exists(queue)

    @needs("queue_expiry")
    def test_a_consumer_keeps_a_queue_from_expiring(self, bench: Bench) -> None:
        queue = bench.queue(expires=1.0)
        tap = bench.tap(queue)
        tap.none(2.0)
        bench.send(queue, b"still there")
        assert tap.one().body == b"still there"
        tap.cancel()
        bench.late(lambda: bench.unroutable(queue), 1.0 + bench.patience)

    @needs("queue_expiry")
    def test_declaring_keeps_a_queue_from_expiring(self, bench: Bench) -> None:
        queue = bench.queue(expires=2.0)
        bench.send(queue, b"still there")
        for _ in range(16):
            time.sleep(0.2)
            bench.session.declare(queue)
        bench.expect(queue, [b"still there"])

    @needs("queue_expiry")
    def test_a_queue_expires_after_its_consumer_crashed(self, bench: Bench) -> None:
        session = bench.open_mortal()
        queue = bench.queue(session=session, expires=1.0)
        bench.tap(queue, session=session)
        bench.crash(session)
        bench.late(lambda: bench.unroutable(queue), bench.lease + 1.0 + bench.patience)


def _gone(bench: Bench, queue: Queue) -> bool:
    try:
        return not exists(bench.session, Queue(queue.name))
    except AccessRefused:
        return False


def _ends(tap: Tap) -> bool:
    """Whether the session of the tap hears, within seconds, that it is over."""
    with pytest.raises(TransportError):
        for _ in range(60):
            tap.session.receive(tap.consumer, wait=0.5)
    return tap.session.closed
