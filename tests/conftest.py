"""The urls of the servers that the tests use; tools/dev.py puts them into the environment."""

import importlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy
from hypothesis import HealthCheck, settings

from tests.databases import MYSQL, POSTGRES
from tests.slowness import Machine

# The same examples in every run, so that a red run means a change and not a draw. For a search with
# new ones: QUEUE_CORE_TEST_RANDOM=1. How long one takes says more of the machine than of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("patient"), derandomize=True)
settings.load_profile("patient" if os.environ.get("QUEUE_CORE_TEST_RANDOM") else "same")


def url_of(variable: str, server: str) -> str:
    url = os.environ.get(variable)
    if url:
        return url
    if os.environ.get("QUEUE_CORE_TEST_FAST"):
        pytest.skip(f"needs {server}; make test-fast goes without servers")
    command = ".venv/bin/python tools/services.py run -- .venv/bin/pytest ..."
    pytest.fail(f"{server} is missing: {variable} is not set; next: {command}", pytrace=False)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Bounds for what a test measures, that bear a slow machine and not slow code."""
    with Machine(tmp_path / "slowness") as measured:
        yield measured


@pytest.fixture(scope="session")
def amqp_url() -> str:
    """A RabbitMQ in which the tests may do what they like, within its virtual host."""
    return url_of("QUEUE_CORE_TEST_AMQP_URL", "RabbitMQ")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis in which the tests may use keys that begin with ``{qc-test-``."""
    return url_of("QUEUE_CORE_TEST_REDIS_URL", "Redis")


@pytest.fixture
def redis_broker(redis_url: str) -> Iterator[str]:
    """The url of a broker of the test's own; its keys are deleted afterwards."""
    prefix = f"qc-test-{uuid.uuid4().hex}"
    yield f"{redis_url}?prefix={prefix}"
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter(f"{{{prefix}}}:*", count=1000))
        if keys:
            client.unlink(*keys)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Any]]:
    """Start a server that only these tests use: ``start_server("rabbitmq", "RabbitMQ")``.

    The two names are those of a module in tools/servers and of its class; the result is a
    ``Server``. It ends with the tests, however they end.
    """
    tools = str(Path(__file__).parents[1] / "tools")
    with ExitStack() as stack:

        def start(module: str, name: str) -> Any:
            sys.path.insert(0, tools)
            try:
                private = importlib.import_module("servers.private")
                service = getattr(importlib.import_module(f"servers.{module}"), name)()
            finally:
                sys.path.remove(tools)
            program = service.program()
            if program is None:
                command = f"apt-get install {' '.join(service.packages)}"
                pytest.fail(f"this test starts a {name}; next: {command}", pytrace=False)
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            stack.callback(os.close, writer)  # from here on the server ends with this process
            server = private.start(service, program, tmp_path_factory.mktemp(module), owner=reader)
            stack.callback(private.stop, service, server)
            return server

        yield start


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A PostgreSQL database in which the tests may make roles, and schemas for them."""
    return url_of("QUEUE_CORE_TEST_POSTGRES_URL", "PostgreSQL")


@pytest.fixture(scope="session")
def mysql_url() -> str:
    """A MariaDB in which the tests may make databases and users named like its database."""
    return url_of("QUEUE_CORE_TEST_MYSQL_URL", "MariaDB")


@pytest.fixture(scope="session")
def postgres_admin(postgres_url: str) -> Iterator[sqlalchemy.Connection]:
    """A connection that may do everything; each statement commits."""
    with POSTGRES.admin(postgres_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def mysql_admin(mysql_url: str) -> Iterator[sqlalchemy.Connection]:
    """A connection that may do everything; each statement commits."""
    with MYSQL.admin(mysql_url) as connection:
        yield connection


@pytest.fixture
def postgres_broker(postgres_admin: sqlalchemy.Connection, postgres_url: str) -> Iterator[str]:
    """The url of a broker of the test's own: a plain user with an empty schema, dropped after."""
    with POSTGRES.account(postgres_admin, postgres_url, room=True) as url:
        yield url


@pytest.fixture
def mysql_broker(mysql_admin: sqlalchemy.Connection, mysql_url: str) -> Iterator[str]:
    """The url of a broker of the test's own: a plain user with an empty database, dropped after."""
    with MYSQL.account(mysql_admin, mysql_url, room=True) as url:
        yield url


@pytest.fixture
def postgres_restricted(postgres_admin: sqlalchemy.Connection, postgres_url: str) -> Iterator[str]:
    """A user who may log in and has no place where it may create a table."""
    with POSTGRES.account(postgres_admin, postgres_url, room=False) as url:
        yield url


@pytest.fixture
def mysql_restricted(mysql_admin: sqlalchemy.Connection, mysql_url: str) -> Iterator[str]:
    """A user who may read and write an empty database, and not create a table in it."""
    with MYSQL.account(mysql_admin, mysql_url, room=False) as url:
        yield url


BROKERS = ("sqlite", "redis", "postgres", "mysql", "amqp")  # what processes can share


def _url(request: pytest.FixtureRequest, folder: Path) -> str:
    """A url for the broker that the fixture's parameter names; all but RabbitMQ are our own."""
    if request.param == "memory":
        return f"memory://{folder.name}"
    if request.param == "sqlite":
        return f"sqlite:///{folder}/broker.db"
    fixture = "amqp_url" if request.param == "amqp" else f"{request.param}_broker"
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture(params=BROKERS)
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each broker that processes can share, in turn."""
    return _url(request, tmp_path)


@pytest.fixture(params=["memory", *BROKERS])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each broker, in turn."""
    return _url(request, tmp_path)
