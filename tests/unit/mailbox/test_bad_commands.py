"""One bad command, handler or store costs itself at most: the node goes on, others are heard."""

import itertools
import threading
import time

import pytest

from queue_core import Connection, ConnectionLost, Properties, Publication, Unroutable, encode
from queue_core.mailbox import Mailbox, SigningKey
from queue_core.mailbox import node as nodes
from queue_core.mailbox.wire import CALL, node_queue, reply_exchange
from queue_core.testing.eventually import eventually

numbers = itertools.count()
OPS = SigningKey("ops", "the secret of the operators")


@pytest.fixture
def connection():
    with Connection(f"memory://bad-commands-{next(numbers)}") as made:
        yield made


@pytest.fixture
def box(connection):
    with Mailbox("fleet", connection, keys=[OPS], key=OPS, accept=["json", "msgpack"]) as made:
        yield made


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("no words")


@pytest.fixture
def node(box):
    made = box.node("n")

    @made.handler(concurrency=0)
    def here(state, x: object = None) -> str:
        return "fine"

    @made.handler
    def there(state, x: object = None) -> str:
        return "fine"

    @made.handler(concurrency=0)
    def speechless(state) -> None:
        raise Unspeakable

    @made.handler(kind="control")
    def change(state, x: object = None) -> str:
        return "done"

    with made:
        yield made


def send(connection, body, serializer="json", **headers):
    """Send what may be no command, as anybody can who reaches the broker."""
    encoded = encode(body, serializer)
    properties = Properties(encoded.content_type, encoded.content_encoding, headers, CALL)
    queue = node_queue("fleet", "n")
    name = f"e{next(numbers)}"
    connection.producer().publish_many([Publication("", queue, encoded.body, properties, name)])


def command(method="here", **fields):
    return {"method": method, "arguments": {}, "ticket": f"t{next(numbers)}", **fields}


NOWHERE = {"exchange": "", "routing_key": f"line\n.{reply_exchange('fleet')}"}
SIGNED = {"qc-key": "ops", "qc-signature": "s", "qc-signed-at": 2.0**40}
BAD = {
    "an answer to a name that no queue can have": (command(reply_to=NOWHERE), "json", {}),
    "the same of what is refused": (command("change", reply_to=NOWHERE), "json", {}),
    "the same of no command": (command("nothing", reply_to=NOWHERE), "json", {}),
    "bytes where a signature is": (command("change", arguments={"x": b"\xff"}), "msgpack", SIGNED),
    "keys of two kinds": (command("change", arguments={"x": {1: 1, "a": 2}}), "msgpack", SIGNED),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_command_neither_ends_nor_delays_a_node(connection, box, node, what):
    body, serializer, headers = BAD[what]
    began = time.monotonic()
    for _ in range(6):
        send(connection, {**body, "ticket": f"t{next(numbers)}"}, serializer, **headers)
    assert box.call(["n"], "here", timeout=20.0) == {"n": "fine"}
    assert node._thread.is_alive()
    assert time.monotonic() - began < 10.0
    assert box.call(["n"], "change", timeout=20.0) == {"n": "done"}


def test_an_error_without_words_is_an_answer_too(box, node):
    answers = box.multi_call("speechless", timeout=20.0)
    assert answers.errors["n"].type_name == "Unspeakable"
    assert box.call(["n"], "here", timeout=20.0) == {"n": "fine"}


def test_a_name_that_no_node_has_keeps_no_other_from_being_told(box, node):
    heard = threading.Event()
    node.panel.register(lambda state: heard.set(), name="hear")
    with pytest.raises(Unroutable, match="no node 'gone'"):
        box.cast(["gone", "n"], "hear")
    assert heard.wait(20.0)


def test_a_store_of_names_that_is_away_does_not_delay_commands(connection, monkeypatch):
    monkeypatch.setattr(nodes, "_REJOIN", 0.0)
    box = Mailbox("fleet", connection)
    node = box.node("n")
    hanging = threading.Event()
    with node:

        def join(*_, **__):
            hanging.wait(20.0)
            raise ConnectionLost("the store is away")

        monkeypatch.setattr(node._wiring.directory, "join", join)
        began = time.monotonic()
        for _ in range(6):
            assert box.call(["n"], "ping", timeout=20.0) == {"n": {"ok": "pong"}}
        assert time.monotonic() - began < 10.0
        hanging.set()
        for _ in range(6):
            assert box.call(["n"], "ping", timeout=20.0) == {"n": {"ok": "pong"}}
        assert time.monotonic() - began < 15.0
    eventually(lambda: not node._thread.is_alive())
