"""Deleting what delayed messages are on their way to: it holds up nobody else's.

On a node of the tests' own, since a failure would stop the delays of everybody there for minutes.
"""

from __future__ import annotations

import pytest

from queue_core.errors import AccessRefused
from queue_core.testing.eventually import eventually
from queue_core.topology import Binding, Exchange, Queue

# The keeper of the own node outlives the handle on it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.timeout(180),  # the node takes its time to start
]


def send_delayed(bench, *messages, delay=0.1):
    for message in messages:
        message.delay = delay
    assert set(bench.publish(bench.session, *messages)) == {"confirmed"}


def let_a_burst_arrive(bench, queue, key, *, exchange=""):
    """Send messages that come due all at once; return when the queue has the first of them."""
    large = bytes(6000)  # the broker stores these apart from the queue, and confirms them later
    send_delayed(bench, *(bench.message(key, large, exchange=exchange) for _ in range(600)))
    eventually(lambda: bench.ready(queue) > 0, 30.0)


def check_that_delays_go_on(bench, queue):
    send_delayed(bench, bench.message(queue, b"due"))
    eventually(lambda: bench.ready(queue) == 1, 30.0)


def test_a_queue_deleted_under_a_burst_holds_up_nobody_elses_delays(own_bench):
    other = own_bench.queue()
    for _ in range(5):
        queue = own_bench.queue()
        let_a_burst_arrive(own_bench, queue, queue)
        own_bench.session.delete(Queue(queue))
    check_that_delays_go_on(own_bench, other)


def test_an_exchange_deleted_under_a_burst_holds_up_nobody_elses_delays(own_bench):
    other = own_bench.queue()
    for _ in range(5):
        exchange, queue = own_bench.exchange("fanout"), own_bench.queue()
        own_bench.session.declare(Binding(exchange, queue))
        let_a_burst_arrive(own_bench, queue, "", exchange=exchange)
        own_bench.session.delete(Exchange(exchange))
    check_that_delays_go_on(own_bench, other)


def test_a_refused_deletion_leaves_delayed_messages_on_their_way(own_node, own_bench):
    queue = own_bench.queue()
    with own_node.user("", ".*", ".*") as url:
        session = own_bench.open_url(url)
        send_delayed(own_bench, own_bench.message(queue), delay=1.0)
        with pytest.raises(AccessRefused):
            session.delete(Queue(queue))
        session.close()
    eventually(lambda: own_bench.ready(queue) == 1)


def test_who_may_not_use_the_ladder_may_delete_a_queue(own_node, own_bench):
    queue = own_bench.queue()
    with own_node.user("queue-.*", "queue-.*", "queue-.*") as url:
        session = own_bench.open_url(url)
        assert session.delete(Queue(queue))
        session.close()
