"""What a connection says about its broker's promise: as a value, in words, and once in the log."""

from __future__ import annotations

import logging

import pytest

from queue_core import Connection, Durability, Survives
from queue_core.errors import SessionLost
from queue_core.recovery import Recovery

WEAK = Durability(Survives.POWER_CUT, "two settings", "Thing 1.0").weakened(
    Survives.CLIENTS, "it forgets", "set remember yes"
)


def test_levels_compare_and_read_as_words() -> None:
    assert Survives.UNKNOWN < Survives.NOTHING < Survives.CLIENTS < Survives.RESTART
    assert Survives.RESTART < Survives.SERVER_CRASH < Survives.POWER_CUT < Survives.DISK_LOSS
    assert str(Survives.SERVER_CRASH) == "server crash"


def test_a_weakness_never_makes_it_stronger() -> None:
    assert WEAK.survives is Survives.CLIENTS
    assert WEAK.weakened(Survives.SERVER_CRASH, "p", "r").survives is Survives.CLIENTS


def test_printed_it_has_the_level_what_was_found_and_each_remedy() -> None:
    assert str(WEAK).splitlines() == [
        "survives: clients (Thing 1.0: two settings)",
        "warning: it forgets; set remember yes",
    ]


def test_before_the_first_use_a_connection_knows_nothing_and_says_what_to_do() -> None:
    with Connection("memory://durability") as connection:
        assert connection.durability.survives is Survives.UNKNOWN
        assert "connect()" in str(connection.durability)
        connection.connect()
        assert connection.durability.survives is Survives.NOTHING


def test_memory_does_not_nag(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Connection("memory://durability") as connection:
        connection.connect()
        assert connection.durability.warnings == ()
    assert not caplog.records


def test_a_session_that_cannot_tell_is_unknown_and_works(recovery: Recovery) -> None:
    assert recovery.call(lambda session, left: session.purge("q"), timeout=10.0) == 3
    assert recovery.durability == Durability()
    assert "does not tell" in recovery.durability.found


@pytest.mark.parametrize(
    ("durability", "levels"),
    [
        (WEAK, ["WARNING"]),
        (Durability(Survives.POWER_CUT).weakened(Survives.SERVER_CRASH, "p", "r"), ["INFO"]),
        (Durability().weakened(Survives.UNKNOWN, "p", "r"), ["WARNING"]),
        (Durability(Survives.NOTHING), []),
    ],
)
def test_what_is_weak_is_logged_once_in_a_connection(
    broker, recovery, caplog, monkeypatch, durability, levels
) -> None:
    monkeypatch.setattr(
        type(recovery.call(lambda session, left: session, timeout=10.0)),
        "durability",
        lambda self, queue="": durability,
        raising=False,
    )
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            broker.failures.append(SessionLost("the next session is asked again"))
            recovery.call(lambda session, left: session.purge("q"), timeout=10.0)
    said = [record for record in caplog.records if record.getMessage().startswith("broker memory")]
    said = [record for record in said if "p; r" in record.message or "forgets" in record.message]
    assert [record.levelname for record in said] == levels
    assert recovery.durability == durability
