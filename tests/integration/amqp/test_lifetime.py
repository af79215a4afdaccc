"""Sessions on RabbitMQ that begin, are lost, and end: bounded, explained, and without leftovers."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time

import pytest
from msgspec.structs import replace

from queue_core.errors import (
    AccessRefused,
    Closed,
    ConnectionLost,
    ConnectTimeout,
    QueueNotFound,
    StaleDelivery,
)
from queue_core.testing.eventually import eventually
from queue_core.topology import Queue
from queue_core.transport import SessionOptions
from queue_core.transports.amqp import transport
from queue_core.url import parse


def threads():
    return {t for t in threading.enumerate() if t.name.startswith("queue-core")}


@pytest.fixture
def listener():
    """A TCP server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def refused(url, kind, **options):
    """Open, which must fail; return the message and the seconds that it took."""
    before = threads()
    begun = time.monotonic()
    with pytest.raises(kind) as caught:
        transport.open(url, SessionOptions(**options))
    took = time.monotonic() - begun
    assert type(caught.value) is kind
    eventually(lambda: threads() <= before)
    return str(caught.value), took


def test_a_wrong_password_is_said_at_open_and_never_shown(bench, caplog):
    caplog.set_level(logging.DEBUG)
    url = replace(bench.url, password="not-the-secret")
    text, took = refused(url, AccessRefused)
    assert "check user and password" in text
    assert f":{bench.url.port}" in text
    assert "not-the-secret" not in text + caplog.text
    assert took < 8


def test_a_missing_virtual_host_is_said_at_open(bench):
    text, _ = refused(replace(bench.url, path="/nowhere"), AccessRefused)
    assert "'nowhere'" in text


def test_a_closed_port_is_said_at_open():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text, took = refused(parse(f"amqp://127.0.0.1:{port}"), ConnectionLost)
    assert f"127.0.0.1:{port}" in text
    assert "nothing listens" in text
    assert took < 8


def test_a_server_that_says_nothing_is_given_up_in_time(listener):
    port = listener.getsockname()[1]
    url = parse(f"amqp://127.0.0.1:{port}")
    text, took = refused(url, ConnectTimeout, connect_timeout=0.7)
    assert f"127.0.0.1:{port}" in text
    assert 0.5 < took < 8


def test_a_server_that_does_not_speak_amqp_is_recognised(listener):
    port = listener.getsockname()[1]

    def answer():
        client, _ = listener.accept()
        client.recv(8)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        client.close()

    thread = threading.Thread(target=answer)
    thread.start()
    text, _ = refused(parse(f"amqp://127.0.0.1:{port}"), ConnectionLost, connect_timeout=3.0)
    thread.join()
    assert "check the port" in text


def test_tls_to_a_plain_port_is_explained(bench):
    url = replace(bench.url, scheme="amqps")
    text, _ = refused(url, ConnectionLost, connect_timeout=3.0)
    assert "TLS" in text


def test_close_leaves_no_thread_and_can_be_repeated(bench):
    before = threads()
    session = bench.open()
    session.publish([bench.message(bench.queue())])
    assert len(threads() - before) == 2
    session.close()
    assert threads() <= before
    session.close()
    with pytest.raises(Closed):
        session.inspect("q")


def test_close_is_bounded_when_the_broker_does_not_answer(bench, proxy):
    before = threads()
    session = bench.open(proxy.port)
    session.publish([bench.message(bench.queue())])
    proxy.stall()
    begun = time.monotonic()
    session.close(timeout=2.0)
    assert time.monotonic() - begun < 8
    eventually(lambda: threads() <= before)


def holding(bench, proxy):
    """A session through the proxy, its queue, and a delivery that it holds."""
    session = bench.open(proxy.port)
    queue = bench.queue()
    session.subscribe("c", queue, prefetch=1)
    bench.send(queue, b"x")
    (delivery,) = bench.take(session, "c", 1)
    return session, queue, delivery


def test_every_call_is_bounded_when_the_broker_does_not_answer(bench, proxy):
    session, queue, delivery = holding(bench, proxy)
    proxy.stall()
    bench.ack(session, delivery)
    for call in (
        lambda: session.declare(Queue(queue), timeout=0.3),
        lambda: session.inspect(queue, timeout=0.3),
        lambda: session.subscribe("other", queue, prefetch=1, timeout=0.3),
        lambda: session.flush("c", timeout=0.3),
        lambda: session.cancel("c", timeout=0.3),
    ):
        begun = time.monotonic()
        with pytest.raises(ConnectTimeout):
            call()
        assert time.monotonic() - begun < 5


def test_an_ack_whose_answer_did_not_come_in_time_is_made_certain_by_the_same_call(bench, proxy):
    session, queue, delivery = holding(bench, proxy)
    proxy.stall()
    with pytest.raises(ConnectTimeout):
        session.settle_then(delivery, [], timeout=0.3)
    proxy.heal()
    assert session.settle_then(delivery, []) == []
    with pytest.raises(StaleDelivery):
        session.settle_then(delivery, [])
    session.flush("c")
    session.cut()
    assert bench.rest(queue) == []


def test_a_lost_connection_ends_a_waiting_receive_and_the_session(bench, proxy):
    session, queue, delivery = holding(bench, proxy)
    threading.Timer(0.3, proxy.reset).start()
    begun = time.monotonic()
    with pytest.raises(ConnectionLost):
        while time.monotonic() < begun + 30:
            session.receive("c", wait=20.0)
    assert time.monotonic() - begun < 10
    assert session.closed
    bench.ack(session, delivery)
    for call in (
        lambda: session.receive("c"),
        lambda: session.flush("c"),
        lambda: session.publish([bench.message(queue)]),
        lambda: session.inspect(queue),
    ):
        with pytest.raises(ConnectionLost):
            call()
    assert bench.rest(queue) == [b"x"]


def test_a_silent_broker_is_noticed_by_the_heartbeat(bench, proxy):
    session = bench.open(proxy.port, lease=2.0)
    session.subscribe("c", bench.queue(), prefetch=1)
    proxy.stall()
    begun = time.monotonic()
    with pytest.raises(ConnectionLost):
        while time.monotonic() < begun + 20:
            session.receive("c", wait=1.0)
    assert time.monotonic() - begun < 15
    assert session.closed


@pytest.mark.parametrize("error", [RuntimeError("a bug"), struct.error("a bug")])
def test_an_error_inside_the_io_thread_reaches_every_caller(bench, error):
    before = threads()
    session = bench.open()
    session.subscribe("c", bench.queue(), prefetch=1)

    def fail():
        raise error

    failures = []

    def wait():
        try:
            for _ in range(20):
                session.receive("c", wait=1.0)
        except ConnectionLost as error:
            failures.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    session._link.submit(fail)
    thread.join(20.0)
    assert "a bug" in failures[0]
    assert session.closed
    with pytest.raises(ConnectionLost):
        session.declare(Queue("q"))
    session.close()
    eventually(lambda: threads() <= before)


def test_exclusive_queues_go_with_their_session(bench):
    session = bench.open()
    name = session.declare(Queue(exclusive=True, durable=False))
    with pytest.raises(AccessRefused, match=name):
        bench.session.inspect(name)
    bench.send(name, b"others may publish")
    session.close()

    def gone():
        try:
            bench.session.inspect(name)
        except QueueNotFound:
            return True
        except AccessRefused:
            return False
        return False

    eventually(gone)


def test_a_refused_declaration_disturbs_nobody(bench):
    queue = bench.queue(message_ttl=60.0)
    bench.session.subscribe("c", queue, prefetch=5)
    for _ in range(3):
        with pytest.raises(Exception, match="x-message-ttl"):
            bench.session.declare(Queue(queue, message_ttl=61.0))
    bench.send(queue, b"x")
    bench.ack(bench.session, *bench.take(bench.session, "c", 1))
    bench.session.flush("c")


def test_a_conditional_delete_works_on_every_queue_type_and_costs_no_connection(bench):
    for fields in (
        {"queue_type": "quorum"},
        {"queue_type": "classic"},
        {"exclusive": True, "durable": False},
    ):
        queue = bench.queue(**fields)
        bench.send(queue, b"x")
        eventually(lambda name=queue: bench.ready(name) == 1)
        with pytest.raises(Exception, match=queue):
            bench.session.delete(Queue(queue), if_empty=True)
        assert bench.session.purge(queue) == 1
        eventually(lambda name=queue: bench.ready(name) == 0)
        assert bench.session.delete(Queue(queue), if_empty=True, if_unused=True)
        assert not bench.session.delete(Queue(queue), if_empty=True)
    assert not bench.session.closed


def test_a_forked_child_leaves_the_parents_connections_alone(bench):
    queue = bench.queue()
    session = bench.open()
    session.subscribe("c", queue, prefetch=1)
    assert bench.publish(session, bench.message(queue)) == ["confirmed"]
    (delivery,) = bench.take(session, "c", 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert session.closed
            try:
                session.inspect(queue)
            except ConnectionLost:
                session.close()
                status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not session.closed
    bench.ack(session, delivery)
    session.flush("c")
    assert bench.publish(session, bench.message(queue)) == ["confirmed"]
