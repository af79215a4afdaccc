"""Arguments that are none and names that are not there are refused by their names."""

import pytest

from queue_core import Binding, ConfigError, Connection, Consumer, Exchange, Producer, Queue
from queue_core.emulation import StoreTransport
from queue_core.transport import Features

QUEUE = Queue("wrong-names")


@pytest.fixture
def connection():
    with Connection("memory://wrong-names") as connection:
        connection.declare(QUEUE)
        yield connection
        connection.purge(QUEUE)


@pytest.mark.parametrize(
    ("settle", "words"),
    [
        (lambda message: message.reject(reason=5), "reason is a string, not 5"),
        (lambda message: message.reject(reason=None), "reason is a string, not None"),
        (lambda message: message.requeue(counted="no"), "counted is True or False, not 'no'"),
    ],
)
def test_what_is_wrong_in_a_settlement_is_refused_and_the_message_can_be_settled(
    connection, settle, words
):
    connection.producer().publish("x", QUEUE.name)
    with connection.consumer(QUEUE) as consumer:
        message = consumer.receive(timeout=30)
        with pytest.raises(ConfigError, match=words):
            settle(message)
        message.ack()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("create", "no", "create is True or False"), ("clock", 5, "clock is a SystemClock")],
)
def test_an_option_of_a_connection_is_refused_by_its_name(option, value, words):
    with pytest.raises(ConfigError, match=words):
        Connection("memory://wrong-names", **{option: value})


def test_an_option_that_there_is_not_is_refused_by_the_name_of_what_was_called(connection):
    producer = connection.producer()
    with pytest.raises(ConfigError, match=r"^publish\(\) has no option 'prio'.*'priority'"):
        producer.publish("x", QUEUE.name, prio=5)
    with pytest.raises(ConfigError, match=r"^publish_many\(\) has no option 'zzz'; it has exch"):
        producer.publish_many([("x", QUEUE.name)], zzz=5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda _: Queue("q", queue_arguments={"x-max-priority": 9}),
            r"^Queue\(\) has no option 'queue_arguments'; .*max_priority=9",
        ),
        (lambda _: Queue("q", no_ack=True), r"^Queue\(\) has no option 'no_ack'; .*acked"),
        (lambda _: Queue("q", max_prioritty=9), "did you mean 'max_priority'"),
        (lambda _: Queue("q", zzzzz=9), "it has name, exchange, routing_key, .*arguments$"),
        (lambda _: Exchange("e", delivery_mode=1), r"^Exchange\(\) .*durable=False"),
        (lambda _: Binding("e", queue="q"), r"^Binding\(\) .*'queue'; .*destination="),
        (
            lambda _: Connection("redis://h", transport_options={"visibility_timeout": 60}),
            r"^Connection\(\) .*lease=",
        ),
        (lambda _: Connection("amqp://", userid="me"), r"^Connection\(\) .*in its URL"),
        (lambda _: Connection("memory://x", leese=3), "did you mean 'lease'"),
        (lambda c: c.producer("e", routing_key="k"), r"^producer\(\) .*publish\(body, "),
        (lambda c: c.consumer("q", callbacks=[print]), r"^consumer\(\) .*run\(function\)"),
        (lambda c: c.consumer("q", prefetch_count=3), "did you mean 'prefetch'"),
        (lambda c: c.simple_queue("q", no_ack=True), r"^simple_queue\(\) has no option 'no_ack'"),
        (lambda c: c.simple_queue("q").put(1, headers={}), r"^put\(\) .*producer\(\)\.publish\("),
        (lambda c: c.producer().publish("x", "k", expiration=5), r"^publish\(\) .*; .*ttl="),
        (lambda c: c.producer().publish("x", "k", retry=True), "repeats by itself"),
    ],
)
def test_a_keyword_of_another_library_is_answered_with_the_one_that_is_here(
    connection, call, words
):
    with pytest.raises(ConfigError, match=words):
        call(connection)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: Producer(c), r"connection\.producer\(exchange\)"),
        (lambda c: Consumer(c, [QUEUE]), r"connection\.consumer\(queue, \.\.\.\)"),
        (lambda c: c.consumer([QUEUE]), r"consumer\(\*queues\)"),
        (lambda c: c.declare([QUEUE]), r"declare\(\*entities\)"),
        (lambda _: Binding(Exchange("e"), QUEUE, "k"), "name of the exchange"),
    ],
)
def test_what_is_given_in_another_librarys_form_is_answered_with_the_one_of_here(
    connection, call, words
):
    with pytest.raises(ConfigError, match=words):
        call(connection)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((5, Features(), print), "name of a transport is a string, not 5"),
        (("mine", {"shared": True}, print), r"can do is a Features\(.*not \{'shared'"),
        (("mine", Features(), None), r"open_store is a function of url and options, not None"),
    ],
)
def test_what_a_transport_is_made_of_is_looked_at_when_it_is_made(arguments, words):
    with pytest.raises(ConfigError, match=words):
        StoreTransport(*arguments)


def test_a_factory_that_returns_no_store_is_named():
    def forgets(url, options) -> None: ...

    transport = StoreTransport("mine", Features(), forgets)
    with pytest.raises(ConfigError, match=r"mine .*forgets.* returned \(None\) lacks open_session"):
        Connection("mine://", transport=transport).connect()
