"""Key values across lost connections: what may happen twice is repeated, the rest is not."""

import pytest

from queue_core import Connection, ConnectionLost
from queue_core.transport import KeyEntry


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
        session.key_value = lambda: made
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
