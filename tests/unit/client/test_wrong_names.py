"""Arguments that are none and names that are not there are refused by their names."""

import pytest

from queue_core import ConfigError, Connection, Queue
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


def test_a_factory_that_returns_no_store_is_named():
    def forgets(url, options) -> None: ...

    transport = StoreTransport("mine", Features(), forgets)
    with pytest.raises(ConfigError, match=r"mine .*forgets.* returned \(None\) lacks open_session"):
        Connection("mine://", transport=transport).connect()
