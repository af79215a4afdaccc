"""Registry: the nearest name, the missing module, and what is not a transport."""

import pytest

from queue_core import Connection, registry
from queue_core.errors import ConfigError


class Point:
    def __init__(self, name, load):
        self.name = name
        self.load = load


@pytest.fixture
def points(monkeypatch):
    found = []
    monkeypatch.setattr(registry, "_entry_points", lambda: found)
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_loaded", {})
    return found


def test_a_registered_transport_comes_before_an_entry_point(points, broker):
    points.append(Point("mine", lambda: pytest.fail("the entry point was loaded")))
    registry.register_transport("mine", broker)
    assert registry.find_transport("mine") is broker


def test_an_entry_point_is_loaded_once(points, broker):
    loads = []
    points.append(Point("mine", lambda: loads.append(1) or broker))
    assert registry.find_transport("mine") is registry.find_transport("mine+driver") is broker
    assert loads == [1]


def test_an_unknown_scheme_names_the_nearest_and_all_others(points):
    points += [Point("amqp", None), Point("sqlite", None)]
    with pytest.raises(ConfigError, match="did you mean sqlite://.*amqp://, sqlite://"):
        registry.find_transport("sqlit")
    with pytest.raises(ConfigError, match="did you mean amqp://"):
        registry.find_transport("pyamqp")
    with pytest.raises(ConfigError, match="no transport for sqla://; did you mean sqlite://"):
        registry.find_transport("sqla+sqlite")


def test_a_missing_driver_is_one_line_with_the_pip_command(points):
    def load():
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    points.append(Point("postgresql", load))
    with pytest.raises(ConfigError, match=r"'psycopg'.*pip install 'queue-core\[postgres\]'"):
        registry.find_transport("postgresql")


def test_a_module_that_a_foreign_transport_lacks_is_in_none_of_our_extras(points):
    def load():
        raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    points.append(Point("sqs", load))
    with pytest.raises(ConfigError, match="module 'boto3'.*; install it, or") as told:
        registry.find_transport("sqs")
    assert "queue-core[" not in str(told.value)


def test_an_entry_point_that_names_nothing_says_so(points):
    def load():
        raise AttributeError("module 'mine' has no attribute 'transport'")

    points.append(Point("mine", load))
    with pytest.raises(ConfigError, match="mine://.*no attribute 'transport'"):
        registry.find_transport("mine")


def test_what_is_not_a_transport_is_refused_with_what_it_lacks(points):
    with pytest.raises(ConfigError, match="features, check, open"):
        registry.register_transport("odd", type("Odd", (), {"name": "odd"})())


def test_what_is_passed_as_a_transport_and_is_none_is_refused_with_what_it_lacks():
    with pytest.raises(
        ConfigError, match=r"mine:// \('memory'\) lacks name, features, check, open"
    ):
        Connection("mine://host", transport="memory")


def test_what_is_no_entity_is_refused_with_what_to_write() -> None:
    with Connection("memory://no-entity") as connection:
        for call in (connection.declare, connection.delete):
            with pytest.raises(ConfigError, match=r'not str; write Queue\("name"\)'):
                call("orders")
