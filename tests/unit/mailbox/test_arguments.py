"""What a program says wrongly is refused where it says it, by name; nothing is sent."""

import pytest

from queue_core import ConfigError, Connection
from queue_core.mailbox import Mailbox, Panel, SigningKey
from queue_core.mailbox.directory import SharedDirectory
from queue_core.testing.clocks import FakeClock

KEY = SigningKey("ops", "a secret of the operators")


@pytest.fixture(scope="module")
def connection():
    with Connection("memory://arguments") as opened:
        yield opened


@pytest.fixture(scope="module")
def box(connection):
    with Mailbox("arguments", connection) as made, made.node("a"):
        yield made


@pytest.mark.parametrize(
    ("ask", "wrong"),
    [
        (lambda box: box.call("a", "ping"), r"for one node say \['a'\]"),
        (lambda box: box.call([], "ping"), "at least one node"),
        (lambda box: box.call(None, "ping"), "at least one node"),
        (lambda box: box.call([5], "ping"), "a node's name is a string, not 5"),
        (lambda box: box.call([""], "ping"), "a node's name is a string, not ''"),
        (lambda box: box.call(["a"], 5), "method"),
        (lambda box: box.call(["a"], ""), "method"),
        (lambda box: box.call(["a"], "x" * 256), "method"),
        (lambda box: box.call(["a"], "pi\nng"), "method"),
        (lambda box: box.call(["a"], "ping", [1]), "arguments"),
        (lambda box: box.call(["a"], "ping", "x"), "arguments"),
        (lambda box: box.call(["a"], "ping", {1: 2}), "arguments"),
        (lambda box: box.call(["a"], "ping", timeout=None), "timeout"),
        (lambda box: box.call(["a"], "ping", timeout="1"), "timeout"),
        (lambda box: box.call(["a"], "ping", timeout=-1), "timeout"),
        (lambda box: box.multi_call("ping", timeout=float("inf")), "timeout"),
        (lambda box: box.nodes(timeout="1"), "timeout"),
        (lambda box: box.nodes(timeout=None), "timeout"),
        (lambda box: list(box.stream("ping", timeout=None)), "timeout"),
        (lambda box: box.multi_call("ping", limit=0), "limit"),
        (lambda box: box.multi_call("ping", limit="1"), "limit"),
        (lambda box: box.multi_call("ping", match=5), "match"),
        (lambda box: box.multi_call("ping", regex=5), "regex"),
        (lambda box: box.multi_call("ping", match="*", regex="a"), "match or regex"),
        (lambda box: box.multi_call("ping", labels=["web"]), "labels"),
        (lambda box: box.multi_call("ping", labels={"zone": 1}), "labels"),
        (lambda box: box.multi_call("ping", callback="say"), "callback"),
        (lambda box: box.cast(["a"], "ping", ttl="1"), "ttl"),
        (lambda box: box.abcast("ping", ttl=-1), "ttl"),
        (lambda box: box.node(5), "name"),
        (lambda box: box.node("b", labels={"zone": 1}), "labels"),
        (lambda box: box.node("b", labels="role=web"), "labels"),
        (lambda box: box.node("b", panel=[len]), "panel"),
        (lambda box: box.node("b", on_duplicate="fight"), "on_duplicate"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(box, ask, wrong):
    with pytest.raises(ConfigError, match=wrong):
        ask(box)


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"namespace": ""}, "namespace"),
        ({"namespace": 5}, "namespace"),
        ({"connection": "memory://"}, "connection"),
        ({"type": "topic"}, "type"),
        ({"clock": 5}, "clock"),
        ({"accept": "json"}, "accept"),
        ({"key": "a secret of the operators"}, "key"),
        ({"keys": KEY}, "keys"),
        ({"keys": ["a secret of the operators"]}, "keys"),
    ],
)
def test_a_mailbox_that_cannot_work_is_not_made(connection, options, wrong):
    with pytest.raises(ConfigError, match=wrong):
        Mailbox(**{"namespace": "arguments", "connection": connection, **options})


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"kind": "look"}, "kind"),
        ({"concurrency": -1}, "concurrency"),
        ({"concurrency": None}, "concurrency"),
        ({"journal": "a day"}, "journal"),
        ({"journal": -1}, "journal"),
        ({"default_timeout": 0}, "default_timeout"),
        ({"name": ""}, "name"),
    ],
)
def test_a_command_that_cannot_work_is_not_registered(options, wrong):
    panel = Panel()
    with pytest.raises(ConfigError, match=wrong):
        panel.register(lambda state: None, **{"name": "look", **options})
    assert "look" not in panel


def test_a_handler_is_something_that_can_be_called():
    with pytest.raises(ConfigError, match="handler"):
        Panel().register(5)


def test_one_nodes_damaged_labels_hide_no_other(connection):
    store = connection.key_value()
    directory = SharedDirectory(lambda timeout: store, "damaged", FakeClock())
    store.key_set("qc.mailbox.damaged.nodes", b'{"a": {"zone": 1}, "b": {"role": "web"}, "c": 5}')
    assert directory.names() == {"a": {}, "b": {"role": "web"}, "c": {}}
