"""`SessionSuite`, part 9: what a session says of its broker's durability, if it can tell.

Whether it is true is for each transport's own tests, on servers with weak settings; here it must be
consistent with the transport's `Features`, useful to people, and harmless to ask.
"""
# ruff: noqa: D102 - the names of tests are sentences

from __future__ import annotations

import pytest

from queue_core.durability import Durability, Survives
from queue_core.errors import QueueNotFound
from queue_core.testing.session_bench import Bench, SessionTests
from queue_core.transport import Detector, Session


class DurabilityTests(SessionTests):
    """A session without `Detector` is unknown, which is consistent with everything."""

    def test_what_a_broker_keeps_agrees_with_its_features(self, bench: Bench) -> None:
        for durability in _answers(bench):
            if durability.survives is Survives.UNKNOWN:
                continue
            assert (durability.survives > Survives.NOTHING) == bench.features.durable

    def test_what_weakens_the_promise_comes_with_its_remedy(self, bench: Bench) -> None:
        for durability in _answers(bench):
            assert durability.found and "\n" not in durability.found
            for warning in durability.warnings:
                assert warning.problem and warning.remedy
                assert "\n" not in str(warning)

    def test_asking_changes_nothing_and_says_the_same_again(self, bench: Bench) -> None:
        queue = bench.queue()
        bench.send(queue, b"kept")
        first = [_ask(bench.session), _ask(bench.session, queue.name)]
        assert [_ask(bench.session), _ask(bench.session, queue.name)] == first
        bench.expect(queue, [b"kept"])

    def test_a_queue_that_is_not_there_has_no_durability(self, bench: Bench) -> None:
        name = bench.name("queue")
        if isinstance(bench.session, Detector):
            with pytest.raises(QueueNotFound, match=name):
                bench.session.durability(name)
        with pytest.raises(QueueNotFound):
            bench.session.inspect(name)


def _ask(session: Session, queue: str = "") -> Durability:
    return session.durability(queue) if isinstance(session, Detector) else Durability()


def _answers(bench: Bench) -> list[Durability]:
    """Return what is said of the broker, and of a durable queue."""
    return [_ask(bench.session), _ask(bench.session, bench.queue(durable=True).name)]
