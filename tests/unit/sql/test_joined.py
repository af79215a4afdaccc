"""A publish inside the caller's own transaction exists if and only if his rows do."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from queue_core import Connection, Queue
from queue_core.errors import ConnectionLost, UsageError
from queue_core.transport import Change, Envelope, Limit, Transaction


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def engine(path: Path, open_handle: Any) -> Iterator[Engine]:
    """The application's own engine on the broker's file, with a table of its own."""
    open_handle()
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.2})
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def _message(name: str = "a", **fields: Any) -> Envelope:
    return Envelope("q", name, b"body", b"", **fields)


def _count(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM orders")).scalar_one())


def test_an_orm_session_that_commits_stores_both(engine: Engine, open_handle: Any) -> None:
    store = open_handle()
    ended: list[bool] = []
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        store.put([_message()], {}, transaction=Transaction(session, ended.append))
        assert store.inspect("q").ready == 0, "nobody sees it before the commit"
        assert ended == []
        session.commit()
        assert ended == [True]
    assert (store.inspect("q").ready, _count(engine)) == (1, 1)


def test_an_orm_session_that_rolls_back_stores_neither(engine: Engine, open_handle: Any) -> None:
    store = open_handle()
    ended: list[bool] = []
    with Session(engine) as session:
        session.add(Order(id=1))
        session.flush()
        store.put([_message()], {}, transaction=Transaction(session, ended.append))
        session.rollback()
        assert ended == [False]
    assert (store.inspect("q").ready, _count(engine)) == (0, 0)


def test_a_core_connection_may_publish_before_it_writes(engine: Engine, open_handle: Any) -> None:
    store = open_handle()
    ended: list[bool] = []
    with engine.connect() as connection:
        store.put([_message()], {}, transaction=Transaction(connection, ended.append))
        connection.execute(text("INSERT INTO orders VALUES (1)"))
        connection.commit()
    assert ended == [True]
    assert (store.inspect("q").ready, _count(engine)) == (1, 1)


def test_a_connection_that_is_closed_without_commit_stores_nothing(
    engine: Engine, open_handle: Any
) -> None:
    store = open_handle()
    ended: list[bool] = []
    with engine.connect() as connection:
        store.put([_message()], {}, transaction=Transaction(connection, ended.append))
    assert ended == [False]
    assert store.inspect("q").ready == 0


def test_one_connection_may_be_used_for_many_transactions(engine: Engine, open_handle: Any) -> None:
    store = open_handle()
    ended: list[bool] = []
    with engine.connect() as connection:
        for number in range(6):
            for part in "ab":
                transaction = Transaction(connection, ended.append)
                store.put([_message(f"{number}{part}")], {}, transaction=transaction)
            (connection.commit if number % 2 else connection.rollback)()
    assert ended == [False, False, True, True] * 3
    assert store.inspect("q").ready == 6


def test_a_savepoint_that_is_rolled_back_takes_its_messages_along(
    engine: Engine, open_handle: Any
) -> None:
    store = open_handle()
    ended: list[bool] = []
    with engine.begin() as connection:
        store.put([_message("outer")], {}, transaction=Transaction(connection, ended.append))
        nested = connection.begin_nested()
        store.put([_message("inner")], {}, transaction=Transaction(connection, ended.append))
        nested.rollback()
    assert ended == [True, False]
    assert [c.id for c in _claim(store)] == ["outer"]


def _claim(store: Any) -> Any:
    store.open_session("s", 30.0)
    return store.claim("s", "r", {"q": 10}, 0.0).claims


def test_a_commit_that_fails_is_reported_by_sqlalchemy_and_confirms_nothing(
    engine: Engine, open_handle: Any
) -> None:
    store = open_handle()
    ended: list[bool] = []
    with engine.connect() as connection:
        connection.execute(text("PRAGMA foreign_keys = ON"))
        connection.commit()
        connection.execute(
            text("CREATE TABLE child (o REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)")
        )
        connection.commit()
        store.put([_message()], {}, transaction=Transaction(connection, ended.append))
        connection.execute(text("INSERT INTO child VALUES (99)"))
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            connection.commit()
        assert True not in ended
        connection.rollback()
    assert ended == [False]
    assert store.inspect("q").ready == 0


def test_waiting_consumers_are_woken_by_the_commit(engine: Engine, open_handle: Any) -> None:
    store, consumer = open_handle(), open_handle()
    consumer._dialect._wakeup._poll = 20.0
    took: list[Any] = []
    consumer.open_session("s", 30.0)

    def consume() -> None:
        took.extend(consumer.claim("s", "r", {"q": 1}, 20.0).claims)
        took.append(time.monotonic())

    thread = threading.Thread(target=consume)
    with engine.connect() as connection:
        store.put([_message()], {}, transaction=Transaction(connection, lambda _: None))
        thread.start()
        time.sleep(0.2)
        before = time.monotonic()
        connection.commit()
    thread.join(30.0)
    assert took[0].id == "a"
    assert took[1] - before < 5.0


def test_answers_are_as_outside_of_a_transaction(engine: Engine, open_handle: Any) -> None:
    store = open_handle()
    store.put([_message("old")], {})
    (claim,) = _claim(store)
    store.write_table([Change("entry", 0, b"x")])
    with engine.connect() as connection:
        transaction = Transaction(connection, lambda _: None)

        def put(*args: Any, **options: Any) -> Any:
            return store.put(*args, **options, transaction=transaction)

        assert put([_message("new")], {"entry": 0}).stale_entries == ["entry"]
        limit = {"q": Limit(1, "reject-publish")}
        assert put([_message("1"), _message("2")], {}, limits=limit).full == ["q"]
        assert put([_message("1"), _message("old")], {}).already == [1]
        assert put([_message("3")], {}, settle=[claim.token, (7, 7)]).stale_tokens == [(7, 7)]
        connection.commit()
    store.open_session("s", 30.0)
    assert [c.id for c in store.claim("s", "r2", {"q": 10}, 0.0).claims] == ["1", "3"]


def test_a_refused_put_leaves_the_callers_own_rows(engine: Engine, open_handle: Any) -> None:
    store = open_handle()
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO orders VALUES (1)"))
        transaction = Transaction(connection, lambda _: None)
        limit = {"q": Limit(0, "reject-publish")}
        assert store.put([_message()], {}, limits=limit, transaction=transaction).full == ["q"]
        connection.commit()
    assert _count(engine) == 1


def test_another_database_is_refused_and_both_are_named(
    path: Path, tmp_path: Path, open_handle: Any
) -> None:
    store = open_handle()
    other = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    with other.connect() as connection, pytest.raises(UsageError) as caught:
        store.put([_message()], {}, transaction=Transaction(connection, lambda _: None))
    assert "other.db" in str(caught.value)
    assert str(path) in str(caught.value)
    other.dispose()


def test_the_same_file_by_another_name_is_the_same_database(
    path: Path, tmp_path: Path, open_handle: Any
) -> None:
    store = open_handle()
    link = tmp_path / "link.db"
    link.symlink_to(path)
    engine = sqlalchemy.create_engine(f"sqlite:///{link}")
    with engine.begin() as connection:
        store.put([_message()], {}, transaction=Transaction(connection, lambda _: None))
    engine.dispose()
    assert store.inspect("q").ready == 1


@pytest.mark.parametrize("handle", [None, 3, "session", object()])
def test_what_is_no_session_or_connection_is_refused(open_handle: Any, handle: object) -> None:
    with pytest.raises(UsageError, match="SQLAlchemy Session or Connection"):
        open_handle().put([_message()], {}, transaction=Transaction(handle, lambda _: None))


def test_autocommit_is_no_transaction(path: Path, open_handle: Any) -> None:
    store = open_handle()
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, pytest.raises(UsageError, match="AUTOCOMMIT"):
        store.put([_message()], {}, transaction=Transaction(connection, lambda _: None))
    engine.dispose()


def test_a_database_in_memory_is_another_one(open_handle: Any) -> None:
    store = open_handle()
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(UsageError, match="in memory"):
        store.put([_message()], {}, transaction=Transaction(connection, lambda _: None))
    engine.dispose()


def test_a_transaction_that_read_before_somebody_wrote_must_be_run_again(
    path: Path, open_handle: Any
) -> None:
    store = open_handle()
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SELECT * FROM queue_core_meta")
        store.put([_message("between")], {})
        with pytest.raises(ConnectionLost, match="run it again"):
            store.put([_message()], {}, transaction=Transaction(connection, lambda _: None))
        connection.rollback()
    engine.dispose()
    assert store.inspect("q").ready == 1


def test_the_password_of_another_database_is_not_shown(open_handle: Any, monkeypatch: Any) -> None:
    store = open_handle()
    engine = sqlalchemy.create_engine("sqlite://")
    url = sqlalchemy.make_url("postgresql://user:hidden@host/db")
    monkeypatch.setattr(engine, "url", url)
    monkeypatch.setattr(engine.dialect, "name", "postgresql")
    with engine.connect() as connection, pytest.raises(UsageError) as caught:
        store.put([_message()], {}, transaction=Transaction(connection, lambda _: None))
    assert "hidden" not in str(caught.value)
    assert "postgresql://user:***@host/db" in str(caught.value)
    engine.dispose()


def test_no_listener_is_added_per_publish(engine: Engine, open_handle: Any) -> None:
    store = open_handle()
    with engine.connect() as connection:
        for number in range(50):
            transaction = Transaction(connection, lambda _: None)
            store.put([_message(str(number))], {}, transaction=transaction)
        assert len(list(connection.dispatch.commit)) == 1
        connection.commit()


def test_python_s_own_connection_is_refused_with_a_word(path: Path, open_handle: Any) -> None:
    store = open_handle()
    raw = sqlite3.connect(path)
    with pytest.raises(UsageError, match="not Connection"):
        store.put([_message()], {}, transaction=Transaction(raw, lambda _: None))
    raw.close()


def test_an_ack_before_the_publish_does_not_share_the_fate_of_the_transaction(
    engine: Engine, path: Path
) -> None:
    with Connection(f"sqlite:///{path}") as connection:
        connection.declare(Queue("jobs"))
        producer = connection.producer()
        producer.publish(b"1", "jobs")
        with connection.consumer("jobs") as consumer:
            message = consumer.receive(timeout=20.0)
            assert message is not None
            message.ack()
            with Session(engine) as session:
                producer.publish(b"2", "jobs", transaction=session)
                session.rollback()
            consumer.flush()
            info = connection.inspect("jobs")
            assert (info.ready, info.unacked) == (0, 0)
