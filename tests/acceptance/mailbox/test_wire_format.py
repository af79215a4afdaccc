"""The tables of docs/mailbox-wire.rst against what is really sent, on each broker."""

import csv
import hashlib
import hmac
import json
import re
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from queue_core import Connection, Exchange, Queue
from queue_core.mailbox import SigningKey
from queue_core.mailbox.schema import AnswerBody, AnswerHeaders, CommandBody, CommandHeaders
from queue_core.mailbox.wire import KINDS
from queue_core.testing.eventually import eventually

TEXT = (Path(__file__).parents[3] / "docs" / "mailbox-wire.rst").read_text(encoding="utf-8")
SECRET = "a secret of the operators"
OPS = SigningKey("ops", SECRET)
WAIT = 10.0
TYPES = {
    "string": str,
    "object": dict,
    "array": list,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def table(title):
    """The rows of a table: name without its ?, whether it may be missing, and types."""
    found = re.search(rf"csv-table:: {title}\n    :header: [^\n]*\n\n((?:    .*\n)+)", TEXT)
    rows = csv.reader((line.strip() for line in found[1].splitlines()), skipinitialspace=True)
    return {
        name.strip("`?"): ("?" in name, tuple(TYPES.get(word) for word in types.split(" or ")))
        for name, types, *_ in rows
    }


BODY, HEADERS = table("Body of a command"), table("Headers of a command")
ANSWER = table("Headers of an answer")
KIND_ROWS = re.search(r"Kinds of answers\n.*\n\n((?:    .*\n)+)", TEXT)[1]


def check(rows, fields):
    for name, (optional, types) in rows.items():
        if name not in fields:
            assert optional, name
            continue
        value = fields[name]
        assert any(isinstance(value, kind) for kind in types), (name, value)
        assert not isinstance(value, bool) or bool in types, (name, value)
    assert set(fields) <= set(rows)


@pytest.fixture
def spy(any_url, namespace):
    """Read what goes to all nodes, and what goes to an address of the test's own."""
    with Connection(any_url) as connection:
        commands = Exchange(f"{namespace}.pidbox", "fanout", durable=False)
        answers = Exchange(f"reply.{namespace}.pidbox", "direct", durable=False)
        queues = (
            connection.declare(Queue(f"{namespace}.c", exchange=commands, expires=60.0)),
            connection.declare(
                Queue(f"{namespace}.a", exchange=answers, routing_key="me", expires=60.0)
            ),
        )
        consumers = [connection.consumer(queue, decode=False) for queue in queues]
        for consumer in consumers:
            consumer.start()  # on RabbitMQ a command may expire before we look

        def read(which):
            message = consumers[which].receive(WAIT)
            assert message is not None
            message.ack()
            assert message.properties.content_type == "application/json"
            return json.loads(message.body), dict(message.headers)

        yield connection.producer(), read
        for consumer, queue in zip(consumers, queues, strict=True):
            consumer.close()
            connection.delete(queue)


def test_commands_are_as_the_document_says(spy, open_box, start):
    start("a")
    operator = open_box(key=OPS)
    operator.multi_call("add", {"x": 1}, timeout=5, match="*", labels={})
    operator.multi_call("ping", timeout=1, labels={"role": "web"}, limit=1)
    operator.abcast("revoke", {"task_id": "1"}, ttl=None, regex="a")
    seen = set()
    for _ in range(3):
        body, headers = spy[1](0)
        if "reply_to" in body:
            assert body["reply_to"] == {"exchange": "", "routing_key": operator.reply_queue}
        check(BODY, body)
        check(HEADERS, headers)
        msgspec.convert(body, CommandBody)
        msgspec.convert(headers, CommandHeaders)
        seen |= set(body) | set(headers)
    assert seen >= (set(BODY) | set(HEADERS)) - {"qc-peers"}


def test_answers_are_as_the_document_says(spy, start, namespace):
    producer, read = spy
    start("a", keys=[OPS])

    def ask(method, arguments, **more):
        """What somebody would send who only has the document."""
        body = {
            "method": method,
            "arguments": arguments,
            "ticket": f"t-{method}",
            "reply_to": {"exchange": f"reply.{namespace}.pidbox", "routing_key": "me"},
        }
        headers = {"clock": 7, "qc-peers": True, **more}
        producer.publish(body, f"a.{namespace}.pidbox", headers=headers)

    kinds = []
    for method, arguments, more, count in (
        ("add", {"x": 1}, {}, 1),
        ("numbers", {"count": 2}, {}, 3),
        ("fail", {}, {}, 1),
        ("shutdown", {}, {}, 1),
        ("ping", {}, {"expires": time.time() - 60}, 1),
    ):
        ask(method, arguments, **more)
        for _ in range(count):
            body, headers = read(1)
            check(ANSWER, headers)
            msgspec.convert(headers, AnswerHeaders)
            msgspec.convert(body, AnswerBody)
            assert headers["ticket"] == f"t-{method}"
            assert headers["clock"] > 7
            assert list(body) == ["a"]
            kinds.append(headers["qc-kind"])
            if kinds[-1] in ("error", "refused", "expired"):
                assert list(body["a"]) == ["error"]
    assert kinds == ["value", "item", "item", "end", "error", "refused", "expired"]


def test_a_signature_made_by_the_document_alone_is_accepted(spy, start, namespace):
    producer, _ = spy
    node = start("a", keys=[OPS])
    ttl, signed_at, ticket = 10.0, time.time(), str(uuid.uuid4())
    body = {
        "method": "revoke",
        "arguments": {"task_id": "größe"},
        "destination": ["a"],
        "pattern": None,
        "matcher": None,
        "ticket": ticket,
    }
    text = (
        '{"arguments":{"task_id":"gr\\u00f6\\u00dfe"},"clock":1,"destination":["a"],"key":"ops",'
        f'"labels":{{}},"matcher":null,"method":"revoke","namespace":"{namespace}","pattern":null,'
        f'"signed_at":{signed_at},'
        f'"ticket":"{ticket}","ttl":{ttl}}}'
    )
    headers = {
        "clock": 1,
        "qc-ttl": ttl,
        "qc-key": "ops",
        "qc-signed-at": signed_at,
        "qc-signature": hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest(),
    }
    producer.publish(body, f"a.{namespace}.pidbox", headers=headers)
    eventually(lambda: node.state.get("revoked") == ["größe"])


def test_the_document_has_every_kind_of_answer():
    assert tuple(re.findall(r"(?m)^    ``(\w+)``", KIND_ROWS)) == KINDS


def test_the_examples_in_the_document_are_commands_and_answers():
    command, answer = (
        json.loads(block) for block in re.findall(r"code-block:: json\n\n((?:    .*\n)+)", TEXT)
    )
    check(BODY, command)
    assert list(answer) == ["web-1"]
