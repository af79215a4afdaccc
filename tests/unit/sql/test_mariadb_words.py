"""How values are written into statements, and what each error number of MariaDB means."""

from __future__ import annotations

import ssl

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_core.errors import (
    AccessRefused,
    BrokerFull,
    ConnectionLost,
    ConnectTimeout,
    StoreCorrupt,
    TooLarge,
)
from queue_core.transport import SessionOptions
from queue_core.transports.sql.mariadb_dialect import MariadbLanguage
from queue_core.transports.sql.mariadb_errors import explain_connecting, explain_mariadb
from queue_core.transports.sql.mariadb_server import MariadbServer
from queue_core.transports.sql.mariadb_wire import Wire, fill, in_digits, quoted
from queue_core.url import parse


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"NULL"),
        (7, b"7"),
        (-(1 << 62), b"-4611686018427387904"),
        (True, b"1"),
        (0.5, b"0.5"),
        ("it's", b"'it\\'s'"),
        ("back\\slash", b"'back\\\\slash'"),
        ("\u00e9\0%s", "'\u00e9\0%s'".encode()),
        (b"\xff'\\", b"_binary'\xff\\'\\\\'"),
        ((1, "a"), b"(1,'a')"),
        (((1, 2), (3, 4)), b"((1,2),(3,4))"),
    ],
)
def test_values_are_written_as_the_server_reads_them(value: object, text: bytes) -> None:
    assert quoted(value) == text


def test_an_unknown_kind_of_value_is_refused() -> None:
    with pytest.raises(TypeError, match="object is no value"):
        quoted(object())


@given(st.text() | st.binary())
def test_no_value_ends_its_own_string(value: str | bytes) -> None:
    """What stands between the outer quotes has each quote and backslash behind a backslash."""
    inner = quoted(value).partition(b"'")[2][:-1]
    left = inner.replace(b"\\\\", b"").replace(b"\\'", b"")
    assert b"'" not in left
    assert b"\\" not in left


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.binary())
def test_in_digits_there_is_nothing_to_misread(value: str | bytes) -> None:
    inner = in_digits(value).partition(b"'")[2][:-1]
    assert bytes.fromhex(inner.decode()) == (value.encode() if isinstance(value, str) else value)


def test_a_statement_takes_as_many_values_as_it_has_places() -> None:
    assert fill("a = %s AND b LIKE '100%%' LIMIT %s", ["%s", 5]) == (
        b"a = '%s' AND b LIKE '100%' LIMIT 5"
    )
    for values in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match="zip"):
            fill("%s %s", values)


class Connection:
    """Notes the packets that it gets; each statement has changed a row, or returns its text."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.rowcount = 1
        self._left: list[bytes] = []

    def cursor(self) -> Connection:
        return self

    def execute(self, packet: bytes) -> None:
        self.packets.append(packet)
        self._left = packet.split(b";")

    def fetchall(self) -> list[tuple[bytes]]:
        return [(self._left[0],)]

    def nextset(self) -> bool:
        del self._left[0]
        return bool(self._left)


def test_statements_wait_for_one_whose_answer_is_wanted() -> None:
    connection = Connection()
    wire = Wire(connection, 1 << 20)
    wire.execute("a")
    wire.execute("b")
    wire.execute("c")
    assert connection.packets == []
    assert wire.fetchone() == (b"c",)
    assert connection.packets == [b"a;b;c"]
    wire.executemany("d %s", [[1], [2]])
    assert wire.rowcount == 2
    assert connection.packets[1:] == [b"d 1;d 2"]


def test_what_is_forgotten_is_not_sent() -> None:
    connection = Connection()
    wire = Wire(connection, 1 << 20)
    wire.execute("a")
    wire.forget()
    wire.execute("b")
    wire.send()
    wire.send()
    assert connection.packets == [b"b"]


def test_no_packet_is_larger_than_the_server_takes() -> None:
    connection = Connection()
    wire = Wire(connection, 10_000)
    wire.executemany("x %s", [["y" * 3_000]] * 7)
    assert wire.rowcount == 7
    assert all(len(packet) < 10_000 for packet in connection.packets)
    with pytest.raises(TooLarge, match="10000 bytes .* max_allowed_packet"):
        wire.execute("x %s", ["y" * 10_000])


PLACE = "the MariaDB database 'd' at host"


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        (1213, ConnectionLost, "other transactions"),
        (1205, ConnectionLost, "other transactions"),
        (1020, ConnectionLost, "other transactions"),
        (2006, ConnectionLost, "is lost"),
        (2013, ConnectionLost, "is lost"),
        (1053, ConnectionLost, "is lost"),
        (1317, ConnectionLost, "is lost"),
        (1040, ConnectionLost, "max_connections"),
        (1021, BrokerFull, "free space"),
        (1114, BrokerFull, "free space"),
        (1044, AccessRefused, "GRANT"),
        (1045, AccessRefused, "password"),
        (1142, AccessRefused, "GRANT"),
        (1290, AccessRefused, "accepts no writes"),
        (1836, AccessRefused, "accepts no writes"),
        (1049, AccessRefused, "CREATE DATABASE"),
        (1665, AccessRefused, "binlog_format"),
        (1146, StoreCorrupt, "schema"),
        (1194, StoreCorrupt, "schema"),
    ],
)
def test_each_error_number_has_a_meaning(number: int, kind: type, word: str) -> None:
    error = pymysql.err.OperationalError(number, "what the server says")
    meaning = explain_mariadb(error, PLACE)
    assert type(meaning) is kind
    assert word in str(meaning)
    assert PLACE in str(meaning)
    assert "what the server says" in str(meaning)


def test_a_full_disk_is_told_from_other_errors_of_the_storage() -> None:
    full = pymysql.err.InternalError(1030, "Got error 28 'No space left on device'")
    assert isinstance(explain_mariadb(full, PLACE), BrokerFull)
    assert explain_mariadb(pymysql.err.InternalError(1030, "Got error 5"), PLACE) is None


def test_mistakes_in_statements_and_foreign_exceptions_pass_through() -> None:
    assert explain_mariadb(pymysql.err.ProgrammingError(1064, "syntax"), PLACE) is None
    assert explain_mariadb(ValueError("no"), PLACE) is None
    assert isinstance(explain_mariadb(pymysql.err.InterfaceError(0, ""), PLACE), ConnectionLost)


def test_a_timeout_while_connecting_is_told_from_a_refusal() -> None:
    late = pymysql.err.OperationalError(2003, "Can't connect (timed out)")
    late.original_exception = TimeoutError()
    assert isinstance(explain_connecting(late, PLACE), ConnectTimeout)
    nobody = pymysql.err.OperationalError(2003, "Can't connect (refused)")
    nobody.original_exception = ConnectionRefusedError()
    assert type(explain_connecting(nobody, PLACE)) is ConnectionLost


def test_a_connection_that_checks_no_certificate_reads_no_authorities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[ssl.SSLContext] = []

    def connect(self: pymysql.connections.Connection, sock: object = None) -> None:
        made.append(self.ctx)
        raise pymysql.err.OperationalError(2003, "nobody there")

    def read(*args: object, **options: object) -> None:
        raise AssertionError("the authorities were read")

    monkeypatch.setattr(pymysql.connections.Connection, "connect", connect)
    monkeypatch.setattr(ssl, "create_default_context", read)
    server = MariadbServer(parse("mysql://host/name"), SessionOptions())
    with pytest.raises(ConnectionLost):
        server.connect(MariadbLanguage().compiler)
    (context,) = made
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
