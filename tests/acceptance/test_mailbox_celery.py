"""Remote control beside celery and kombu, both as they are published: either side asks the other.

They run in an environment of their own, made by tools/peers.sh.
"""

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from queue_core import Connection
from queue_core.mailbox import Mailbox
from queue_core.testing.eventually import eventually

ROOT = Path(__file__).parents[2]
SIDE = Path(__file__).parent / "celery_side"
WITHIN = 60.0


@pytest.fixture(scope="module")
def peers():
    """The programs of the environment in which celery is installed."""
    folder = ROOT / ".venv-peers" / "bin"
    if not (folder / "celery").exists():
        if os.environ.get("QUEUE_CORE_TEST_FAST"):
            pytest.skip("needs celery; make test-fast goes without")
        pytest.fail("celery is missing; next: sh tools/peers.sh", pytrace=False)
    return folder


@pytest.fixture
def start(peers, amqp_url):
    """Start a program of theirs; it is killed after the test."""
    started = []

    def run(program, *arguments):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        started.append(
            subprocess.Popen(
                [peers / program, *arguments],
                cwd=SIDE,
                env={**clean, "BROKER": amqp_url},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def celery(start):
    """Run celery's command line and return what it printed as JSON, by node."""

    def run(*arguments):
        output = start("celery", "-A", "program", *arguments, "-j").communicate(timeout=WITHIN)[0]
        lines = [line for line in output.splitlines() if line.startswith(("{", "[{"))]
        assert lines, output
        found = json.loads(lines[-1])
        return found if isinstance(found, dict) else {k: v for one in found for k, v in one.items()}

    return run


@pytest.fixture
def box(amqp_url):
    with Connection(amqp_url) as connection, Mailbox("celery", connection) as made:
        yield made


@pytest.fixture
def name():
    return f"celery@qc-test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def node(box, name):
    """A node of ours that looks like a worker of celery's."""
    with box.node(name, {}) as made:

        @made.handler
        def active(state, safe: bool = False):
            return [{"id": "1", "name": "program.add"}]

        @made.handler
        def stats(state):
            return {"pid": os.getpid()}

        @made.handler(kind="control")
        def rate_limit(state, task_name: str, rate_limit: str):
            state[task_name] = rate_limit
            return {"ok": "new rate limit set successfully"}

        yield made


def test_celerys_inspect_and_control_reach_our_node(celery, node, name):
    assert celery("inspect", "ping", "-d", name)[name] == {"ok": "pong"}
    assert celery("inspect", "active", "-d", name)[name] == [{"id": "1", "name": "program.add"}]
    assert celery("inspect", "stats", "-d", name)[name] == {"pid": os.getpid()}
    assert celery("inspect", "ping")[name] == {"ok": "pong"}
    answer = celery("control", "-d", name, "rate_limit", "program.add", "5/s")
    assert answer[name] == {"ok": "new rate limit set successfully"}
    assert node.state == {"program.add": "5/s"}


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_our_mailbox_reaches_celerys_worker(start, box, name, first):
    if first == "ours":
        assert box.call([name], "ping", timeout=5).unknown == {name}
        box.multi_call("ping", timeout=0.1)
    queue = name.replace("celery@", "")
    start("celery", "-A", "program", "worker", "-c", "1", "-P", "solo", "-n", name, "-Q", queue)
    eventually(lambda: name in box.call([name], "ping", timeout=2.0), WITHIN)
    answers = box.call([name], "registered", timeout=10)
    assert answers[name] == ["program.add"]
    everybody = box.multi_call("ping", timeout=2.0)
    assert everybody[name] == {"ok": "pong"}
    wrong = box.call([name], "no_such_command", timeout=10)
    assert "no_such_command" in str(wrong.errors[name])


def test_our_mailbox_reaches_a_node_of_kombu(start, amqp_url):
    namespace = f"qc-test-{uuid.uuid4().hex[:8]}"
    process = start("python", "program.py", namespace, "theirs")
    assert process.stdout.readline() == "ready\n"
    with (
        Connection(amqp_url) as connection,
        Mailbox(namespace, connection, mixed=True) as box,
    ):
        assert dict(box.call(["theirs"], "double", {"number": 4}, timeout=10)) == {"theirs": 8}
        assert dict(box.multi_call("double", {"number": 5}, timeout=2, limit=1)) == {"theirs": 10}
