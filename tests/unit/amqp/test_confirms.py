"""Confirms of a publishing channel: which publications an answer of the broker is about."""

from __future__ import annotations

from typing import Any, cast

import pytest

from queue_core.message import Properties, Publication
from queue_core.transports.amqp.io import Link
from queue_core.transports.amqp.publishing import Batch, ConfirmChannel, Run


def sent(*sizes: int) -> tuple[ConfirmChannel, list[Batch]]:
    """Return a channel on which batches of these sizes were sent, one after another."""
    channel = ConfirmChannel(cast(Link, None))
    batches = []
    for size in sizes:
        batch = Batch([Publication("", "q", b"", Properties(), str(n)) for n in range(size)])
        channel._runs.append(Run(batch, 0, channel._sequence + 1, size))
        channel._sequence += size
        batches.append(batch)
    return channel, batches


def fates(batch: Batch) -> list[Any]:
    return [outcome and outcome.status for outcome in batch.outcomes]


@pytest.mark.parametrize("accepted", [True, False])
def test_an_answer_for_several_is_about_those_up_to_it_and_no_later_one(accepted: bool) -> None:
    channel, (first, second) = sent(2, 3)
    channel._on_confirm(4, True, accepted)
    fate = "confirmed" if accepted else "refused"
    assert fates(first) == [fate, fate]
    assert fates(second) == [fate, fate, None]
    assert first.wait(0) and not second.wait(0)
    channel._on_confirm(5, True, True)
    assert fates(second) == [fate, fate, "confirmed"]
    assert second.wait(0)


def test_an_answer_for_one_is_about_that_one_in_whatever_order_they_come() -> None:
    channel, (first, second) = sent(2, 2)
    channel._on_confirm(4, False, True)
    channel._on_confirm(2, False, False)
    assert fates(first) == [None, "refused"]
    assert fates(second) == [None, "confirmed"]
    channel._on_confirm(3, True, True)
    assert fates(first) == ["confirmed", "refused"]
    assert fates(second) == ["confirmed", "confirmed"]
    assert first.wait(0) and second.wait(0)


def test_answers_that_come_twice_or_for_nothing_change_nothing() -> None:
    channel, (batch,) = sent(2)
    channel._on_confirm(1, False, True)
    channel._on_confirm(1, False, False)
    channel._on_confirm(7, False, True)
    assert fates(batch) == ["confirmed", None]
    channel._on_confirm(9, True, True)
    assert fates(batch) == ["confirmed", "confirmed"]


def test_the_end_of_a_channel_leaves_what_was_not_answered_unknown() -> None:
    channel, (first, second) = sent(2, 2)
    channel._on_confirm(3, True, True)
    channel._on_closed(ConnectionError("gone"))
    assert first.error is None and isinstance(second.error, ConnectionError)
    assert fates(second) == ["confirmed", None]
    assert second.wait(0)


def test_the_end_of_a_channel_changes_nothing_for_what_was_answered_out_of_order() -> None:
    """Those who published it may not have looked yet."""
    channel, (first, second) = sent(1, 1)
    channel._on_confirm(2, False, True)
    channel._on_closed(ConnectionError("gone"))
    assert isinstance(first.error, ConnectionError)
    assert second.error is None
    assert fates(second) == ["confirmed"]
