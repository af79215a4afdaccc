"""What PostgreSQL's errors mean: the caller gets one of ours, with the remedy."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import OperationalError

from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConnectionLost,
    ConnectTimeout,
    QueueCoreError,
    StoreCorrupt,
)
from queue_core.transports.sql.postgresql_errors import explain_connecting, explain_postgresql

PLACE = "the PostgreSQL database 'name' at host"


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (errors.DiskFull, BrokerFull, "free disk space"),
        (errors.OutOfMemory, BrokerFull, PLACE),
        (errors.TooManyConnections, ConnectionLost, "max_connections"),
        (errors.ReadOnlySqlTransaction, ConnectionLost, "name the primary"),
        (errors.QueryCanceled, ConnectionLost, "statement_timeout"),
        (errors.LockNotAvailable, ConnectionLost, "lock_timeout"),
        (errors.IdleInTransactionSessionTimeout, ConnectionLost, PLACE),
        (errors.IdleSessionTimeout, ConnectionLost, PLACE),
        (errors.AdminShutdown, ConnectionLost, PLACE),
        (errors.CrashShutdown, ConnectionLost, PLACE),
        (errors.CannotConnectNow, ConnectionLost, PLACE),
        (errors.SerializationFailure, ConnectionLost, PLACE),
        (errors.DeadlockDetected, ConnectionLost, PLACE),
        (errors.InsufficientPrivilege, AccessRefused, "CREATE ON SCHEMA"),
        (errors.InvalidSchemaName, AccessRefused, "GRANT CREATE ON SCHEMA"),
        (errors.InvalidPassword, AccessRefused, "check user and password"),
        (errors.InvalidCatalogName, AccessRefused, "CREATE DATABASE"),
        (errors.UndefinedTable, StoreCorrupt, "missing or damaged"),
        (errors.DataCorrupted, StoreCorrupt, "missing or damaged"),
    ],
)
def test_an_error_of_the_server_is_one_of_ours(
    error: type[psycopg.Error], kind: type[QueueCoreError], says: str
) -> None:
    meaning = explain_postgresql(error("what the server said"), PLACE)
    assert type(meaning) is kind
    assert says in str(meaning)
    assert "what the server said" in str(meaning)


def test_an_error_that_sqlalchemy_wraps_is_looked_at_itself() -> None:
    wrapped = OperationalError("COMMIT", None, errors.DiskFull("no space left"))
    assert isinstance(explain_postgresql(wrapped, PLACE), BrokerFull)


def test_an_error_without_a_code_is_a_lost_connection() -> None:
    error = psycopg.OperationalError("consuming input failed: server closed the connection")
    assert type(explain_postgresql(error, PLACE)) is ConnectionLost


@pytest.mark.parametrize("error", [errors.SyntaxError("typo"), ValueError("other"), KeyError("x")])
def test_a_mistake_is_no_error_of_the_database(error: Exception) -> None:
    assert explain_postgresql(error, PLACE) is None


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('FATAL:  password authentication failed for user "u"', AccessRefused),
        ('FATAL:  role "u" does not exist', AccessRefused),
        ('FATAL:  no pg_hba.conf entry for host "h", user "u"', AccessRefused),
        ('FATAL:  database "d" does not exist', AccessRefused),
        ("connection timeout expired", ConnectTimeout),
        ("connection refused", ConnectionLost),
        ("FATAL:  Passwort-Authentifizierung für Benutzer »u« fehlgeschlagen", ConnectionLost),
    ],
)
def test_why_no_connection_was_made_is_told(said: str, kind: type[QueueCoreError]) -> None:
    meaning = explain_connecting(psycopg.OperationalError(said), PLACE, "u")
    assert type(meaning) is kind
    assert PLACE in str(meaning)


@pytest.mark.parametrize(
    ("said", "next_step"),
    [
        ('FATAL:  password authentication failed for user "u"', "check user and password"),
        ("fe_sendauth: no password supplied", "check user and password"),
        ('FATAL:  role "u" does not exist', "check user and password"),
        ('FATAL:  no pg_hba.conf entry for host "h", user "u"', "pg_hba.conf"),
        ('FATAL:  database "d" does not exist', "make it with: CREATE DATABASE"),
    ],
)
def test_who_is_not_let_in_hears_what_to_do(said: str, next_step: str) -> None:
    told = str(explain_connecting(psycopg.OperationalError(said), PLACE, "u"))
    assert next_step in told.rpartition("; ")[2]
