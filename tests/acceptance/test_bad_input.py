"""What a user sees who got something wrong: a typed error, soon, and no password."""

import logging
import socket
import time
import uuid
from urllib.parse import urlsplit, urlunsplit

import pytest

from queue_core import (
    AccessRefused,
    ConfigError,
    Connection,
    ConnectionLost,
    Exchange,
    NotConfirmed,
    Queue,
    QueueCoreError,
    QueueNotFound,
    StoreCorrupt,
    TooLarge,
    TopologyMismatch,
    TransportError,
    Unroutable,
    Unsupported,
)
from queue_core.testing import FaultProxy, eventually
from tests.ports import free_port

SERVERS = ["redis", "postgres", "mysql", "amqp"]
SECRET = "hunter2canary"


def everything_said(error):
    """The texts of an error and of all that it was raised from."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ampq://localhost", "did you mean amqp://"),
        ("kafka://localhost", "no transport for kafka://"),
        ("localhost:5672", "://"),
        ("amqp:/localhost", "://"),
        ("", "URL"),
        ("sqlite://", "memory://"),
        ("sqlite:///q.db?sincronous=full", "synchronous"),
        ("amqp://localhost//?heartbaet=5", "heartbeat"),
        ("memory://a?x=1", "x"),
        ("amqp://localhost:notaport//", "port"),
        (f"amqp://user:{SECRET}@localhost:99999//", "port"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_connects(url, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Connection(url)
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize("option", ["lease", "timeout", "connect_timeout"])
def test_a_wrong_duration_is_refused(option):
    with pytest.raises(ConfigError, match=option):
        Connection("memory://", **{option: -1})


def altered(url, *, login=None, port=None, path=None):
    """The url with another user and password, port, or database; without a user if it has none."""
    parts = urlsplit(url)
    user = login or parts.netloc.rpartition("@")[0]
    place = f"{parts.hostname}:{port or parts.port}"
    return urlunsplit(
        (
            parts.scheme,
            f"{user}@{place}" if user else place,
            parts.path if path is None else path,
            parts.query,
            "",
        )
    )


@pytest.mark.parametrize("broker_url", SERVERS, indirect=True)
def test_no_server_is_said_at_once_with_the_address_and_without_the_password(broker_url, caplog):
    caplog.set_level(logging.DEBUG)
    port = free_port()
    url = altered(broker_url, login=f"user:{SECRET}", port=port)
    start = time.monotonic()
    with (
        Connection(url, connect_timeout=20) as connection,
        pytest.raises(ConnectionLost, match=str(port)) as caught,
    ):
        connection.connect()
    assert time.monotonic() - start < 10
    assert SECRET not in everything_said(caught.value)
    assert SECRET not in caplog.text
    assert SECRET not in repr(connection)


@pytest.mark.parametrize("broker_url", SERVERS, indirect=True)
def test_a_server_that_never_answers_is_given_up_in_time(broker_url):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        start = time.monotonic()
        with (
            Connection(altered(broker_url, port=port), connect_timeout=1) as connection,
            pytest.raises(TransportError, match=str(port)),
        ):
            connection.connect()
        assert time.monotonic() - start < 8


@pytest.mark.parametrize("broker_url", SERVERS, indirect=True)
def test_a_wrong_password_is_named_as_that(broker_url, caplog):
    caplog.set_level(logging.DEBUG)
    with (
        Connection(altered(broker_url, login=f"somebody:{SECRET}")) as connection,
        pytest.raises(AccessRefused, match="somebody|user and password") as caught,
    ):
        connection.connect()
    assert SECRET not in everything_said(caught.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("broker_url", SERVERS, indirect=True)
def test_a_missing_database_or_virtual_host_is_named(broker_url):
    name = "4321" if broker_url.startswith("redis") else "nowhere"
    with (
        Connection(altered(broker_url, path=f"/{name}")) as connection,
        pytest.raises(QueueCoreError, match=name),
    ):
        connection.connect()


@pytest.mark.parametrize("broker_url", SERVERS, indirect=True)
def test_a_server_that_goes_away_is_an_error_in_time_and_its_return_needs_no_help(broker_url):
    parts = urlsplit(broker_url)
    queue = Queue(f"qc-test-{uuid.uuid4().hex[:12]}")
    with FaultProxy(parts.hostname, parts.port) as proxy:
        url = altered(broker_url, port=proxy.port)
        with Connection(url, timeout=2.0, connect_timeout=1.0) as connection:
            connection.declare(queue)
            producer = connection.producer()
            producer.publish("before", queue.name)
            proxy.refuse(reset=True)
            start = time.monotonic()
            with pytest.raises(QueueCoreError) as caught:
                producer.publish("meanwhile", queue.name)
            assert time.monotonic() - start < 9
            assert isinstance(caught.value, ConnectionLost | NotConfirmed)
            proxy.heal()
            eventually(lambda: sent(producer, queue), 30.0)
            with connection.consumer(queue) as consumer:
                message = consumer.receive(30)
                assert message.payload == "before"
                message.ack()
    with Connection(broker_url) as direct:
        direct.delete(queue)


def sent(producer, queue):
    """Whether the server took a message."""
    try:
        return producer.publish("after", queue.name).status == "confirmed"
    except (ConnectionLost, NotConfirmed):
        return False


def test_alternates_serve_when_the_first_is_down(tmp_path):
    port = free_port()
    with Connection(f"amqp://127.0.0.1:{port}//;sqlite:///{tmp_path}/q.db") as connection:
        connection.declare(Queue("q"))
        assert connection.producer().publish(1, "q").status == "confirmed"


def test_a_missing_folder_and_a_foreign_file_are_told_apart(tmp_path):
    with (
        Connection(f"sqlite:///{tmp_path}/nowhere/q.db") as connection,
        pytest.raises((ConfigError, AccessRefused), match="nowhere"),
    ):
        connection.connect()
    (tmp_path / "notes.txt").write_text("these are my notes, not a database\n" * 100)
    with (
        Connection(f"sqlite:///{tmp_path}/notes.txt") as connection,
        pytest.raises(StoreCorrupt, match=r"notes\.txt"),
    ):
        connection.connect()
    assert (tmp_path / "notes.txt").read_text().startswith("these are my notes")


@pytest.fixture
def connection(any_url):
    """A connection to each transport, in turn."""
    with Connection(any_url) as opened:
        opened.declare(Queue("bad.q"))
        opened.purge("bad.q")
        yield opened
        opened.delete(Queue("bad.q"))
        opened.delete(Queue("bad.q.dlq"))


def test_a_body_that_is_not_what_it_says_is_set_aside_with_the_reason(connection):
    producer = connection.producer()
    producer.publish(b"{", "bad.q", content_type="application/json", headers={"order": 7})
    producer.publish(
        b"cos\nsystem\n(S'true'\ntR.", "bad.q", content_type="application/x-python-serialize"
    )
    producer.publish("good", "bad.q")
    with connection.consumer("bad.q") as consumer:
        message = consumer.receive(timeout=30)
        assert message.payload == "good"
        message.ack()
    with connection.consumer("bad.q.dlq", decode=False) as consumer:
        first, second = consumer.receive(timeout=30), consumer.receive(timeout=10)
        assert first.body == b"{"
        assert first.headers["order"] == 7
        assert first.headers["qc-error"].startswith("DecodeError")
        assert second.headers["qc-error"].startswith("ContentDisallowed")
        first.ack()
        second.ack()


def test_a_body_that_cannot_even_be_set_aside_keeps_no_other_message_back(connection, caplog):
    connection.declare(Queue("bad.q.dlq", max_length=1, overflow="reject-publish"))
    producer = connection.producer()
    producer.publish("full", "bad.q.dlq")
    producer.publish(b"{", "bad.q", content_type="application/json")
    for number in range(3):
        producer.publish(number, "bad.q")
    with connection.consumer("bad.q", prefetch=1) as consumer:
        for number in range(3):
            message = consumer.receive(timeout=30)
            assert message.payload == number
            message.ack()
        assert (consumer.receive(timeout=0.0), consumer.set_aside) == (None, 0)
    assert "cannot be set aside" in caplog.text
    assert connection.inspect("bad.q.dlq").ready == 1


def test_unroutable_and_oversized_messages_are_refused_and_name_their_target(connection):
    with pytest.raises(Unroutable, match=r"nobody\.listens"):
        connection.producer().publish(1, "nobody.listens")
    with pytest.raises(TooLarge, match="16777216"):
        connection.producer().publish(b"x" * (16 * 1024 * 1024 + 1), "bad.q")
    assert connection.inspect("bad.q").ready == 0


def test_a_missing_exchange_or_queue_is_named(connection):
    with pytest.raises(QueueNotFound, match=r"no\.exchange"):
        connection.producer("no.exchange").publish(1, "key")
    with pytest.raises(QueueNotFound, match=r"no\.queue"):
        connection.inspect("no.queue")
    with pytest.raises(QueueNotFound, match=r"no\.queue"):
        connection.consumer("no.queue").receive(timeout=30)
    assert connection.producer().publish(1, "bad.q").status == "confirmed"


def test_a_name_that_no_queue_can_have_is_refused(connection):
    for name in ("bad\0q", "bad\ud800q", "q" * 256):
        for call in (
            lambda name=name: connection.inspect(name),
            lambda name=name: connection.purge(name),
            lambda name=name: connection.consumer(name),
            lambda name=name: connection.producer().publish(1, name),
        ):
            with pytest.raises(ConfigError, match="queue name|routing key"):
                call()
    assert connection.producer().publish(1, "bad.q").status == "confirmed"


def test_a_queue_declared_differently_names_the_difference(connection):
    with pytest.raises(TopologyMismatch, match=r"bad\.q"):
        connection.declare(Queue("bad.q", max_priority=5))
    with pytest.raises(QueueNotFound, match=r"no\.dlx"):
        connection.declare(Queue("bad.other", dead_letter_exchange="no.dlx"))
    assert connection.producer().publish(1, "bad.q").status == "confirmed"


def test_what_a_transport_cannot_do_names_the_feature_and_the_transport(connection):
    asked = {
        "delay": lambda: connection.producer().publish(1, "bad.q", delay=5),
        "transactions": lambda: connection.producer().publish(1, "bad.q", transaction=object()),
        "key_value": connection.key_value,
        "max_deliveries": lambda: connection.declare(Queue("bad.limited", max_deliveries=3)),
        "arguments": lambda: connection.declare(Exchange("bad.x", arguments={"x-unknown": 1})),
    }
    missing = [
        name
        for name, (can, _) in connection.features.describe().items()
        if not can and name in asked
    ]
    assert missing
    for name in missing:
        with pytest.raises(Unsupported, match=name):
            asked[name]()
