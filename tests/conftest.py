"""The urls of the servers that the tests use; tools/dev.py puts them into the environment."""

import os

import pytest


def url_of(variable: str, server: str) -> str:
    url = os.environ.get(variable)
    if url:
        return url
    if os.environ.get("QUEUE_CORE_TEST_FAST"):
        pytest.skip(f"needs {server}; make test-fast goes without servers")
    command = "tools/services.py run -- .venv/bin/pytest ..."
    pytest.fail(f"{server} is missing: {variable} is not set; next: {command}", pytrace=False)


@pytest.fixture(scope="session")
def amqp_url() -> str:
    """A RabbitMQ in which the tests may do what they like, within its virtual host."""
    return url_of("QUEUE_CORE_TEST_AMQP_URL", "RabbitMQ")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis in which the tests may use keys that begin with ``{qc-test-``."""
    return url_of("QUEUE_CORE_TEST_REDIS_URL", "Redis")
