"""Speaking SQL with a database server while there is no database of ours yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from servers.service import ServiceError

DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}


def named(url: str, database: str) -> str:
    """The same url with another database."""
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def ask(url: str, question: str) -> Any:
    """The first value of the answer. Raises `ServiceError` with what the driver said."""
    with _administered(url) as connection:
        return connection.exec_driver_sql(question).scalar()


def change(url: str, *statements: str) -> None:
    """Run statements, each of which commits by itself. Raises `ServiceError`."""
    with _administered(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def change_each(url: str, question: str) -> None:
    """Run the statements that the answer to ``question`` consists of. Raises `ServiceError`."""
    with _administered(url) as connection:
        for statement in connection.exec_driver_sql(question).scalars().all():
            connection.exec_driver_sql(statement)


@contextmanager
def _administered(url: str) -> Iterator[Connection]:
    try:
        address = make_url(url)
        engine = create_engine(
            address.set(drivername=DRIVERS.get(address.drivername, address.drivername)),
            isolation_level="AUTOCOMMIT",
            poolclass=NullPool,
            connect_args={"connect_timeout": 5},
        )
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ServiceError(cause, "look into the server's log") from error
