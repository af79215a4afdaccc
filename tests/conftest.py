"""The urls of the servers that the tests use; tools/dev.py puts them into the environment."""

import os
import uuid
from collections.abc import Iterator

import pytest
import redis
from hypothesis import settings

# The same examples in every run, so that a red run means a change and not a draw. For a search with
# new ones: QUEUE_CORE_TEST_RANDOM=1.
settings.register_profile("same", derandomize=True)
if not os.environ.get("QUEUE_CORE_TEST_RANDOM"):
    settings.load_profile("same")


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


@pytest.fixture
def redis_broker(redis_url: str) -> Iterator[str]:
    """The url of a broker of the test's own; its keys are deleted afterwards."""
    prefix = f"qc-test-{uuid.uuid4().hex}"
    yield f"{redis_url}?prefix={prefix}"
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter(f"{{{prefix}}}:*", count=1000))
        if keys:
            client.unlink(*keys)
