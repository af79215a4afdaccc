"""What a user sees who got something wrong: a typed error, soon, and no password."""

import logging
import socket
import time

import pytest

from queue_core import (
    AccessRefused,
    ConfigError,
    Connection,
    ConnectionLost,
    Exchange,
    Queue,
    QueueNotFound,
    StoreCorrupt,
    TooLarge,
    TopologyMismatch,
    TransportError,
    Unroutable,
    Unsupported,
)

SECRET = "hunter2canary"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


def test_no_server_is_said_at_once_with_the_address_and_without_the_password(caplog):
    caplog.set_level(logging.DEBUG)
    port = free_port()
    start = time.monotonic()
    with (
        Connection(f"amqp://user:{SECRET}@127.0.0.1:{port}//", connect_timeout=5) as connection,
        pytest.raises(ConnectionLost, match=str(port)) as caught,
    ):
        connection.connect()
    assert time.monotonic() - start < 6
    assert SECRET not in everything_said(caught.value)
    assert SECRET not in caplog.text
    assert SECRET not in repr(connection)


def test_a_server_that_never_answers_is_given_up_in_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        start = time.monotonic()
        with (
            Connection(f"amqp://127.0.0.1:{port}//", connect_timeout=1) as connection,
            pytest.raises(TransportError, match=str(port)),
        ):
            connection.connect()
        assert time.monotonic() - start < 4


def test_a_wrong_password_is_named_as_that(amqp_url, caplog):
    caplog.set_level(logging.DEBUG)
    address = amqp_url.partition("@")[2]
    with (
        Connection(f"amqp://guest:{SECRET}@{address}") as connection,
        pytest.raises(AccessRefused, match="guest") as caught,
    ):
        connection.connect()
    assert SECRET not in everything_said(caught.value)
    assert SECRET not in caplog.text


def test_a_missing_virtual_host_is_named(amqp_url):
    server = amqp_url.rpartition("@")[0] + "@" + amqp_url.rpartition("@")[2].partition("/")[0]
    with (
        Connection(f"{server}/nowhere") as connection,
        pytest.raises(TransportError, match="nowhere"),
    ):
        connection.connect()


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
        message = consumer.receive(timeout=10)
        assert message.payload == "good"
        message.ack()
    with connection.consumer("bad.q.dlq", decode=False) as consumer:
        first, second = consumer.receive(timeout=10), consumer.receive(timeout=10)
        assert first.body == b"{"
        assert first.headers["order"] == 7
        assert first.headers["qc-error"].startswith("DecodeError")
        assert second.headers["qc-error"].startswith("ContentDisallowed")
        first.ack()
        second.ack()


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
        connection.consumer("no.queue").receive(timeout=5)
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
