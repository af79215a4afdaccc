"""The client as its users meet it, on each transport."""

import os
import queue as stdlib_queue
import subprocess
import sys
import threading
import traceback
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from queue_core import (
    Binding,
    Closed,
    Connection,
    Exchange,
    Queue,
    StaleDelivery,
    Unsupported,
)
from queue_core.testing.eventually import eventually


@pytest.fixture
def connection(any_url):
    with Connection(any_url) as opened:
        yield opened


@pytest.fixture
def queue(any_url, connection):
    """A queue of this test alone, declared."""
    made = connection.declare(Queue(f"qc-test-client-{uuid.uuid4().hex[:12]}"))
    yield made
    with Connection(any_url) as other:
        other.delete(made)


def take_all(consumer, count, timeout=10.0):
    return [consumer.receive(timeout) for _ in range(count)]


def test_what_was_sent_arrives_in_order_and_complete(connection, queue):
    producer = connection.producer()
    receipts = producer.publish_many(({"number": number}, queue.name) for number in range(250))
    assert all(receipt.status == "confirmed" for receipt in receipts)
    with connection.consumer(queue, prefetch=20) as consumer:
        messages = []
        for _ in range(250):
            messages.append(consumer.receive(30))
            messages[-1].ack()
        consumer.flush()
        assert [message.payload["number"] for message in messages] == list(range(250))
        assert consumer.receive(0.1) is None
    assert connection.inspect(queue).ready == 0


def test_properties_and_headers_arrive_unchanged(connection, queue):
    headers = {
        "text": "ü",
        "number": 7,
        "real": 0.5,
        "yes": True,
        "none": None,
        "list": [1, {"a": "b"}],
    }
    connection.producer().publish(
        "body",
        queue.name,
        headers=headers,
        correlation_id="c-1",
        reply_to="answers",
        message_id="m-1",
        type="greeting",
        app_id="shop",
    )
    with connection.consumer(queue) as consumer:
        message = consumer.receive(30)
        got = message.properties
        assert message.headers == headers
        assert (got.correlation_id, got.reply_to, got.message_id, got.type, got.app_id) == (
            "c-1",
            "answers",
            "m-1",
            "greeting",
            "shop",
        )
        message.ack()


@pytest.mark.parametrize(
    ("serializer", "payload"),
    [
        ("json", {"a": [1, None, "ü"]}),
        ("msgpack", {"a": b"\x00\xff"}),
        ("text", "ü"),
        ("raw", b"\x00\xff"),
    ],
)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_each_serializer_makes_the_round_trip(connection, queue, serializer, payload, compression):
    connection.producer(serializer=serializer, compression=compression).publish(payload, queue.name)
    with connection.consumer(queue) as consumer:
        message = consumer.receive(30)
        assert message.payload == payload
        message.ack()


def test_pickle_travels_only_when_both_sides_ask_for_it(connection, queue):
    connection.producer(serializer="pickle").publish({1, 2}, queue.name)
    with connection.consumer(queue, accept=["pickle"]) as consumer:
        message = consumer.receive(30)
        assert message.payload == {1, 2}
        message.ack()


def test_a_queue_without_a_name_gets_one_and_can_be_used(connection):
    made = connection.declare(Queue(exclusive=True))
    connection.producer().publish("hello", made.name)
    with connection.consumer(made) as consumer:
        message = consumer.receive(30)
        message.ack()
        assert message.payload == "hello"


def test_several_entities_are_declared_in_one_call(connection, queue):
    exchange = Exchange(f"{queue.name}.x", type="headers")
    binding = Binding(exchange.name, queue.name, arguments={"lang": "en"})
    assert connection.declare(exchange, binding) == (exchange, binding)
    producer = connection.producer(exchange)
    producer.publish(1, headers={"lang": "en"})
    producer.publish(2, headers={"lang": "de"}, mandatory=False)
    with connection.consumer(queue) as consumer:
        assert consumer.receive(30).payload == 1
        assert consumer.receive(0.2) is None
    assert connection.delete(exchange)


def test_ack_then_publishes_and_acks_together(connection, queue):
    producer = connection.producer()
    producer.publish("first", queue.name)
    with connection.consumer(queue, prefetch=1) as consumer:
        message = consumer.receive(30)
        (receipt,) = message.ack(then=[producer.prepare("second", queue.name)])
        assert receipt.status == "confirmed"
        second = consumer.receive(30)
        assert second.payload == "second"
        second.ack()
        consumer.flush()
    assert connection.inspect(queue).ready == 0


def test_messages_are_acked_from_other_threads(connection, queue):
    connection.producer().publish_many((number, queue.name) for number in range(100))
    with connection.consumer(queue, prefetch=100) as consumer:
        messages = take_all(consumer, 100)
        threads = [
            threading.Thread(
                target=lambda part: [message.ack() for message in part], args=(messages[index::4],)
            )
            for index in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        consumer.flush()
    assert connection.inspect(queue).ready == 0


def test_unsettled_messages_go_back_when_the_consumer_closes(connection, queue):
    connection.producer().publish_many((number, queue.name) for number in range(5))
    with connection.consumer(queue) as consumer:
        first, _second = take_all(consumer, 2)
        first.ack()
    eventually(lambda: connection.inspect(queue).ready == 4)
    with pytest.raises((StaleDelivery, Closed)):
        _second.ack()
        consumer.flush()
    with connection.consumer(queue) as consumer:
        assert sorted(message.payload for message in take_all(consumer, 4)) == [1, 2, 3, 4]


def test_closing_the_connection_ends_a_consumer_in_another_thread(any_url, queue):
    connection = Connection(any_url)
    consumer = connection.consumer(queue)
    ended = threading.Event()

    def consume():
        for _message in consumer:
            pass
        ended.set()

    thread = threading.Thread(target=consume)
    consumer.start()
    thread.start()
    connection.close()
    connection.close()
    assert ended.wait(20.0)
    thread.join()
    with pytest.raises(Closed):
        connection.producer().publish(1, queue.name)


def test_a_simple_queue_puts_and_gets(connection, queue):
    with connection.simple_queue(queue) as simple:
        for number in range(3):
            simple.put(number)
        assert [simple.get(timeout=10) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(stdlib_queue.Empty):
            simple.get(timeout=0.1)
        simple.put("kept")
        message = simple.get_message(timeout=10)
        message.requeue()
        assert simple.get(timeout=10) == "kept"


def test_key_values_are_there_or_refused_with_the_feature(connection):
    if not connection.features.key_value:
        with pytest.raises(Unsupported, match="key_value"):
            connection.key_value()
        return
    values = connection.key_value()
    key = f"test-{uuid.uuid4().hex}"
    version = values.key_set(key, b"1", version=0)
    assert values.key_set(key, b"2", version=0) is None
    assert values.key_get(key).value == b"1"
    assert values.key_set(key, b"2", version=version) > version
    assert values.key_increment(f"{key}.count", 2) == 2
    assert values.key_delete(key)
    assert values.key_get(key) is None


def test_purge_deletes_what_waits(connection, queue):
    connection.producer().publish_many((number, queue.name) for number in range(7))
    assert connection.purge(queue) == 7
    assert connection.inspect(queue).ready == 0


def test_a_handler_runs_per_message_and_what_it_leaves_is_acked(connection, queue):
    connection.producer().publish_many((number, queue.name) for number in range(5))
    seen = []
    consumer = connection.consumer(queue)

    def handler(message):
        seen.append(message.payload)
        if len(seen) == 5:
            consumer.stop()

    with consumer:
        consumer.run(handler)
        consumer.flush()
    assert seen == list(range(5))
    assert connection.inspect(queue).ready == 0


def test_another_process_sees_the_queue_or_the_feature_says_no(any_url, connection, queue):
    if not connection.features.shared:
        assert any_url.startswith("memory")
        return
    script = (
        "import sys; from queue_core import Connection\n"
        "with Connection(sys.argv[1]) as connection:\n"
        "    connection.producer().publish('from afar', sys.argv[2])\n"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", script, any_url, queue.name], check=True, timeout=30
    )
    with connection.consumer(queue) as consumer:
        message = consumer.receive(30)
        message.ack()
        assert message.payload == "from afar"


def test_a_forked_child_opens_its_own_session_and_leaves_the_parents_alone(connection, queue):
    if not connection.features.shared:
        assert connection.url.startswith("memory")
        return
    producer = connection.producer()
    producer.publish("before", queue.name)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            producer.publish("from the child", queue.name)
            connection.close()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    producer.publish("after", queue.name)
    with connection.consumer(queue) as consumer:
        messages = take_all(consumer, 3)
        for message in messages:
            message.ack()
        consumer.flush()
    assert [message.payload for message in messages] == ["before", "from the child", "after"]


def test_explain_says_what_a_url_means_without_connecting():
    text = Connection.explain("amqp://user:hunter2@nowhere.invalid:5673/shop?heartbeat=5s")
    assert "hunter2" not in text
    assert "nowhere.invalid:5673" in text
    assert "user user" in text
    assert "shop" in text


@pytest.fixture
def shop(tmp_path):
    """A program's own table in the database that holds the queue, and a connection to it."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as begun:
        begun.execute(sa.text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
    with Connection(f"sqlite:///{tmp_path}/shop.db") as connection:
        connection.declare(Queue("orders"))
        yield engine, connection
    engine.dispose()


def test_a_message_in_a_transaction_is_stored_with_its_commit(shop):
    engine, connection = shop
    with Session(engine) as session:
        session.execute(sa.text("INSERT INTO orders VALUES (1)"))
        receipt = connection.producer().publish({"order": 1}, "orders", transaction=session)
        assert receipt.status == "pending"
        session.commit()
    assert receipt.status == "confirmed"
    with connection.consumer("orders") as consumer:
        assert consumer.receive(30).payload == {"order": 1}


def test_a_message_in_a_transaction_goes_with_its_rollback(shop):
    engine, connection = shop
    with engine.connect() as opened:
        opened.execute(sa.text("INSERT INTO orders VALUES (1)"))
        receipt = connection.producer().publish({"order": 1}, "orders", transaction=opened)
        opened.rollback()
    assert receipt.status == "discarded"
    assert connection.inspect("orders").ready == 0
