"""`SessionSuite`, part 5: what becomes of messages that nobody could or should handle."""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import time
from typing import Any

from queue_core.message import Delivery
from queue_core.testing.session_bench import Bench, SessionTests
from queue_core.testing.session_features import needs
from queue_core.testing.session_tap import properties_of
from queue_core.topology import Exchange, Queue


def deaths(delivery: Delivery) -> list[dict[str, Any]]:
    """Return a delivery's ``x-death`` table, the latest death first."""
    table = properties_of(delivery).headers["x-death"]
    assert isinstance(table, list)
    return table


def death(delivery: Delivery) -> dict[str, Any]:
    """Return the latest death without its time, which must be there."""
    entry = dict(deaths(delivery)[0])
    assert entry.pop("time", None) is not None
    return {name: entry[name] for name in ("queue", "reason", "count", "exchange", "routing-keys")}


class DeadLetterTests(SessionTests):
    """Reject, ttl, max_length, max_deliveries, and the way to the dead-letter queue."""

    def grave(self, bench: Bench, **fields: Any) -> tuple[Exchange, Queue]:
        """Return a dead-letter exchange and the queue that collects everything from it."""
        dead = bench.exchange("topic")
        return dead, bench.queue((dead, "#"), **fields)

    # reject

    @needs("dead_letter")
    def test_a_rejected_message_is_dead_lettered_with_its_story(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        direct = bench.exchange("direct")
        queue = bench.queue((direct, "work"), dead_letter_exchange=dead.name)
        bench.send(direct, b"bad", key="work", headers={"mine": 1}, message_id="m", priority=2)
        tap = bench.tap(queue)
        tap.reject(tap.one())
        buried = bench.tap(grave).one()
        assert buried.body == b"bad"
        assert (buried.exchange, buried.routing_key) == (dead.name, "work")
        assert death(buried) == {
            "queue": queue.name,
            "reason": "rejected",
            "count": 1,
            "exchange": direct.name,
            "routing-keys": ["work"],
        }
        properties = properties_of(buried)
        assert properties.headers["mine"] == 1
        assert (properties.message_id, properties.priority) == ("m", 2)
        tap.none()

    @needs("dead_letter")
    def test_the_first_death_is_told_apart(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(dead_letter_exchange=dead.name)
        bench.send(queue, b"bad")
        tap = bench.tap(queue)
        tap.reject(tap.one())
        headers = properties_of(bench.tap(grave).one()).headers
        assert headers["x-first-death-queue"] == queue.name
        assert headers["x-first-death-reason"] == "rejected"
        assert headers["x-first-death-exchange"] == ""

    @needs("dead_letter")
    def test_a_dead_letter_routing_key_replaces_the_key(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(dead_letter_exchange=dead.name, dead_letter_routing_key="buried.here")
        bench.send(queue, b"bad")
        tap = bench.tap(queue)
        tap.reject(tap.one())
        buried = bench.tap(grave).one()
        assert buried.routing_key == "buried.here"
        assert death(buried)["routing-keys"] == [queue.name]

    @needs("dead_letter")
    def test_the_default_exchange_can_be_the_dead_letter_exchange(self, bench: Bench) -> None:
        grave = bench.queue()
        queue = bench.queue(dead_letter_exchange="", dead_letter_routing_key=grave.name)
        bench.send(queue, b"bad")
        tap = bench.tap(queue)
        tap.reject(tap.one())
        bench.expect(grave, [b"bad"])

    @needs("dead_letter")
    def test_a_dead_letter_goes_to_every_queue_that_wants_it(self, bench: Bench) -> None:
        dead, one = self.grave(bench)
        two = bench.queue((dead, "#"))
        queue = bench.queue(dead_letter_exchange=dead.name)
        bench.send(queue, b"1", b"2")
        tap = bench.tap(queue)
        tap.reject(*tap.take(2))
        bench.expect_each({one.name: [b"1", b"2"], two.name: [b"1", b"2"]})

    def test_a_rejected_message_without_dead_letter_exchange_is_dropped(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"bad", b"good")
        tap = bench.tap(queue)
        bad, good = tap.take(2)
        tap.reject(bad)
        tap.requeue(good)
        tap.cancel()
        bench.expect(queue, [b"good"])

    @needs("dead_letter", "atomic_settle")
    def test_a_reject_can_give_its_own_reason(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(dead_letter_exchange=dead.name)
        bench.send(queue, b"bad")
        tap = bench.tap(queue)
        tap.reject(tap.one(), reason="undecodable")
        assert death(bench.tap(grave).one())["reason"] == "undecodable"

    @needs("dead_letter")
    def test_dead_letters_are_not_charged_with_earlier_deliveries(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(dead_letter_exchange=dead.name)
        bench.send(queue, b"bad")
        tap = bench.tap(queue)
        tap.requeue(tap.one())
        tap.reject(tap.one())
        buried = bench.tap(grave).one()
        assert not buried.redelivered
        assert buried.attempts in (0, 1)

    # ttl

    @needs("dead_letter", "message_ttl")
    def test_an_expired_message_is_dead_lettered_without_any_consumer(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(message_ttl=0.3, dead_letter_exchange=dead.name)
        begun = time.monotonic()
        bench.send(queue, b"1", b"2")
        tap = bench.tap(grave)
        first, second = tap.take(2, within=0.3 + bench.patience)
        assert time.monotonic() - begun >= 0.29
        assert (first.body, second.body) == (b"1", b"2")
        assert death(first)["reason"] == death(second)["reason"] == "expired"
        assert death(first)["queue"] == queue.name
        bench.holds(queue, 0)

    @needs("dead_letter", "message_ttl")
    def test_a_ttl_of_its_own_ends_with_the_first_death(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(dead_letter_exchange=dead.name)
        bench.send(queue, b"short", expiration=0.2)
        tap = bench.tap(grave)
        buried = tap.one(within=0.2 + bench.patience)
        assert properties_of(buried).expiration is None
        tap.requeue(buried)
        assert tap.one().body == b"short"

    @needs("message_ttl")
    def test_the_shorter_ttl_counts(self, bench: Bench) -> None:
        queue = bench.queue(message_ttl=1.0)
        patient = bench.queue(message_ttl=60.0)
        bench.send(queue, b"queue's", expiration=60.0)
        bench.send(patient, b"its own", expiration=1.0)
        bench.holds(queue, 1)
        bench.late(lambda: bench.idle(queue) and bench.idle(patient), bench.patience)

    @needs("message_ttl")
    def test_an_expired_message_is_never_delivered(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"short", expiration=0.05)
        bench.send(queue, b"long", expiration=60.0)
        time.sleep(0.1)
        bench.expect(queue, [b"long"])

    @needs("message_ttl")
    def test_a_message_with_a_consumer_does_not_expire(self, bench: Bench) -> None:
        queue = bench.queue(message_ttl=1.0)  # a consumer's first look may have to connect
        tap = bench.tap(queue)
        bench.send(queue, b"held")
        delivery = tap.one()
        time.sleep(1.1)
        tap.ack(delivery)

    @needs("message_ttl")
    def test_a_ttl_of_zero_is_for_consumers_who_wait(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"nobody waits", expiration=0.0)
        bench.late(lambda: bench.idle(queue), bench.patience)
        bench.expect(queue, [])

    @needs("dead_letter", "message_ttl")
    def test_a_waiting_room_brings_rejected_messages_back(self, bench: Bench) -> None:
        """Work queue -> reject -> queue with a ttl -> back: the idiom for retries."""
        name = bench.name("work")
        room = bench.queue(message_ttl=0.2, dead_letter_exchange="", dead_letter_routing_key=name)
        work = bench.queue(name=name, dead_letter_exchange="", dead_letter_routing_key=room.name)
        bench.send(work, b"tried")
        tap = bench.tap(work)
        for turn in range(3):
            delivery = tap.one()
            if turn:
                counts = {(d["queue"], d["reason"]): d["count"] for d in deaths(delivery)}
                assert counts == {(work.name, "rejected"): turn, (room.name, "expired"): turn}
            tap.reject(delivery)

    # max_length

    @needs("dead_letter", "max_length")
    def test_the_oldest_overflow_into_the_dead_letter_queue(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(max_length=2, dead_letter_exchange=dead.name)
        bench.send(queue, b"1", b"2", b"3", b"4", b"5")
        buried = bench.tap(grave).take(3, within=bench.patience)
        assert [delivery.body for delivery in buried] == [b"1", b"2", b"3"]
        assert {death(delivery)["reason"] for delivery in buried} == {"maxlen"}
        bench.expect(queue, [b"4", b"5"])

    @needs("max_length")
    def test_unacked_messages_do_not_count_towards_the_length(self, bench: Bench) -> None:
        queue = bench.queue(max_length=2)
        bench.send(queue, b"1", b"2")
        tap = bench.tap(queue, prefetch=2)
        held = tap.take(2)
        bench.send(queue, b"3", b"4")
        bench.holds(queue, 2)
        tap.ack(*held)
        assert [delivery.body for delivery in tap.take(2)] == [b"3", b"4"]

    @needs("max_length")
    def test_a_length_of_zero_keeps_nothing(self, bench: Bench) -> None:
        queue = bench.queue(max_length=0)
        bench.publish(bench.publication(queue, b"x"))
        bench.late(lambda: bench.idle(queue), bench.patience)

    # max_deliveries

    @needs("dead_letter", "max_deliveries")
    def test_an_exhausted_message_is_dead_lettered(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(max_deliveries=3, dead_letter_exchange=dead.name)
        bench.send(queue, b"poison")
        tap = bench.tap(queue)
        for _ in range(3):
            tap.requeue(tap.one())
        tap.none()
        buried = bench.tap(grave).one(within=bench.patience)
        assert buried.body == b"poison"
        assert (death(buried)["reason"], death(buried)["queue"]) == ("delivery_limit", queue.name)

    @needs("max_deliveries")
    def test_a_queue_with_max_deliveries_tells_the_attempts(self, bench: Bench) -> None:
        """Also where `Features.attempts` is missing, since not every queue can count."""
        queue = bench.queue(max_deliveries=5)
        bench.send(queue, b"again")
        tap = bench.tap(queue)
        for counted, attempt in ((True, 1), (False, 2), (True, 2), (False, 3), (True, 3)):
            delivery = tap.one()
            assert delivery.attempts == attempt
            assert delivery.redelivered or attempt == 1
            tap.requeue(delivery, counted=counted)
        assert tap.one().attempts == 4

    @needs("max_deliveries", "delay")
    def test_a_delayed_requeue_counts_as_a_delivery(self, bench: Bench) -> None:
        queue = bench.queue(max_deliveries=3)
        bench.send(queue, b"poison")
        tap = bench.tap(queue)
        for attempt in (1, 2, 3):
            delivery = tap.one()
            assert delivery.attempts == attempt
            tap.requeue(delivery, delay=0.1)
        tap.none(0.5)

    @needs("max_deliveries")
    def test_uncounted_returns_do_not_exhaust_a_message(self, bench: Bench) -> None:
        queue = bench.queue(max_deliveries=2)
        bench.send(queue, b"patient")
        tap = bench.tap(queue)
        for _ in range(6):
            tap.requeue(tap.one(), counted=False)
        tap.ack(tap.one())

    @needs("dead_letter", "max_deliveries")
    def test_crashes_exhaust_a_message(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        queue = bench.queue(max_deliveries=1, dead_letter_exchange=dead.name)
        bench.send(queue, b"killer")
        for _ in range(1 + self.spared):
            session = bench.open_mortal()
            bench.tap(queue, session=session).one()
            bench.crash(session)
        assert bench.tap(grave).one(within=bench.lease + 10.0).body == b"killer"

    # the way itself

    @needs("dead_letter", "max_length")
    def test_a_dead_letter_can_overflow_and_die_again(self, bench: Bench) -> None:
        dead, grave = self.grave(bench)
        small = bench.queue(max_length=1, dead_letter_exchange=dead.name)
        queue = bench.queue(dead_letter_exchange="", dead_letter_routing_key=small.name)
        bench.send(queue, b"1", b"2")
        tap = bench.tap(queue)
        for _ in range(2):
            tap.reject(tap.one())
        buried = bench.tap(grave).one(within=bench.patience)
        assert buried.body == b"1"
        story = [(entry["queue"], entry["reason"]) for entry in deaths(buried)]
        assert story == [(small.name, "maxlen"), (queue.name, "rejected")]

    @needs("dead_letter", "message_ttl")
    def test_a_message_that_only_expires_does_not_go_round_for_ever(self, bench: Bench) -> None:
        name = bench.name("round")
        queue = bench.queue(
            name=name, message_ttl=0.2, dead_letter_exchange="", dead_letter_routing_key=name
        )
        bench.send(queue, b"round")
        bench.late(lambda: bench.idle(queue), bench.patience)
        tap = bench.tap(queue)
        tap.none(1.5)

    @needs("dead_letter")
    def test_a_client_may_send_a_death_certificate_of_its_own(self, bench: Bench) -> None:
        """It is no history of ours to trust, and nothing breaks because of it."""
        dead, grave = self.grave(bench)
        queue = bench.queue(dead_letter_exchange=dead.name)
        forged = {"x-death": "nonsense", "x-first-death-queue": 7, "mine": 1}
        bench.send(queue, b"forged", headers=forged)
        tap = bench.tap(queue)
        tap.reject(tap.one())
        buried = bench.tap(grave).one()
        assert death(buried)["reason"] == "rejected"
        assert properties_of(buried).headers["mine"] == 1

    @needs("dead_letter")
    def test_dead_letters_nobody_wants_hold_up_nothing(self, bench: Bench) -> None:
        dead = bench.exchange("direct")
        queue = bench.queue(dead_letter_exchange=dead.name)
        bench.send(queue, b"bad", b"good")
        tap = bench.tap(queue)
        bad, good = tap.take(2)
        tap.reject(bad)
        tap.ack(good)
        tap.cancel()
        bench.expect(queue, [])
