"""`SessionSuite`, part 3: receiving, prefetch, settling."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import threading
import time

import pytest

from queue_core.errors import QueueNotFound, StaleDelivery
from queue_core.testing.session_bench import Bench, SessionTests, timed
from queue_core.testing.session_features import needs
from queue_core.testing.session_tap import properties_of


class DeliveryTests(SessionTests):
    """From `subscribe` to `flush`."""

    # receiving

    def test_messages_come_in_order_with_their_bodies(self, bench: Bench) -> None:
        queue = bench.queue()
        bodies = [b"%d" % number for number in range(20)]
        bench.send(queue, *bodies[:10])
        tap = bench.tap(queue)
        assert [delivery.body for delivery in tap.take(10)] == bodies[:10]
        bench.send(queue, *bodies[10:])
        assert [delivery.body for delivery in tap.take(10)] == bodies[10:]

    def test_an_empty_queue_gives_nothing_and_keeps_to_the_wait(self, bench: Bench) -> None:
        tap = bench.tap(bench.queue())
        assert timed(lambda: tap.session.receive(tap.consumer, wait=0.0)) < 4.0
        took = timed(lambda: tap.session.receive(tap.consumer, wait=0.3))
        assert 0.25 <= took < 4.0

    def test_a_waiting_consumer_gets_a_new_message_soon(self, bench: Bench) -> None:
        queue = bench.queue()
        tap = bench.tap(queue)
        publisher = bench.open()
        timer = threading.Timer(0.2, bench.send, (queue, b"x"), {"session": publisher})
        timer.start()
        took = timed(lambda: tap.session.receive(tap.consumer, wait=20.0))
        timer.join()
        assert took < 6.0

    def test_receive_keeps_to_its_limit(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, *[b"%d" % number for number in range(10)])
        tap = bench.tap(queue)
        assert [delivery.body for delivery in tap.take(3)] == [b"0", b"1", b"2"]
        assert len(tap.take(7)) == 7

    def test_wake_from_another_thread_does_no_harm(self, bench: Bench) -> None:
        """Whether it ends the wait early is up to the transport; nothing may be lost or hang."""
        queue = bench.queue()
        tap = bench.tap(queue)
        timer = threading.Timer(0.05, tap.session.wake, (tap.consumer,))
        timer.start()
        took = timed(lambda: tap.session.receive(tap.consumer, wait=0.5))
        timer.join()
        assert took < 5.0
        tap.session.wake(tap.consumer)
        bench.send(queue, b"x")
        assert tap.one().body == b"x"
        tap.session.wake("nobody")

    def test_subscribing_to_a_missing_queue_is_an_error(self, bench: Bench) -> None:
        name = bench.name("missing")
        with pytest.raises(QueueNotFound, match=name):
            bench.session.subscribe("consumer", name, prefetch=1)

    def test_a_deleted_queue_ends_its_subscription_and_no_other(self, bench: Bench) -> None:
        gone, kept = bench.queue(), bench.queue()
        tap = bench.tap(gone, kept)
        bench.open().delete(gone)
        with pytest.raises(QueueNotFound, match=gone.name) as caught:
            for _ in range(int(bench.patience)):
                tap.session.receive(tap.consumer, wait=1.0)
        assert caught.value.ended == gone.name
        bench.send(kept, b"x")
        assert tap.one().body == b"x"
        tap.none()

    def test_a_queue_declared_anew_is_not_the_one_subscribed_to(self, bench: Bench) -> None:
        """What the old subscription may still get before it hears of it goes back."""
        queue = bench.queue(durable=False)
        tap = bench.tap(queue)
        other = bench.open()
        other.delete(queue)
        other.declare(queue)
        bench.send(queue, b"for the new one", session=other)
        with pytest.raises(QueueNotFound, match=queue.name):
            for _ in range(int(bench.patience)):
                tap.session.receive(tap.consumer, wait=1.0)
        bench.expect(queue, [b"for the new one"])

    # prefetch

    def test_no_more_than_prefetch_is_unsettled(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, *[b"%d" % number for number in range(10)])
        tap = bench.tap(queue, prefetch=3)
        first = tap.take(3)
        tap.none()
        bench.holds(queue, 7)
        tap.ack(first[1])
        second = tap.one()
        tap.none()
        tap.ack(first[0], second)
        assert [delivery.body for delivery in tap.take(2)] == [b"4", b"5"]
        tap.none()

    def test_a_prefetch_of_one_hands_out_one_by_one(self, bench: Bench) -> None:
        queue = bench.queue()
        bodies = [b"%d" % number for number in range(5)]
        bench.send(queue, *bodies)
        tap = bench.tap(queue, prefetch=1)
        got = []
        for _ in bodies:
            delivery = tap.one()
            tap.none(0.0)
            tap.ack(delivery, flush=False)
            got.append(delivery.body)
        assert got == bodies

    def test_settling_makes_room_without_a_flush(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, *[b"%d" % number for number in range(50)])
        tap = bench.tap(queue, prefetch=2)
        for _ in range(25):
            tap.ack(*tap.take(2), flush=False)
        tap.none()

    def test_each_queue_of_a_consumer_has_its_own_window(self, bench: Bench) -> None:
        busy, calm = bench.queue(), bench.queue()
        bench.send(busy, *[b"%d" % number for number in range(5)])
        tap = bench.tap()
        tap.subscribe(busy, 2)
        tap.subscribe(calm, 1)
        tap.take(2)
        tap.none()
        bench.send(calm, b"a", b"b")
        assert (tap.one().queue, tap.held[-1].body) == (calm.name, b"a")
        tap.none()
        tap.ack(tap.held[0])
        assert tap.one().queue == busy.name
        tap.none()

    def test_two_consumers_share_a_queue(self, bench: Bench) -> None:
        queue = bench.queue()
        taps = [bench.tap(queue, prefetch=2), bench.tap(queue, prefetch=2, session=bench.open())]
        bench.send(queue, *[b"%d" % number for number in range(6)])
        got = [delivery.body for tap in taps for delivery in tap.take(2)]
        assert sorted(got) == [b"0", b"1", b"2", b"3"]
        for tap in taps:
            tap.none()
        taps[0].ack_all()
        assert sorted(d.body for d in taps[0].take(2)) == [b"4", b"5"]

    # ack

    def test_an_acked_message_never_comes_again(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, *[b"%d" % number for number in range(10)])
        session = bench.open()
        tap = bench.tap(queue, session=session)
        deliveries = tap.take(10)
        tap.ack(*deliveries[:5], *deliveries[7:])
        session.close()
        bench.expect(queue, [b"5", b"6"])
        bench.holds(queue, 0)

    def test_an_ack_after_flush_survives_a_crash(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"done", b"not done")
        session = bench.open_mortal()
        tap = bench.tap(queue, session=session)
        done, _ = tap.take(2)
        tap.ack(done)
        bench.crash(session)
        other = bench.tap(queue)
        assert other.one(within=bench.lease + bench.patience).body == b"not done"
        other.none()

    def test_acks_are_on_their_way_without_a_flush(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"x")
        tap = bench.tap(queue)
        tap.ack(tap.one(), flush=False)
        bench.late(
            lambda: bench.session.inspect(queue.name).unacked in (0, None),
            bench.patience,
            "the ack is there",
        )

    def test_a_flush_with_nothing_to_do_returns(self, bench: Bench) -> None:
        tap = bench.tap(bench.queue())
        tap.flush()
        tap.flush()

    # requeue

    def test_a_requeued_message_comes_again(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"again", headers={"kept": [1]}, message_id="m")
        tap = bench.tap(queue)
        tap.requeue(tap.one())
        again = tap.one()
        assert again.body == b"again"
        assert again.redelivered
        assert properties_of(again).headers["kept"] == [1]
        assert properties_of(again).message_id == "m"
        assert (again.exchange, again.routing_key) == ("", queue.name)

    @needs("delay")
    def test_a_requeue_with_a_delay_waits(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"later", b"now")
        tap = bench.tap(queue)
        later, now = tap.take(2)
        begun = time.monotonic()
        tap.requeue(later, delay=0.4)
        tap.ack(now)
        assert tap.one().body == b"later"
        assert 0.39 <= time.monotonic() - begun < 0.4 + 5.0

    @needs("attempts")
    def test_a_requeue_can_go_uncounted(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"x")
        tap = bench.tap(queue)
        for counted, attempts in ((False, 1), (False, 1), (True, 1), (False, 2), (True, 2)):
            delivery = tap.one()
            assert delivery.attempts == attempts
            tap.requeue(delivery, counted=counted)
        assert tap.one().attempts == 3

    @needs("requeue_in_place", "priority")
    def test_a_requeued_message_keeps_its_priority(self, bench: Bench) -> None:
        queue = bench.queue(max_priority=9)
        bench.send(queue, b"low", priority=1)
        bench.send(queue, b"high", priority=8)
        tap = bench.tap(queue, prefetch=1)
        high = tap.one()
        tap.requeue(high)
        tap.cancel()
        bench.expect(queue, [b"high", b"low"])

    # priority and delay

    @needs("priority")
    def test_a_queue_without_max_priority_ignores_priorities(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"first", priority=0)
        bench.send(queue, b"second", priority=9)
        bench.expect(queue, [b"first", b"second"])

    @needs("priority")
    def test_priorities_beyond_the_maximum_count_as_the_maximum(self, bench: Bench) -> None:
        queue = bench.queue(max_priority=3)
        bench.send(queue, b"1", priority=3)
        bench.send(queue, b"2", priority=9)
        bench.send(queue, b"3", priority=2)
        bench.expect(queue, [b"1", b"2", b"3"])

    @needs("delay")
    def test_delayed_messages_come_by_due_time_and_hold_nobody_up(self, bench: Bench) -> None:
        queue = bench.queue()
        tap = bench.tap(queue)
        for body, delay in ((b"third", 0.8), (b"second", 0.4), (b"first", 0.0)):
            bench.send(queue, body, delay=delay)
        assert [delivery.body for delivery in tap.take(3)] == [b"first", b"second", b"third"]

    @needs("delay")
    def test_a_delayed_message_goes_through_exchanges(self, bench: Bench) -> None:
        topic = bench.exchange("topic")
        queue = bench.queue((topic, "a.*"))
        other = bench.queue((topic, "b.*"))
        bench.send(topic, b"later", key="a.b", delay=0.2, headers={"h": 1}, priority=3)
        delivery = bench.tap(queue).one()
        assert (delivery.exchange, delivery.routing_key) == (topic.name, "a.b")
        assert properties_of(delivery).headers == {"h": 1}
        bench.expect(other, [])

    # stale deliveries

    def test_cancel_gives_back_what_is_unsettled(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1", b"2", b"3")
        tap = bench.tap(queue)
        deliveries = tap.take(3)
        tap.ack(deliveries[1])
        tap.cancel()
        tap.cancel()
        other = bench.tap(queue)
        again = other.take(2)
        assert sorted(delivery.body for delivery in again) == [b"1", b"3"]
        if bench.features.attempts and bench.features.atomic_settle:
            assert [delivery.attempts for delivery in again] == [1, 1]

    def test_cancel_of_one_queue_keeps_the_other(self, bench: Bench) -> None:
        one, two = bench.queue(), bench.queue()
        tap = bench.tap(one, two)
        tap.session.cancel(tap.consumer, one.name)
        bench.send(one, b"1")
        bench.send(two, b"2")
        assert tap.one().body == b"2"
        tap.none()
        bench.expect(one, [b"1"])

    def test_settling_after_cancel_is_stale(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1", b"2")
        tap = bench.tap(queue)
        first, second = tap.take(2)
        tap.cancel()
        with pytest.raises(StaleDelivery):
            tap.ack(first)
        with pytest.raises(StaleDelivery):
            tap.reject(second)
        tap.flush()
        bench.expect(queue, [b"1", b"2"], ordered=bench.features.requeue_in_place)

    def test_settling_twice_is_stale_the_second_time(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1", b"2")
        tap = bench.tap(queue)
        first, second = tap.take(2)
        tap.ack(first)
        with pytest.raises(StaleDelivery, match="1"):
            tap.requeue(first)
        tap.ack(second)
        tap.cancel()
        bench.expect(queue, [])

    def test_one_stale_delivery_does_not_spoil_the_others(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"1", b"2", b"3")
        tap = bench.tap(queue)
        first, second, third = tap.take(3)
        tap.ack(first)
        with pytest.raises(StaleDelivery):
            tap.ack(first, second, third)
        tap.cancel()
        bench.expect(queue, [])

    # settle_then

    def test_settle_then_publishes_and_acks(self, bench: Bench) -> None:
        work, following = bench.queue(), bench.queue()
        bench.send(work, b"job")
        tap = bench.tap(work)
        then = [bench.publication(following, b"%d" % number) for number in range(3)]
        outcomes = bench.session.settle_then(tap.one(), then)
        assert [outcome.status for outcome in outcomes] == ["confirmed"] * 3
        tap.flush()
        tap.cancel()
        bench.expect(following, [b"0", b"1", b"2"])
        bench.expect(work, [])

    def test_settle_then_of_nothing_acks_for_certain(self, bench: Bench) -> None:
        work = bench.queue()
        bench.send(work, b"job")
        tap = bench.tap(work)
        assert list(bench.session.settle_then(tap.one(), [])) == []
        info = bench.session.inspect(work.name)
        assert info.ready == 0 and not info.unacked
        tap.cancel()
        bench.expect(work, [])

    def test_settle_then_does_not_ack_what_could_not_be_published(self, bench: Bench) -> None:
        work = bench.queue()
        bench.send(work, b"job")
        tap = bench.tap(work)
        then = [bench.publication(bench.name("nowhere"), b"lost")]
        outcomes = bench.session.settle_then(tap.one(), then)
        assert [outcome.status for outcome in outcomes] == ["unroutable"]
        tap.cancel()
        bench.expect(work, [b"job"])

    @needs("atomic_settle")
    def test_settle_then_stores_all_or_nothing(self, bench: Bench) -> None:
        work, following = bench.queue(), bench.queue()
        bench.send(work, b"job")
        tap = bench.tap(work)
        then = [bench.publication(following, b"1"), bench.publication(bench.name("none"), b"2")]
        outcomes = bench.session.settle_then(tap.one(), then)
        assert "unroutable" in [outcome.status for outcome in outcomes]
        assert "confirmed" not in [outcome.status for outcome in outcomes]
        tap.cancel()
        bench.expect(following, [])
        bench.expect(work, [b"job"])

    @needs("max_length")
    def test_settle_then_does_not_ack_what_a_full_queue_refused(self, bench: Bench) -> None:
        work = bench.queue()
        full = bench.queue(max_length=1, overflow="reject-publish")
        stored = bench.fill(full, 1)
        bench.send(work, b"job")
        tap = bench.tap(work)
        outcomes = bench.session.settle_then(tap.one(), [bench.publication(full, b"refused")])
        assert [outcome.status for outcome in outcomes] == ["refused"]
        tap.cancel()
        bench.expect(work, [b"job"])
        bench.expect(full, stored)

    def test_settle_then_may_lead_back_to_the_same_queue(self, bench: Bench) -> None:
        work = bench.queue()
        bench.send(work, b"job")
        tap = bench.tap(work, prefetch=1)
        for number in range(3):
            bench.session.settle_then(tap.one(), [bench.publication(work, b"%d" % number)])
        tap.cancel()
        bench.expect(work, [b"2"])

    def test_settle_then_of_a_stale_delivery_says_so(self, bench: Bench) -> None:
        work, following = bench.queue(), bench.queue()
        bench.send(work, b"job")
        tap = bench.tap(work)
        delivery = tap.one()
        tap.ack(delivery)
        with pytest.raises(StaleDelivery):
            bench.session.settle_then(delivery, [bench.publication(following, b"x")])
        if bench.features.atomic_settle:
            bench.expect(following, [])
