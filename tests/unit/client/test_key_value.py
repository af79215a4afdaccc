"""Key values across lost connections: what may happen twice is repeated, the rest is not."""

import pytest

from queue_core import ConfigError, Connection, ConnectionLost
from queue_core.policy import Backoff
from queue_core.transport import KeyEntry, KeyWrite


class Values:
    """A key-value store whose next replies can be lost after the effect."""

    def __init__(self):
        self.count = 0
        self.lost = 0

    def _reply(self, value):
        if self.lost:
            self.lost -= 1
            raise ConnectionLost("the reply was lost")
        return value

    def key_get(self, key):
        return self._reply(KeyEntry(b"%d" % self.count, 1))

    def key_set(self, key, value, *, ttl=None, version=None):
        self.count += 1
        return self._reply(self.count)

    def key_increment(self, key, amount=1, *, ttl=None):
        self.count += amount
        return self._reply(self.count)

    def key_delete(self, key, *, version=None):
        self.count += 1
        return self._reply(True)


@pytest.fixture
def values(broker, monkeypatch):
    made = Values()
    broker.dies = False
    opened = broker.open

    def open_with_values(url, options):
        session = opened(url, options)
        session.key_value = lambda **options: made
        return session

    monkeypatch.setattr(broker, "open", open_with_values)
    return made


@pytest.fixture
def key_value(broker, values):
    with Connection("memory://a", transport=broker, clock=broker.clock) as connection:
        connection.connect()
        yield connection.key_value()


def test_reading_and_plain_setting_are_repeated(values, key_value):
    values.lost = 1
    assert key_value.key_get("k").value == b"0"
    values.lost = 1
    assert key_value.key_set("k", b"v") == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda key_value: key_value.key_increment("k"),
        lambda key_value: key_value.key_set("k", b"v", version=0),
        lambda key_value: key_value.key_delete("k"),
    ],
)
def test_what_would_be_wrong_twice_is_tried_once(values, key_value, change):
    values.lost = 1
    with pytest.raises(ConnectionLost):
        change(key_value)
    assert values.count == 1


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "k" * 401])
def test_a_key_that_some_broker_cannot_have_is_refused_on_each(values, key_value, key):
    for call in (
        lambda: key_value.key_get(key),
        lambda: key_value.key_set(key, b""),
        lambda: key_value.key_set_many([KeyWrite("k", b""), KeyWrite(key, b"")]),
        lambda: key_value.key_increment(key),
        lambda: key_value.key_delete(key),
        lambda: key_value.key_set("k", b"", ttl=1e15),
    ):
        with pytest.raises(ConfigError, match="key"):
            call()
    assert values.count == 0


def test_its_calls_have_a_timeout_of_their_own(broker, values):
    backoff = Backoff(0.01, 0.05)
    with Connection("memory://a", transport=broker, backoff=backoff, timeout=600.0) as connection:
        connection.connect()
        values.lost = 1_000_000
        with pytest.raises(ConnectionLost):
            connection.key_value(timeout=0.2).key_get("k")
